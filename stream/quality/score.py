"""`SequenceScore`: all that is measured on one sequence, as a value that JSON can hold.

Owns: the names of the figures. Any thread: the values are frozen. Never: sees a mask, or holds what is not a finite
number.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from stream.quality.precision import Detections
from stream.quality.statistics import Statistics, statistics_of


class ObjectScore(msgspec.Struct, frozen=True, kw_only=True):
    """One object of truth. The tuples have an entry for each picture that was scored."""

    id: int
    predicted_id: int | None  # None: no prediction belongs to it
    label: str
    frames: tuple[int, ...]  # places of the pictures in the video
    j: tuple[float, ...]  # region: IoU, 1 where both are empty
    f: tuple[float, ...]  # boundary
    num_both: tuple[int, ...]  # pixels in prediction and truth ...
    num_predicted: tuple[int, ...]
    num_truth: tuple[int, ...]
    num_switches: int  # the prediction came to be on another object
    returns: tuple[int | None, ...]  # pictures to re-acquire it, after each absence; None: not re-acquired
    jitter: float | None  # of the prediction; None where no two pictures could be compared
    jitter_truth: float | None

    @property
    def region(self) -> Statistics:
        return statistics_of(self.j)

    @property
    def boundary(self) -> Statistics:
        return statistics_of(self.f)

    @property
    def j_and_f(self) -> float:
        return (self.region.mean + self.boundary.mean) / 2

    @property
    def instability(self) -> float | None:
        """What of the jitter truth does not explain."""
        return None if self.jitter is None or self.jitter_truth is None else self.jitter - self.jitter_truth

    def precisions(self) -> list[float]:
        """Of the pixels, on each picture: the share of the predicted that is right; 1 where nothing is predicted."""
        return shares(self.num_both, self.num_predicted)

    def recalls(self) -> list[float]:
        """The share of truth that is found; 1 where there is nothing to find."""
        return shares(self.num_both, self.num_truth)

    def f1s(self) -> list[float]:
        """Harmonic mean of the two: the Dice coefficient."""
        pairs = zip(self.precisions(), self.recalls(), strict=True)
        return [2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs]


class SequenceScore(msgspec.Struct, frozen=True, kw_only=True):
    """One video."""

    name: str
    height: int
    width: int
    frames: tuple[int, ...]  # places of the pictures that were scored
    objects: tuple[ObjectScore, ...]
    detections: dict[str, Detections]  # by label
    num_missing: int = 0  # pictures that the prediction does not have; they count as empty
    unmatched: tuple[int, ...] = ()  # ids of the prediction that belong to no object of truth
    hidden: tuple[int, ...] = ()  # ids of truth that no scored picture can judge

    def worst(self, count: int) -> list[tuple[int, int, float]]:
        """Picture, object and J of the pictures with the lowest J."""
        every = [(j, index, item.id) for item in self.objects for index, j in zip(item.frames, item.j, strict=True)]
        return [(index, object_id, j) for j, index, object_id in sorted(every)[:count]]


def shares(parts: Sequence[int], wholes: Sequence[int]) -> list[float]:
    whole = np.asarray(wholes, np.float64)
    values: list[float] = np.where(whole > 0, np.asarray(parts) / np.maximum(whole, 1), 1.0).tolist()
    return values
