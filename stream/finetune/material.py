"""What is learned from and what is held out: the videos with masks of a user, divided.

Owns: `Stretch`, a part of a video; which pictures belong to which masks where no data set's layout says so; the
division. Any thread. Never: reads a picture.

A folder is read as `evaluate --data` reads it (DAVIS, MOSE, SA-V), unless files of masks lie in it. A file of masks
(`clip.jsonl`, `cam1.masks`, `x_manual.json`) belongs to the video or folder of pictures of the same name beside it, or
to the one that is given for it. Of several videos whole ones are held out, of a single one its end.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stream.evaluate import Material, find_material
from stream.evaluate.material import VIDEO_SUFFIXES, find_pictures
from stream.finetune.settings import FinetuneError, Settings
from stream.footage import open_footage
from stream.masksets import open_masks
from stream.sequence import Footage, LabelledFrame, MaskFileError, MaskSequence, Picture

MASK_FILES = (".jsonl", ".masks")  # that may lie in a folder of videos
MIN_LEARNED = 2  # annotated pictures of a clip


@dataclass(frozen=True, slots=True)
class Division:
    """Clips to learn from, and those that judge."""

    learned: tuple[Material, ...]
    held_out: tuple[Material, ...]
    is_one_video: bool = False  # its end is held out


class _Pictures:
    """`Footage`: pictures `first` to `last` of a video, numbered from 0."""

    def __init__(self, whole: Footage, first: int, last: int) -> None:
        self.name, self.fps = whole.name, whole.fps
        self.num_frames: int | None = last - first + 1
        self._whole, self._first, self._last = whole, first, last

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        for picture in self._whole.pictures(self._first + start):
            if picture.index > self._last:
                return
            yield Picture(picture.index - self._first, picture.time_ns, picture.image_hwc, picture.name)


class _Truth:
    """`MaskSequence`: likewise."""

    def __init__(self, whole: MaskSequence, first: int, last: int) -> None:
        self.name, self.size, self.labels = whole.name, whole.size, whole.labels
        self.num_frames = last - first + 1
        self.annotated: Sequence[int] = [index - first for index in whole.annotated if first <= index <= last]
        self._whole, self._first = whole, first

    def frame(self, index: int) -> LabelledFrame:
        found = self._whole.frame(index + self._first)
        return LabelledFrame(index, found.masks, found.confidences)


def stretch(material: Material, first: int, last: int) -> Material:
    """The pictures from `first` to `last` as a video of their own."""
    return Material(
        material.name, lambda: _Pictures(material.open_footage(), first, last), _Truth(material.truth, first, last)
    )


def find_clips(data: Sequence[str], videos: Sequence[Path] = ()) -> list[Material]:
    """All videos with masks that are there; `videos` are the pictures of the files of masks, in this order.

    Raises `MaskFileError`, `FootageError` or `FinetuneError`, each with one line.
    """
    files = [Path(place) for place in data if Path(place).is_file()]
    if len(videos) not in (0, len(files)):
        raise FinetuneError(f"--video is given {len(videos)} times; expected once for each of {len(files)} mask files")
    given = dict(zip(files, videos, strict=False))
    found = [item for place in data for item in _at(place, given)]
    if usable := [item for item in found if len(item.truth.annotated) >= MIN_LEARNED]:
        return usable
    raise FinetuneError(f"{', '.join(data)}: no clip has {MIN_LEARNED} annotated pictures; expected at least one")


def _at(place: str, given: Mapping[Path, Path]) -> list[Material]:
    path = Path(place)
    if path.is_file():
        return _of_file(path, given.get(path))
    files = sorted(file for ending in MASK_FILES for file in path.glob(f"*{ending}")) if path.is_dir() else []
    return [item for file in files for item in _of_file(file, None)] or find_material(place)


def _of_file(path: Path, video: Path | None) -> list[Material]:
    truths = open_masks(path)
    if video is not None and len(truths) > 1:
        raise FinetuneError(f"--video = '{video}': {path} has {len(truths)} sequences; expected one")
    names = [truth.name for truth in truths]
    if video is None and len(names) == 1:
        names.insert(0, path.stem)
    return [
        Material(truth.name, partial(open_footage, video or _beside(path, truth, names)), truth) for truth in truths
    ]


def _beside(path: Path, truth: MaskSequence, names: Sequence[str]) -> Path:
    """What has the file's name where that holds one sequence, else what has the sequence's."""
    own = [path.with_suffix(suffix) for suffix in ("", *VIDEO_SUFFIXES) if path.stem in names]
    found = next((place for place in own if place.exists()), None) or find_pictures(truth, path.parent)
    if found is None:
        wanted = " or ".join(dict.fromkeys(f"{name}.mp4" for name in names if name in (path.stem, truth.name)))
        raise MaskFileError(f"{path}: no pictures beside it; expected {wanted}, a folder of that name, or --video")
    return found


def divide(clips: Sequence[Material], judges: Sequence[Material], settings: Settings) -> Division:
    """What is held out: `judges` where there are any, else a share of the clips, else the end of the only one.

    Raises `FinetuneError`.
    """
    most, longest = settings.validation_clips, settings.validation_pictures
    if judges:
        return Division(tuple(clips), _shortened(judges[:most], longest))
    if settings.hold_out == 0:
        return Division(tuple(clips), ())
    if len(clips) == 1:
        head, tail = _halves(clips[0], settings.hold_out)
        return Division((head,), _shortened([tail], longest), is_one_video=True)
    num_held_out = min(max(1, round(settings.hold_out * len(clips))), len(clips) - 1)
    order = np.random.default_rng((settings.seed, 7)).permutation(len(clips)).tolist()
    held_out = [clips[place] for place in sorted(order[:num_held_out])][:most]
    return Division(tuple(clips[place] for place in sorted(order[num_held_out:])), _shortened(held_out, longest))


def _halves(clip: Material, share: float) -> tuple[Material, Material]:
    places = list(clip.truth.annotated)
    cut = len(places) - max(MIN_LEARNED + 1, round(share * len(places)))
    if cut < MIN_LEARNED:
        raise FinetuneError(
            f"{clip.name}: {len(places)} annotated pictures are too few to hold some out; expected at least "
            f"{2 * MIN_LEARNED + 1}, or --validation"
        )
    return stretch(clip, 0, places[cut - 1]), stretch(clip, places[cut], places[-1])


def _shortened(clips: Sequence[Material], longest: int) -> tuple[Material, ...]:
    names = [clip.name for clip in clips]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FinetuneError(f"two held-out clips are named {twice[0]}; expected different names")
    return tuple(_short(clip, longest) for clip in clips)


def _short(clip: Material, longest: int) -> Material:
    """From its first annotated picture on; ends with the last annotated one that fits."""
    places = list(clip.truth.annotated)
    first = places[0] if places else 0
    last = places[bisect.bisect_left(places, first + longest) - 1] if places else 0
    if first == 0 and last == clip.truth.num_frames - 1:
        return clip
    return stretch(clip, first, last)
