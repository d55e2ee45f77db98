"""`.masks` recordings: what a daemon published, one sequence for each camera.

Owns: where each message of a camera lies in the file. Thread: that of the caller. Never: holds more than one message,
or reads past the last sound record.

A picture's place is its `seq`, the number of decoded pictures before it: of a file that the daemon played from its
beginning that is the place in the file. Where a recording goes on in another run of the daemon, places go on, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stream import wire
from stream.masksets.tracked import confidence
from stream.recording import Record, RecordingError, check_header, read_record
from stream.sequence import LabelledFrame, MaskFileError


class CameraTrack:
    """Grows while a file is scanned, by the thread that scans."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.offsets: dict[int, int] = {}  # place to where its record begins
        self.labels: dict[int, str] = {}
        self._run, self._offset, self._last = -1, 0, -1

    def add(self, message: wire.MasksMessage, begin: int) -> None:
        if message.run != self._run:
            self._offset = self._last + 1 - message.seq if self._run >= 0 else 0
            self._run = message.run
        self._last = message.seq + self._offset
        self.offsets[self._last] = begin
        self.labels.update({item.id: item.label for item in message.objects if item.label})


class RecordedSequence:
    """One camera of a recording. Frozen once made, any thread may read."""

    def __init__(self, path: Path, camera: str, track: CameraTrack) -> None:
        self.path, self.name = path, camera
        self.footage: Path | None = None
        self.size = track.size
        self.labels: Mapping[int, str] = track.labels
        self.annotated: Sequence[int] = tuple(sorted(track.offsets))
        self.num_frames = self.annotated[-1] + 1
        self._offsets = track.offsets

    def frame(self, index: int) -> LabelledFrame:
        begin = self._offsets[index]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                record = read_record(file)
            message = message_of(record) if record is not None else None
            masks = {item.id: message.mask(item.id) for item in message.objects} if message is not None else {}
        except (OSError, wire.WireError) as exc:
            raise MaskFileError(f"{self.path}, picture {index}: {exc}") from exc
        if message is None:
            raise MaskFileError(f"{self.path} changed while it was read: picture {index} is not there any more")
        sure = {item.id: confidence(item.score, item.predicted_iou) for item in message.objects}
        return LabelledFrame(index, masks, sure)


def message_of(record: Record) -> wire.MasksMessage | None:
    """The masks in a record; None for a record of another kind."""
    if not record.payload.startswith(b"masks/"):
        return None
    message = wire.decode(record.payload)
    return message if isinstance(message, wire.MasksMessage) else None


def _add(tracks: dict[str, CameraTrack], message: wire.MasksMessage | None, begin: int) -> None:
    if message is not None:
        track = tracks.setdefault(message.camera, CameraTrack((message.height, message.width)))
        track.add(message, begin)


def recorded_sequences(path: Path) -> list[RecordedSequence]:
    """Every camera of the file, by name."""
    tracks: dict[str, CameraTrack] = {}
    try:
        with path.open("rb") as file:
            check_header(path, file)
            begin = file.tell()
            while (record := read_record(file)) is not None:
                _add(tracks, message_of(record), begin)
                begin = file.tell()
    except (OSError, RecordingError, wire.WireError) as exc:
        raise MaskFileError(f"{path}: {exc}" if str(path) not in str(exc) else str(exc)) from exc
    if not tracks:
        raise MaskFileError(f"{path} holds no masks, expected messages of at least one camera")
    return [RecordedSequence(path, camera, tracks[camera]) for camera in sorted(tracks)]
