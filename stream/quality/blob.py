"""`Blob`: a mask cut to its box, so that comparing masks costs as much as the objects are large.

Owns: the cut, and what is counted on two of them. Pure; any thread. Never: changes the mask it was cut from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream.sequence import Bits


@dataclass(frozen=True, slots=True)
class Blob:
    """`bits_hw` lies at (top, left) of the picture; outside it nothing is set. An empty mask has no pixels at all."""

    top: int
    left: int
    bits_hw: Bits
    area: int

    @property
    def bottom(self) -> int:
        return self.top + int(self.bits_hw.shape[0])

    @property
    def right(self) -> int:
        return self.left + int(self.bits_hw.shape[1])

    def centroid(self) -> tuple[float, float]:
        """y and x; the mask is not empty."""
        assert self.area, "an empty mask has no centroid"
        ys, xs = self.bits_hw.sum(axis=1), self.bits_hw.sum(axis=0)
        return (
            self.top + float(ys @ np.arange(ys.size)) / self.area,
            self.left + float(xs @ np.arange(xs.size)) / self.area,
        )

    def moved(self, dy: int, dx: int) -> Blob:
        return replace(self, top=self.top + dy, left=self.left + dx)

    def window(self, top: int, left: int, *, size: tuple[int, int]) -> Bits:
        """This part of the picture; the mask lies inside it."""
        window_hw = np.zeros(size, np.bool_)
        y, x = self.top - top, self.left - left
        window_hw[y : y + self.bits_hw.shape[0], x : x + self.bits_hw.shape[1]] = self.bits_hw
        return window_hw


EMPTY = Blob(0, 0, np.zeros((0, 0), np.bool_), 0)


def blob_of(mask_hw: Bits) -> Blob:
    rows = np.flatnonzero(mask_hw.any(axis=1))
    if not rows.size:
        return EMPTY
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask_hw[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    bits_hw = np.ascontiguousarray(mask_hw[top:bottom, left:right], np.bool_)
    return Blob(top, left, bits_hw, int(np.count_nonzero(bits_hw)))


def num_both(one: Blob, other: Blob) -> int:
    """Pixels that are in both."""
    top, bottom = max(one.top, other.top), min(one.bottom, other.bottom)
    left, right = max(one.left, other.left), min(one.right, other.right)
    if top >= bottom or left >= right:
        return 0
    a = one.bits_hw[top - one.top : bottom - one.top, left - one.left : right - one.left]
    b = other.bits_hw[top - other.top : bottom - other.top, left - other.left : right - other.left]
    return int(np.count_nonzero(a & b))


def iou(one: Blob, other: Blob) -> float:
    """J of DAVIS: intersection over union; 1 where both are empty."""
    both = num_both(one, other)
    either = one.area + other.area - both
    return both / either if either else 1.0
