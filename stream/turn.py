"""`Turn`: one batch of frames and objects through the programs, in SAM 2's order.

Owns: which program runs when, and where its results go. Lives within one call of `Tracker.launch`, in that thread.
Never: outlives the call, waits for the device, or decides which frames are taken.

Order: encode the frames; follow every object that has no new prompt, in batches of rows with equally long memories
(those with the motion policy by `stream.pursuit`, with one wait for the device); correct those that are being refined,
on the same conditioned features; decode newly prompted ones without memory (and correct those that were refined before
their first frame); let every row grow a frame older.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.spec import Engine, FrameFeatures, Segmentation
from stream.guidance import Guidance
from stream.history import History, Sight
from stream.memory import MemoryBank, RowMemory
from stream.motion import View
from stream.pointing import decode
from stream.policy import Motion, PolicyName, Ruling
from stream.prepare import Upload
from stream.prompt import Prompt
from stream.pursuit import Pursuit, Sought, begin
from stream.readout import Guides, Part, Readout
from stream.refine import Finish, FinishState, Refinement
from stream.step import Batch, Steps
from stream.verdict import PendingMasks, Seen, Visibility


class TrackedObject:
    """One object of one camera, its row in the bank and its pending prompts; written by the tracker's thread.

    `policy` is None where that of the camera holds; `motion` is known of objects with the motion policy, from the
    second picture after a prompt on.
    """

    __slots__ = ("added", "camera", "finish", "motion", "object_id", "policy", "refined", "row", "visibility")

    def __init__(self, camera: str, object_id: int, row: int) -> None:
        self.camera, self.object_id, self.row = camera, object_id, row
        self.added: Prompt | None = None
        self.refined: Prompt | None = None
        self.policy: PolicyName | None = None
        self.motion: Motion | None = None
        self.finish = Finish()
        self.visibility = Visibility()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An object as it was; `memory` is None before its first picture."""

    memory: RowMemory | None
    added: Prompt | None
    refined: Prompt | None
    policy: PolicyName | None = None
    motion: Motion | None = None
    finish: FinishState = field(default_factory=FinishState)
    view: View | None = None  # the camera's last small picture, where its motion is measured
    seen: Seen | None = None

    @classmethod
    def of(cls, item: TrackedObject, bank: MemoryBank, guidance: Guidance) -> Snapshot:
        memory = bank.export_row(item.row) if bank.age(item.row) else None
        known = item.policy, item.motion, item.finish.state(), guidance.view(item.camera), item.visibility.seen
        return cls(memory, item.added, item.refined, *known)

    def put_back(self, item: TrackedObject, bank: MemoryBank, guidance: Guidance) -> None:
        item.added, item.refined, item.policy, item.motion = self.added, self.refined, self.policy, self.motion
        item.finish.put_back(self.finish)
        guidance.restore_view(item.camera, self.view)
        if item.visibility.seen is None:  # else it is known better
            item.visibility.seen = self.seen
        if self.memory is not None:
            bank.import_row(item.row, self.memory)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every turn of a tracker works with."""

    engine: Engine
    bank: MemoryBank
    steps: Steps
    history: History
    upload: Upload
    readout: Readout
    guidance: Guidance
    refinement: Refinement


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
        self.guidance, self.refinement = equipment.guidance, equipment.refinement
        self.objects, self.images = objects, images
        self.sizes = {camera: (image.shape[0], image.shape[1]) for camera, image in images.items()}
        self.frame_of = {camera: index for index, camera in enumerate(images)}
        self.position_of = {item.row: index for index, item in enumerate(objects)}
        self.frames = self.steps.hold(self._encode(list(images.values())))
        self.marks = marks
        self.prompted: set[TrackedObject] = set()  # pursued ones, on this picture
        self.steps.results.reserve(len(objects))

    def run(self, *, refine_as_cond: bool) -> None:
        """Leave every object's logits and scores in the result buffer."""
        for camera, mark in self.marks.items():
            items = [item for item in self.objects if item.camera == camera]
            self.history.set_objects(camera, items)
            self.history.put(camera, mark, self.sizes[camera], frame=self._frame(camera))
        known = [item for item in self.objects if item.added is None]
        rulings: dict[TrackedObject, Ruling] = {}
        for item, conditioned, logits in itertools.chain(self._follow(known), self._pursue(known, rulings)):
            self._keep(item, conditioned, logits)
            if item.refined is not None:
                self._refine(item, conditioned, logits, as_cond=refine_as_cond)
        for item in self.objects:
            if item.added is not None:
                self._add(item)
        self._finish(rulings)

    def _finish(self, rulings: Mapping[TrackedObject, Ruling]) -> None:
        """Only now: a turn that failed is tried again."""
        kept = {item: ruling for item, ruling in rulings.items() if item.refined is None}
        passed_over = [item.row for item, ruling in kept.items() if not ruling.is_remembered]
        self.bank.advance([item.row for item in self.objects if item.row not in passed_over])
        self.bank.pass_over(passed_over)
        for item in self.objects:
            if item not in self.prompted:
                item.motion = kept[item].motion if item in kept else None
            if item.added or item.refined:
                item.finish.forget()  # what a person corrects is seen at once
            item.added = item.refined = None

    def read_out(self, times_ns: Mapping[str, int]) -> dict[str, PendingMasks]:
        """Each camera's results, on their way to the host."""
        groups = {camera: [item for item in self.objects if item.camera == camera] for camera in self.sizes}
        parts, guides, start = {}, [], 0
        for camera, group in groups.items():
            if group:
                part = self.steps.results.part(start, start + len(group))
                parts[camera], guide = self._refined(camera, part, [item.finish for item in group])
                guides.append(guide)
            start += len(group)
        blocks = self.readout.launch(list(parts.values()), [self.sizes[camera] for camera in parts], guides)
        pending = {camera: PendingMasks.nothing(*size) for camera, size in self.sizes.items()}
        for camera, block in zip(parts, blocks, strict=True):
            ids = tuple(item.object_id for item in groups[camera])
            visibilities = tuple(item.visibility for item in groups[camera])
            pending[camera] = PendingMasks(*self.sizes[camera], ids, visibilities, times_ns[camera], block)
        return pending

    def _refined(self, camera: str, part: Part, finishes: Sequence[Finish]) -> tuple[Part, Guides]:
        """What is published of one camera's objects, and who draws their edges on a CPU."""
        refinement, (logits, scores, ious) = self.refinement, part
        logits = refinement.refined(camera, logits, finishes)
        if self.upload.is_on_host:
            return (logits, scores, ious), refinement.guides(camera, self.images[camera], finishes)
        if refinement.is_drawn(camera, finishes):
            logits = refinement.drawn(camera, logits, finishes, colours_3hw=self.upload.colours(self.frame_of[camera]))
        return (logits, scores, ious), ()

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

    def _is_pursued(self, item: TrackedObject) -> bool:
        return (item.policy or self.guidance.of(item.camera).memory_policy) == "motion"

    def _follow(self, known: Sequence[TrackedObject]) -> Iterator[tuple[TrackedObject, Tensor, Tensor]]:
        """As SAM 2 does. Each object with its conditioned features and logits, valid until the next one."""
        for group in self._groups([item for item in known if not self._is_pursued(item)]):
            frames = [self.frame_of[item.camera] for item in group]
            positions = [self.position_of[item.row] for item in group]
            conditioned, logits = self.steps.run(self.frames, Batch([item.row for item in group], frames, positions))
            for index, item in enumerate(group):
                yield item, conditioned[index : index + 1], logits[index : index + 1]

    def _pursue(
        self, known: Sequence[TrackedObject], rulings: dict[TrackedObject, Ruling]
    ) -> Iterator[tuple[TrackedObject, Tensor, Tensor]]:
        """The same with the motion policy; what was decided is left in `rulings`."""
        items = [item for item in known if self._is_pursued(item)]
        cameras = dict.fromkeys(item.camera for item in items)
        moved = {camera: self.guidance.moved(camera, self.images[camera]) for camera in cameras}
        sought = [
            Sought(item.row, self.frame_of[item.camera], self.position_of[item.row],
                   None if item.motion is None else item.motion.predicted(moved[item.camera]))
            for item in items
        ]  # fmt: skip
        found = Pursuit(self.engine, self.bank, self.steps.results).run(self.frames, sought) if items else []
        for item, one in zip(items, found, strict=True):
            rulings[item] = one.ruling
            yield item, one.conditioned_1chw, one.logits_1hw

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
        if self._is_pursued(item):
            item.motion = begin(found)
            self.prompted.add(item)
        self._keep(item, conditioned_1chw, found.logits_bhw)
        return found


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """The smallest batch size that holds `count`."""
    return next(size for size in buckets if size >= count)
