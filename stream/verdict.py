"""`PendingMasks`: a turn's result on its way to the host, and what it says about each object.

Owns: the states tracked, reacquired, occluded and lost. `resolve` runs in the thread that wants the result, once for
every result and in order for each camera; that thread alone writes `Visibility`. Never: runs a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.frame import Masks, ObjectState
from stream.readout import MaskBlock

LOST_AFTER_NS = 2_000_000_000
AWAY_AFTER_NS = 200_000_000  # who was hidden for less was never away
RETURNED_NS = 1_000_000_000  # how long an object that came back is called so


@dataclass(frozen=True, slots=True)
class Seen:
    """When an object was seen last, whether it is hidden since, and when it came back from its last absence."""

    last_ns: int
    is_hidden: bool = False
    returned_ns: int | None = None


class Visibility:
    """When an object was last seen; `seen` is replaced by the thread that resolves results."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: Seen | None = None

    @property
    def last_seen_ns(self) -> int | None:
        return None if self.seen is None else self.seen.last_ns

    def judge(self, score: float, now_ns: int) -> ObjectState:
        """Tracked while the object score is positive, reacquired in the first second after an absence of 0.2 s or more;
        lost after two seconds without.
        """
        seen = self.seen or Seen(now_ns)
        if score <= 0:
            self.seen = Seen(seen.last_ns, is_hidden=True)
            return ObjectState.LOST if now_ns - seen.last_ns > LOST_AFTER_NS else ObjectState.OCCLUDED
        was_away = seen.is_hidden and now_ns - seen.last_ns >= AWAY_AFTER_NS
        returned_ns = now_ns if was_away else seen.returned_ns
        if returned_ns is None or now_ns - returned_ns > RETURNED_NS:
            self.seen = Seen(now_ns)
            return ObjectState.TRACKED
        self.seen = Seen(now_ns, returned_ns=returned_ns)
        return ObjectState.REACQUIRED

    def unseen_ns(self, now_ns: int) -> int:
        """How long it is hidden."""
        return max(0, now_ns - self.seen.last_ns) if self.seen is not None and self.seen.is_hidden else 0


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
        unseen_ns = tuple(visibility.unseen_ns(self.time_ns) for visibility in self.visibilities)
        return Masks(
            height=self.height, width=self.width, object_ids=self.object_ids, states=states,
            scores=scores, ious=stats[:, 8], boxes_n4=stats[:, :4].astype(np.int32),
            areas=stats[:, 4].astype(np.int64), centroids_n2=stats[:, 5:7], packed_nhb=packed,
            unseen_ns=unseen_ns,
        )  # fmt: skip
