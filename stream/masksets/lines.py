"""JSON lines of COCO RLE, as `sam2-stream segment` writes them: this text is the specification.

Owns: `RleLine`, and the sequence that reads a file of them. Thread: that of the caller. Never: holds more than one
line and the places of the others.

A file holds one line for each picture that was processed, in order, each a JSON object and a line feed:

    index    int         place of the picture in the video, from 0; the pictures in between were not processed
    time_s   float|null  of the picture, since the beginning of the video
    height   int         of the picture, in pixels ...
    width    int
    objects  array, each object once; one that is known but not there has an empty mask:
      id          int
      label       str         may be empty
      rle         {"size": [height, width], "counts": str}   COCO's run-length string
      confidence  float       0 to 1: sigmoid(score) x iou; mAP orders by it
      score       float|null  the object score, a logit: above 0 = visible
      iou         float|null  the model's own estimate of the mask's IoU, 0 to 1
      state       str|null    "tracked", "occluded", ... as on the wire

Readers ignore keys that they do not know; `index`, `height`, `width` and an object's `id` and `rle` must be there.
Where an index stands twice the later line counts. A last line without its line feed was cut short, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from stream.masksets.rle import Rle, bits_of
from stream.sequence import LabelledFrame, MaskFileError


class RleObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object on one picture."""

    id: int
    label: str = ""
    rle: Rle
    confidence: float = 1.0
    score: float | None = None
    iou: float | None = None
    state: str | None = None


class RleLine(msgspec.Struct, frozen=True, kw_only=True):
    """All objects of one picture."""

    index: int
    time_s: float | None = None
    height: int
    width: int
    objects: tuple[RleObject, ...] = ()


class _Named(msgspec.Struct, frozen=True):
    """What an object is called; its mask is passed over."""

    id: int
    label: str = ""


class _Head(msgspec.Struct, frozen=True):
    """What the first pass over a file reads of a line."""

    index: int
    height: int
    width: int
    objects: tuple[_Named, ...] = ()


LINE = msgspec.json.Decoder(RleLine)
HEAD = msgspec.json.Decoder(_Head)


def scan(path: Path) -> Iterator[tuple[int, int, _Head]]:
    """Where each whole line begins and ends, and its head. A broken last line ends the file."""
    with path.open("rb") as file:
        begin = 0
        for number, line in enumerate(file, 1):
            end = begin + len(line)
            if not line.endswith(b"\n"):
                return
            if line.strip():
                yield begin, end, _head(line, f"{path}, line {number}")
            begin = end


def _head(line: bytes, where: str) -> _Head:
    try:
        head = HEAD.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise MaskFileError(f"{where}: {exc}; expected a picture's index, height, width and objects") from exc
    if head.index < 0:
        raise MaskFileError(f"{where}: index {head.index}, expected 0 or more")
    return head


class LineSequence:
    """A file of JSON lines. Holds their places; frozen once made, any thread may read."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self.footage: Path | None = None
        places, labels, size = {}, {}, (0, 0)
        for begin, _, head in scan(path):
            places[head.index] = begin
            labels.update({item.id: item.label for item in head.objects if item.label})
            size = size if any(size) else (head.height, head.width)
        if not places:
            raise MaskFileError(f"{path} holds no whole line, expected a JSON object for each picture")
        self.labels: Mapping[int, str] = labels
        self.size = size
        self.annotated: Sequence[int] = tuple(sorted(places))
        self.num_frames = self.annotated[-1] + 1
        self._places = places

    def line(self, index: int) -> RleLine:
        """All that the file says of a picture. Raises KeyError where it has none."""
        begin = self._places[index]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                return LINE.decode(file.readline())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise MaskFileError(f"{self.path}, picture {index}: {exc}") from exc

    def frame(self, index: int) -> LabelledFrame:
        line = self.line(index)
        where = f"{self.path}, picture {index}"
        masks = {item.id: bits_of(item.rle, f"{where}, object {item.id}") for item in line.objects}
        if any(mask.shape != (line.height, line.width) for mask in masks.values()):
            raise MaskFileError(f"{where}: masks of another size than its {line.height} x {line.width}, expected one")
        return LabelledFrame(index, masks, {item.id: item.confidence for item in line.objects})
