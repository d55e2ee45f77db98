"""`Turn`: one batch of frames and objects through the programs, in SAM 2's order.

Owns: which program runs when, and where its results go. Lives within one call of `Tracker.launch`, in that thread.
Never: outlives the call, waits for the device, or decides which frames are taken.

Order: encode the frames; follow every object that has no new prompt, in batches of rows with equally long memories;
correct those that are being refined, on the same conditioned features; decode newly prompted ones without memory (and
correct those that were refined before their first frame); let every row grow a frame older.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.spec import MAX_ROWS, Engine, FrameFeatures, Segmentation
from stream.memory import MemoryBank
from stream.prepare import prepare_frames
from stream.prompt import Prompt, mask_in_model, points_in_model
from stream.verdict import Visibility


class TrackedObject:
    """One object of one camera, its row in the bank and its pending prompts; written by the tracker's thread."""

    __slots__ = ("added", "camera", "object_id", "refined", "row", "visibility")

    def __init__(self, camera: str, object_id: int, row: int) -> None:
        self.camera, self.object_id, self.row = camera, object_id, row
        self.added: Prompt | None = None
        self.refined: Prompt | None = None
        self.visibility = Visibility()


class ResultBuffer:
    """The newest logits and scores of every object of a turn, in the turn's order; grows by doubling, reused by every
    turn.
    """

    def __init__(self, low_res_size: int, device: torch.device, capacity: int = MAX_ROWS) -> None:
        self.logits_nhw = torch.zeros(capacity, low_res_size, low_res_size, device=device)
        self.scores_n = torch.zeros(capacity, device=device)
        self.ious_n = torch.zeros(capacity, device=device)

    def reserve(self, count: int) -> None:
        capacity = self.scores_n.shape[0]
        while capacity < count:
            capacity *= 2
        if capacity != self.scores_n.shape[0]:
            size, device = self.logits_nhw.shape[-1], self.logits_nhw.device
            self.logits_nhw = torch.zeros(capacity, size, size, device=device)
            self.scores_n, self.ious_n = torch.zeros(capacity, device=device), torch.zeros(capacity, device=device)

    def put(self, positions: Tensor, found: Segmentation) -> None:
        count = positions.shape[0]
        self.logits_nhw.index_copy_(0, positions, found.logits_bhw[:count])
        self.scores_n.index_copy_(0, positions, found.scores_b[:count])
        self.ious_n.index_copy_(0, positions, found.ious_b[:count])

    def part(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.logits_nhw[start:stop], self.scores_n[start:stop], self.ious_n[start:stop]


class Turn:
    """`objects` are sorted by their camera's place in `images`."""

    def __init__(
        self,
        engine: Engine,
        bank: MemoryBank,
        results: ResultBuffer,
        *,
        images: Mapping[str, NDArray[np.uint8]],
        objects: Sequence[TrackedObject],
    ) -> None:
        self.engine, self.bank, self.results = engine, bank, results
        self.objects = objects
        self.sizes = {camera: image.shape[:2] for camera, image in images.items()}
        self.frame_of = {camera: index for index, camera in enumerate(images)}
        self.position_of = {item.row: index for index, item in enumerate(objects)}
        self.frames = self._encode(list(images.values()))
        results.reserve(len(objects))

    def run(self, *, refine_as_cond: bool) -> None:
        """Leave every object's logits and scores in the result buffer."""
        known = [item for item in self.objects if item.added is None]
        for group in self._groups(known):
            conditioned, found = self._follow(group)
            for index, item in enumerate(group):
                if item.refined is not None:
                    one = slice(index, index + 1)
                    self._refine(item, conditioned[one], found.logits_bhw[one], as_cond=refine_as_cond)
        for item in self.objects:
            if item.added is not None:
                self._add(item)
        self.bank.advance([item.row for item in self.objects])

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> FrameFeatures:
        pixels = prepare_frames(images, self.engine.spec.image_size, self.engine.device)
        missing = _bucket(len(images), self.engine.frame_buckets) - len(images)
        if missing:
            pixels = torch.cat([pixels, pixels[:1].expand(missing, -1, -1, -1)])
        return self.engine.encode(pixels)

    def _groups(self, objects: Sequence[TrackedObject]) -> list[list[TrackedObject]]:
        """Rows with equally long memories share a batch, if the engine takes so many; full banks are one such group."""
        most = self.engine.row_buckets[-1]
        by_lengths: dict[tuple[int, int], list[TrackedObject]] = {}
        for item in objects:
            by_lengths.setdefault(self.bank.lengths(item.row), []).append(item)
        return [group[i : i + most] for group in by_lengths.values() for i in range(0, len(group), most)]

    def _follow(self, group: Sequence[TrackedObject]) -> tuple[Tensor, Segmentation]:
        rows = [item.row for item in group]
        batch = _bucket(len(rows), self.engine.row_buckets)
        row_frame = np.zeros(batch, np.int64)
        row_frame[: len(rows)] = [self.frame_of[item.camera] for item in group]
        read = self.bank.read(rows, batch=batch)
        found, conditioned = self.engine.track(self.frames, self.bank.upload(row_frame), read)
        self.bank.write_recent(rows, found)
        self.results.put(self._positions(group), found)
        return conditioned, found

    def _refine(self, item: TrackedObject, conditioned_1chw: Tensor, logits_1hw: Tensor, *, as_cond: bool) -> None:
        assert item.refined is not None, "only called for objects that are being refined"
        found = self._decode(item, item.refined, conditioned_1chw, logits_1hw=logits_1hw)
        if as_cond:
            self.bank.write_prompted(item.row, found)
        else:
            self.bank.write_recent([item.row], found)
        item.refined = None

    def _add(self, item: TrackedObject) -> None:
        assert item.added is not None, "only called for objects that were added"
        found = self._decode(item, item.added, None, logits_1hw=None)
        self.bank.write_prompted(item.row, found)
        if item.refined is not None:
            found = self._decode(item, item.refined, None, logits_1hw=found.logits_bhw)
            self.bank.write_prompted(item.row, found)
        item.added = item.refined = None

    def _decode(
        self, item: TrackedObject, prompt: Prompt, conditioned_1chw: Tensor | None, *, logits_1hw: Tensor | None
    ) -> Segmentation:
        index, size = self.frame_of[item.camera], self.engine.spec.image_size
        frame = FrameFeatures(*(x[index : index + 1] for x in self.frames))
        if prompt.mask_hw is not None:
            found = self.engine.prompt_mask(frame, mask_in_model(prompt.mask_hw, size).to(self.engine.device))
        else:
            points = points_in_model(prompt, self.sizes[item.camera], image_size=size, logits_bhw=logits_1hw)
            coords, labels = points.coords_bs2.to(self.engine.device), points.labels_bs.to(self.engine.device)
            points = points._replace(coords_bs2=coords, labels_bs=labels)
            found = self.engine.prompt_points(frame, points, conditioned_1chw)
        self.results.put(self._positions([item]), found)
        return found

    def _positions(self, group: Sequence[TrackedObject]) -> Tensor:
        return self.bank.upload(np.array([self.position_of[item.row] for item in group], np.int64))


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """The smallest batch size that holds `count`."""
    return next(size for size in buckets if size >= count)
