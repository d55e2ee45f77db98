"""`PendingMasks`: a turn's result on its way to the host, and what it says about each object.

Owns: the states tracked, occluded and lost. `resolve` runs in the thread that wants the result, once for every result
and in order for each camera; that thread alone writes `Visibility`. Never: runs a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.frame import Masks, ObjectState
from stream.readout import MaskBlock

LOST_AFTER_NS = 2_000_000_000


class Visibility:
    """When an object was last seen; written by the thread that resolves results."""

    __slots__ = ("last_seen_ns",)

    def __init__(self) -> None:
        self.last_seen_ns: int | None = None

    def judge(self, score: float, now_ns: int) -> ObjectState:
        """Tracked while the object score is positive; lost after two seconds without."""
        if score > 0 or self.last_seen_ns is None:
            self.last_seen_ns = now_ns
        if score > 0:
            return ObjectState.TRACKED
        return ObjectState.LOST if now_ns - self.last_seen_ns > LOST_AFTER_NS else ObjectState.OCCLUDED


@dataclass(frozen=True, slots=True)
class PendingMasks:
    """One camera's result of one turn."""

    height: int
    width: int
    object_ids: tuple[int, ...]
    visibilities: tuple[Visibility, ...]
    time_ns: int
    block: MaskBlock | None

    @classmethod
    def nothing(cls, height: int, width: int) -> PendingMasks:
        """The result for a camera without objects."""
        return cls(height, width, (), (), 0, None)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device may still be computing."""
        return self.block is not None and self.block.event is not None

    def resolve(self) -> Masks:
        """Wait for the device's copy and judge. The arrays belong to the caller."""
        if self.block is None:
            return Masks.empty(self.height, self.width)
        stats, packed = self.block.wait()
        if self.is_asynchronous:  # a result outlives the pinned block that it arrived in
            stats, packed = stats.copy(), packed.copy()
        scores = stats[:, 7]
        pairs = zip(self.visibilities, scores.tolist(), strict=True)
        states = tuple(visibility.judge(score, self.time_ns) for visibility, score in pairs)
        return Masks(
            height=self.height, width=self.width, object_ids=self.object_ids, states=states,
            scores=scores, ious=stats[:, 8], boxes_n4=stats[:, :4].astype(np.int32),
            areas=stats[:, 4].astype(np.int64), centroids_n2=stats[:, 5:7], packed_nhb=packed,
        )  # fmt: skip
