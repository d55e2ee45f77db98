"""`History`: the encoded pictures that somebody may have seen, so that a click is decoded on what was clicked on.

Owns: for each camera that is watched, features of the last `NUM_PICTURES` processed pictures and, of its first
`MAX_OBJECTS` objects, the conditioned features and mask logits there. The worker's thread alone uses it.
Never: runs a model, or knows what a picture's name means.

Capacity: a ring of `NUM_PICTURES`, allocated when a camera is first kept; then nothing is allocated, but for objects,
by doubling. How it loses: the oldest picture is overwritten; all of them when the camera is dropped. An object beyond
`MAX_OBJECTS` is not kept (`sight_of` is None). Memory of a camera, with nano in float32: 5.9 MB and 1.3 MB an object;
with a 1024-pixel model in float16: 168 MB and 38 MB an object.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from engines.spec import FrameFeatures

NUM_PICTURES = 16
MAX_OBJECTS = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture's features and its (height, width).

    For a correction also what the object's memory made of them, where it had one, and its mask there.
    """

    frame: FrameFeatures
    size: tuple[int, int]
    conditioned_1chw: Tensor | None = None
    logits_1hw: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One kept picture. `index` counts the camera's processed pictures; `is_conditioned` has, by object, whether it
    had a memory there.
    """

    mark: Hashable
    index: int
    size: tuple[int, int]
    is_conditioned: dict[Hashable, bool]


class _Shelf:
    """One camera. Picture `index` lies at place `index % NUM_PICTURES`; written by the worker's thread."""

    def __init__(self) -> None:
        self.num_processed = 0
        self.pictures: dict[int, Picture] = {}  # by place
        self.features: FrameFeatures | None = None
        self.conditioned_kmchw: Tensor | None = None  # k = place, m = the object's slot
        self.logits_kmhw: Tensor | None = None
        self.slots: dict[Hashable, int] = {}  # by object

    def picture(self, mark: Hashable) -> Picture | None:
        return next((picture for picture in self.pictures.values() if picture.mark == mark), None)


