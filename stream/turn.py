"""`Turn`: one batch of frames and objects through the programs, in SAM 2's order.

Owns: which program runs when, and where its results go. Lives within one call of `Tracker.launch`, in that thread.
Never: outlives the call, waits for the device, or decides which frames are taken.

Order: encode the frames; follow every object that has no new prompt, in batches of rows with equally long memories;
correct those that are being refined, on the same conditioned features; decode newly prompted ones without memory (and
correct those that were refined before their first frame); let every row grow a frame older.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.spec import Engine, FrameFeatures, Segmentation
from stream.history import History, Sight
from stream.memory import MemoryBank, RowMemory
from stream.pointing import decode
from stream.prepare import Upload
from stream.prompt import Prompt
from stream.readout import Readout
from stream.step import Batch, Steps
from stream.verdict import PendingMasks, Visibility


class TrackedObject:
    """One object of one camera, its row in the bank and its pending prompts; written by the tracker's thread."""

    __slots__ = ("added", "camera", "object_id", "refined", "row", "visibility")

    def __init__(self, camera: str, object_id: int, row: int) -> None:
        self.camera, self.object_id, self.row = camera, object_id, row
        self.added: Prompt | None = None
        self.refined: Prompt | None = None
        self.visibility = Visibility()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An object as it was; `memory` is None before its first picture."""

    memory: RowMemory | None
    added: Prompt | None
    refined: Prompt | None


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every turn of a tracker works with."""

    engine: Engine
    bank: MemoryBank
    steps: Steps
    history: History
    upload: Upload
    readout: Readout


class Turn:
    """`objects` are sorted by their camera's place in `images`; `marks` name the pictures that the history keeps."""

    def __init__(
        self,
        equipment: Equipment,
        *,
        images: Mapping[str, NDArray[np.uint8]],
        objects: Sequence[TrackedObject],
        marks: Mapping[str, Hashable],
    ) -> None:
        self.engine, self.bank = equipment.engine, equipment.bank
        self.steps, self.history = equipment.steps, equipment.history
        self.upload, self.readout = equipment.upload, equipment.readout
        self.objects = objects
        self.sizes = {camera: (image.shape[0], image.shape[1]) for camera, image in images.items()}
        self.frame_of = {camera: index for index, camera in enumerate(images)}
        self.position_of = {item.row: index for index, item in enumerate(objects)}
        self.frames = self.steps.hold(self._encode(list(images.values())))
        self.marks = marks
        self.steps.results.reserve(len(objects))

    def run(self, *, refine_as_cond: bool) -> None:
        """Leave every object's logits and scores in the result buffer."""
        for camera, mark in self.marks.items():
            items = [item for item in self.objects if item.camera == camera]
            self.history.set_objects(camera, items)
            self.history.put(camera, mark, self.sizes[camera], frame=self._frame(camera))
        known = [item for item in self.objects if item.added is None]
        for group in self._groups(known):
            conditioned, logits = self._follow(group)
            for index, item in enumerate(group):
                one = slice(index, index + 1)
                self._keep(item, conditioned[one], logits[one])
                if item.refined is not None:
                    self._refine(item, conditioned[one], logits[one], as_cond=refine_as_cond)
        for item in self.objects:
            if item.added is not None:
                self._add(item)
        self.bank.advance([item.row for item in self.objects])
        for item in self.objects:  # only now: a turn that failed is tried again
            item.added = item.refined = None

    def read_out(self, times_ns: Mapping[str, int]) -> dict[str, PendingMasks]:
        """Each camera's results, on their way to the host."""
        groups = {camera: [item for item in self.objects if item.camera == camera] for camera in self.sizes}
        parts, start = {}, 0
        for camera, group in groups.items():
            if group:
                parts[camera] = self.steps.results.part(start, start + len(group))
            start += len(group)
        blocks = self.readout.launch(list(parts.values()), [self.sizes[camera] for camera in parts])
        pending = {camera: PendingMasks.nothing(*size) for camera, size in self.sizes.items()}
        for camera, block in zip(parts, blocks, strict=True):
            ids = tuple(item.object_id for item in groups[camera])
            visibilities = tuple(item.visibility for item in groups[camera])
            pending[camera] = PendingMasks(*self.sizes[camera], ids, visibilities, times_ns[camera], block)
        return pending

    def _frame(self, camera: str) -> FrameFeatures:
        index = self.frame_of[camera]
        return FrameFeatures(*(x[index : index + 1] for x in self.frames))

    def _keep(self, item: TrackedObject, conditioned_1chw: Tensor | None, logits_1hw: Tensor) -> None:
        if item.camera in self.marks:
            self.history.put_object(item.camera, item, conditioned_1chw=conditioned_1chw, logits_1hw=logits_1hw)

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> FrameFeatures:
        count = _bucket(len(images), self.engine.frame_buckets)
        return self.engine.encode(self.upload.prepare(images, count=count))

    def _groups(self, objects: Sequence[TrackedObject]) -> list[list[TrackedObject]]:
        """Rows with equally long memories share a batch, if the engine takes so many; full banks are one such group."""
        most = self.engine.row_buckets[-1]
        by_lengths: dict[tuple[int, int], list[TrackedObject]] = {}
        for item, lengths in zip(objects, self.bank.slots.lengths([item.row for item in objects]), strict=True):
            by_lengths.setdefault(lengths, []).append(item)
        return [group[i : i + most] for group in by_lengths.values() for i in range(0, len(group), most)]

    def _follow(self, group: Sequence[TrackedObject]) -> tuple[Tensor, ...]:
        frames = [self.frame_of[item.camera] for item in group]
        positions = [self.position_of[item.row] for item in group]
        return self.steps.run(self.frames, Batch([item.row for item in group], frames, positions))

    def _refine(self, item: TrackedObject, conditioned_1chw: Tensor, logits_1hw: Tensor, *, as_cond: bool) -> None:
        assert item.refined is not None, "only called for objects that are being refined"
        found = self._decode(item, item.refined, conditioned_1chw, logits_1hw=logits_1hw)
        if as_cond:
            self.bank.write_prompted(item.row, found)
        else:
            self.bank.write_recent([item.row], found)

    def _add(self, item: TrackedObject) -> None:
        assert item.added is not None, "only called for objects that were added"
        found = self._decode(item, item.added, None, logits_1hw=None)
        self.bank.write_prompted(item.row, found)
        if item.refined is not None:
            found = self._decode(item, item.refined, None, logits_1hw=found.logits_bhw)
            self.bank.write_prompted(item.row, found)

    def _decode(
        self, item: TrackedObject, prompt: Prompt, conditioned_1chw: Tensor | None, *, logits_1hw: Tensor | None
    ) -> Segmentation:
        sight = Sight(self._frame(item.camera), self.sizes[item.camera], conditioned_1chw, logits_1hw)
        found = decode(self.engine, sight, prompt)
        self.steps.results.put(self.bank.upload(np.array([self.position_of[item.row]], np.int64)), found)
        self._keep(item, conditioned_1chw, found.logits_bhw)
        return found


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """The smallest batch size that holds `count`."""
    return next(size for size in buckets if size >= count)
