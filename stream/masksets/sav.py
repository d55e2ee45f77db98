"""SA-V's JSON: the masklets of one video, annotated at every fourth picture.

Owns: the few files that were asked for last, parsed. Any thread. Never: reads a file before something of it is asked
for, keeps more than NUM_KEPT of them, or decodes more masks than one picture's.

`VIDEO_manual.json` and `VIDEO_auto.json` lie beside `VIDEO.mp4`. The outer list of `masklet` is over annotated
pictures, the inner one over the objects that `masklet_id` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from stream.masksets.rle import Rle, bits_of
from stream.sequence import LabelledFrame, MaskFileError

STEP = 4  # pictures of the video for each annotated one
SUFFIXES = ("_manual", "_auto")
NUM_KEPT = 8  # files; each has the masks of one video, as text
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


class SavFile(msgspec.Struct, frozen=True):
    """What is used of the file; sizes and counts are written as 848.0."""

    video_frame_count: float
    video_height: float
    video_width: float
    masklet: list[list[Rle | None]]
    masklet_id: list[int]
    video_id: str = ""


DECODER = msgspec.json.Decoder(SavFile)


@lru_cache(maxsize=NUM_KEPT)
def parsed(path: Path, changed_ns: int) -> SavFile:
    """The file as it is since that time."""
    assert changed_ns, f"{path} has no time of its last change"
    try:
        return DECODER.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise MaskFileError(f"{path}: {exc}; expected SA-V's JSON with masklet and masklet_id") from exc


class SavSequence:
    """One file of masklets. Frozen once made, any thread may read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = next((path.stem.removesuffix(end) for end in SUFFIXES if path.stem.endswith(end)), path.stem)
        self.labels: Mapping[int, str] = {}

    @property
    def footage(self) -> Path | None:
        """The video beside it, where there is one."""
        places = [self.path.with_name(self.name + suffix) for suffix in VIDEO_SUFFIXES]
        return next((place for place in places if place.is_file()), None)

    @property
    def size(self) -> tuple[int, int]:
        return int(self._file.video_height), int(self._file.video_width)

    @property
    def num_frames(self) -> int:
        return max(int(self._file.video_frame_count), self.annotated[-1] + 1 if self.annotated else 0)

    @property
    def annotated(self) -> Sequence[int]:
        return range(0, STEP * len(self._file.masklet), STEP)

    def frame(self, index: int) -> LabelledFrame:
        if index not in self.annotated:
            raise KeyError(index)
        row = self._file.masklet[index // STEP]
        where = f"{self.path}, picture {index}"
        if len(row) != len(self._file.masklet_id):
            raise MaskFileError(f"{where}: {len(row)} masks, expected {len(self._file.masklet_id)} as in masklet_id")
        pairs = zip(self._file.masklet_id, row, strict=True)
        return LabelledFrame(index, {part: bits_of(rle, where) for part, rle in pairs if rle is not None})

    @property
    def _file(self) -> SavFile:
        try:
            return parsed(self.path, self.path.stat().st_mtime_ns)
        except OSError as exc:
            raise MaskFileError(f"{self.path} cannot be read: {exc.strerror}") from exc