class History:
    """All fields are written by the worker's thread."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}

    def __contains__(self, camera: str) -> bool:
        return camera in self._shelves

    def drop(self, camera: str) -> None:
        """Forget a camera's pictures."""
        self._shelves.pop(camera, None)

    def num_bytes(self) -> int:
        """Device memory in use."""
        shelves = self._shelves.values()
        tensors = [
            x for shelf in shelves for x in (*(shelf.features or ()), shelf.conditioned_kmchw, shelf.logits_kmhw)
        ]
        return sum(x.numel() * x.element_size() for x in tensors if x is not None)

    # --- keeping -----------------------------------------------------------------------------------------------------

    def count(self, camera: str) -> None:
        """A picture of this camera is processed, and not kept."""
        if camera in self._shelves:
            self._shelves[camera].num_processed += 1

    def put(self, camera: str, mark: Hashable, size: tuple[int, int], *, frame: FrameFeatures) -> None:
        """Keep a picture that is being processed, as `mark`; `frame` holds it alone."""
        shelf = self._shelves.setdefault(camera, _Shelf())
        if shelf.features is None:
            shelf.features = FrameFeatures(*(x.new_zeros(NUM_PICTURES, *x.shape[1:]) for x in frame))
        place = shelf.num_processed % NUM_PICTURES
        for kept, new in zip(shelf.features, frame, strict=True):
            kept[place].copy_(new[0])
        shelf.pictures[place] = Picture(mark, shelf.num_processed, size, {})
        shelf.num_processed += 1
        oldest = shelf.num_processed - NUM_PICTURES
        shelf.pictures = {where: kept for where, kept in shelf.pictures.items() if kept.index >= oldest}

    def put_object(
        self,
        camera: str,
        item: Hashable,
        *,
        conditioned_1chw: Tensor | None,
        logits_1hw: Tensor,
        index: int | None = None,
    ) -> None:
        """Keep what an object's memory made of a picture, by default the last one, and its mask there."""
        shelf = self._shelves.get(camera)
        if shelf is None:
            return
        index = shelf.num_processed - 1 if index is None else index
        place = index % NUM_PICTURES
        picture = shelf.pictures.get(place)
        slot = self._slot(shelf, item, logits_1hw)
        if picture is None or picture.index != index or slot is None:
            return
        assert shelf.logits_kmhw is not None and shelf.conditioned_kmchw is not None, "a slot lies in the buffers"
        shelf.logits_kmhw[place, slot].copy_(logits_1hw[0])
        if conditioned_1chw is not None:
            shelf.conditioned_kmchw[place, slot].copy_(conditioned_1chw[0])
        picture.is_conditioned[item] = conditioned_1chw is not None

    def set_objects(self, camera: str, items: Sequence[Hashable]) -> None:
        """Which objects there are; the slots of others are free again."""
        shelf = self._shelves.get(camera)
        if shelf is not None and len(shelf.slots.keys() - set(items)):
            shelf.slots = {item: slot for item, slot in shelf.slots.items() if item in items}
            for picture in shelf.pictures.values():
                for gone in picture.is_conditioned.keys() - set(items):
                    del picture.is_conditioned[gone]

    def _slot(self, shelf: _Shelf, item: Hashable, logits_1hw: Tensor) -> int | None:
        """The object's slot; None when all are taken."""
        if item not in shelf.slots:
            slot = next(number for number in range(len(shelf.slots) + 1) if number not in shelf.slots.values())
            if slot >= MAX_OBJECTS:
                return None
            self._reserve(shelf, slot + 1, logits_1hw)
            shelf.slots[item] = slot
        return shelf.slots[item]

    def _reserve(self, shelf: _Shelf, count: int, logits_1hw: Tensor) -> None:
        assert shelf.features is not None, "a picture is kept before its objects"
        old, capacity = shelf.conditioned_kmchw, 1
        have = 0 if old is None else old.shape[1]
        while capacity < count:
            capacity *= 2
        if capacity <= have:
            return
        features = shelf.features.features_fchw
        conditioned = features.new_zeros(NUM_PICTURES, capacity, *features.shape[1:])
        logits = logits_1hw.new_zeros(NUM_PICTURES, capacity, *logits_1hw.shape[1:])
        if old is not None and shelf.logits_kmhw is not None:
            conditioned[:, :have].copy_(old)
            logits[:, :have].copy_(shelf.logits_kmhw)
        shelf.conditioned_kmchw, shelf.logits_kmhw = conditioned, logits

    # --- looking back ------------------------------------------------------------------------------------------------

    def find(self, camera: str, mark: Hashable) -> Picture | None:
        """The picture kept as `mark`."""
        shelf = self._shelves.get(camera)
        return None if shelf is None else shelf.picture(mark)

    def distance(self, camera: str, picture: Picture) -> int:
        """How many frames the next picture will be after this one; 1 = the very next."""
        return self._shelves[camera].num_processed - picture.index

    def after(self, camera: str, picture: Picture) -> list[Picture]:
        """Kept pictures that came later, from old to new."""
        later = [other for other in self._shelves[camera].pictures.values() if other.index > picture.index]
        return sorted(later, key=lambda other: other.index)

    def sight(self, camera: str, picture: Picture) -> Sight:
        """The picture for a prompt that does without memory. Views: valid until the next picture is kept."""
        features = self._shelves[camera].features
        assert features is not None, "a kept picture has features"
        place = picture.index % NUM_PICTURES
        return Sight(FrameFeatures(*(x[place : place + 1] for x in features)), picture.size)

    def sight_of(self, camera: str, picture: Picture, item: Hashable) -> Sight | None:
        """The picture for a correction of an object; None when the object was not kept there."""
        if item not in picture.is_conditioned:
            return None
        shelf, plain = self._shelves[camera], self.sight(camera, picture)
        assert shelf.conditioned_kmchw is not None and shelf.logits_kmhw is not None, (
            "a kept object lies in the buffers"
        )
        place, slot = picture.index % NUM_PICTURES, shelf.slots[item]
        one = slice(slot, slot + 1)
        conditioned = shelf.conditioned_kmchw[place, one] if picture.is_conditioned[item] else None
        return Sight(plain.frame, plain.size, conditioned, shelf.logits_kmhw[place, one])
