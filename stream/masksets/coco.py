"""COCO's JSON: annotations or results with run-length masks; and YouTube-VIS', with a list of masks for each object.

Owns: how annotations are grouped into videos, pictures and objects. Thread: that of the caller. Never: decodes a mask
before it is asked for, or draws a polygon.

- A list is results: a picture's place is its `image_id`.
- In an object with `images`, those of a `video_id` are one video, in the order of `frame_id`, `frame_index` or `id`.
- An object's id is `track_id` or `instance_id`. Without them every annotation is an object of its own picture, named by
  its category: ids do not hold from one picture to the next, and only mAP means something.
- With `segmentations` (YouTube-VIS) an annotation is one object, with a mask or null for each picture of its video.

`score` is the confidence; the label is the category's name, or its number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stream.masksets.rle import Rle, bits_of
from stream.sequence import LabelledFrame, MaskFileError

MAX_UNTRACKED = 1000  # annotations of one category on one picture


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """One object, on one picture or (with `segmentations`) on all of a video."""

    image_id: int = 0
    video_id: int = 0
    category_id: int = 0
    id: int = 0
    track_id: int | None = None
    instance_id: int | None = None
    segmentation: Any = None
    segmentations: list[Any] | None = None
    score: float = 1.0


class CocoImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, maybe of a video."""

    id: int
    video_id: int = 0
    frame_id: int | None = None
    frame_index: int | None = None


class Named(msgspec.Struct, frozen=True):
    """A video or a category."""

    id: int
    name: str = ""


class CocoFile(msgspec.Struct, frozen=True, kw_only=True):
    """An object with annotations."""

    annotations: list[Annotation]
    images: list[CocoImage] = []
    videos: list[Named] = []
    categories: list[Named] = []


class Entry(msgspec.Struct, frozen=True):
    """A mask, not yet decoded, of an object on a picture."""

    object_id: int
    segmentation: Any
    score: float


class CocoSequence:
    """One video of the file. Frozen once made, any thread may read."""

    def __init__(self, path: Path, name: str, entries: Mapping[int, list[Entry]], *, labels: Mapping[int, str]) -> None:
        self.path, self.name = path, name
        self.footage: Path | None = None
        self.labels = labels
        self.annotated: Sequence[int] = tuple(sorted(entries))
        self.num_frames = self.annotated[-1] + 1 if self.annotated else 0
        self._entries = entries

    @property
    def size(self) -> tuple[int, int]:
        first = next((entry for index in self.annotated for entry in self._entries[index]), None)
        if first is None:
            raise MaskFileError(f"{self.path}: video {self.name} has no mask, expected at least one")
        return rle_in(first.segmentation, str(self.path)).size

    def frame(self, index: int) -> LabelledFrame:
        entries, where = self._entries[index], f"{self.path}, picture {index}"
        masks = {entry.object_id: bits_of(rle_in(entry.segmentation, where), where) for entry in entries}
        if len(masks) < len(entries):
            raise MaskFileError(f"{where}: objects {[entry.object_id for entry in entries]}, expected each one once")
        return LabelledFrame(index, masks, {entry.object_id: entry.score for entry in entries})


def rle_in(segmentation: Any, where: str) -> Rle:
    """The run-length mask; a polygon is refused."""
    if isinstance(segmentation, list):
        raise MaskFileError(f"{where}: the mask is a polygon, expected COCO's run-length encoding")
    try:
        return msgspec.convert(segmentation, Rle)
    except msgspec.ValidationError as exc:
        raise MaskFileError(f"{where}: {exc}; expected COCO's run-length encoding (size, counts)") from exc


def coco_sequences(path: Path) -> list[CocoSequence]:
    """Every video of the file."""
    try:
        data = path.read_bytes()
        results = msgspec.json.decode(data, type=list[Annotation] | CocoFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise MaskFileError(
            f"{path}: {exc}; expected COCO's JSON: a list of annotations, or an object with them"
        ) from exc
    file = results if isinstance(results, CocoFile) else CocoFile(annotations=results)
    if not file.annotations and not file.images:
        raise MaskFileError(f"{path} holds no annotation, expected at least one")
    groups = _by_video(file)
    titles = {video.id: re.sub(r"[^\w.-]+", "_", video.name) for video in file.videos}
    only = path.stem if len(groups) == 1 else ""
    return [
        _sequence(path, titles.get(key) or only or str(key), group, categories=file.categories)
        for key, group in sorted(groups.items())
    ]


def _by_video(file: CocoFile) -> dict[int, dict[int, list[Annotation]]]:
    """Video, place of the picture in it, and what is annotated there."""
    groups: dict[int, dict[int, list[Annotation]]] = defaultdict(dict)
    places = _places(file.images)
    for video, place in places.values():
        groups[video][place] = []
    for item in file.annotations:
        for video, place in _where(item, places):
            groups[video].setdefault(place, []).append(item)
    return groups


def _where(item: Annotation, places: Mapping[int, tuple[int, int]]) -> list[tuple[int, int]]:
    """Video and place of the pictures that the annotation is about."""
    if item.segmentations is not None:
        return [(item.video_id, place) for place in range(len(item.segmentations))]
    return [places.get(item.image_id, (item.video_id, item.image_id))]


def _places(images: Iterable[CocoImage]) -> dict[int, tuple[int, int]]:
    """Image id to video and place in it."""
    videos: dict[int, list[CocoImage]] = defaultdict(list)
    for image in images:
        videos[image.video_id].append(image)
    found = {}
    for video, members in videos.items():
        members.sort(key=_order)
        found.update({image.id: (video, place) for place, image in enumerate(members)})
    return found


def _order(image: CocoImage) -> int:
    known = (image.frame_id, image.frame_index, image.id)
    return next(number for number in known if number is not None)


def _sequence(
    path: Path, name: str, group: Mapping[int, list[Annotation]], *, categories: Sequence[Named]
) -> CocoSequence:
    names = {category.id: category.name for category in categories}
    labels: dict[int, str] = {}
    entries: dict[int, list[Entry]] = {}
    for place, items in group.items():
        entries[place] = []
        for number, item in enumerate(items):
            mask = item.segmentation if item.segmentations is None else item.segmentations[place]
            object_id = _object_id(item, number)
            labels[object_id] = names.get(item.category_id, str(item.category_id))
            if mask is not None:
                entries[place].append(Entry(object_id, mask, item.score))
    return CocoSequence(path, name, entries, labels=labels)


def _object_id(item: Annotation, number: int) -> int:
    if item.segmentations is not None:
        return item.id
    tracked = item.track_id if item.track_id is not None else item.instance_id
    return tracked if tracked is not None else item.category_id * MAX_UNTRACKED + number
