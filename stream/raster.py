"""`rasterise`: one object's low-resolution logits to the bits of its picture, computed only where the object is.

Owns: bilinear up-sampling, threshold, box, area and centroid on a CPU. Pure; any thread. Never: looks far beyond the
object: a pixel is in it only where one of its four neighbours is, or where a `Guide` says so, within its margin.

The same as `F.interpolate(..., mode="bilinear", align_corners=False) > 0` up to rounding, and the figures of that mask:
5.7 ms a 1920x1080 picture that way on one core, 0.2 to 2.5 ms this way.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

Window = tuple[int, int, int, int]  # top, bottom, left, right, in pixels of the picture

EMPTY = (0.0, 0.0, 0.0, 0.0, 0.0, math.nan, math.nan)


class Guide(Protocol):
    """Draws an object's edge anew, knowing the picture."""

    @property
    def margin(self) -> int:
        """So many low-resolution pixels around the object it may claim for it."""
        ...

    def __call__(self, logits_hw: Floats, window: Window, cell: float) -> Floats:
        """Up-sampled logits of a window to others; a low-resolution pixel is `cell` pixels large."""
        ...


@dataclass(frozen=True, slots=True)
class Axis:
    """How the pixels of one axis of the picture lie between those of the low-resolution mask."""

    low: Indices  # the neighbour before, and after
    high: Indices
    low_share: Floats
    high_share: Floats

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The pixels that have a neighbour among first to last."""
        begin = int(np.searchsorted(self.high, max(first, 0)))
        return begin, int(np.searchsorted(self.low, last, side="right"))


@functools.lru_cache(maxsize=256)
def axis_of(length: int, low_res: int) -> Axis:
    """As torch computes it, in float32."""
    scale = np.float32(low_res) / np.float32(length)
    place = np.maximum(scale * (np.arange(length, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), np.float32(0))
    low = place.astype(np.intp)
    share = (place - low.astype(np.float32)).astype(np.float32)
    return Axis(low, np.minimum(low + 1, low_res - 1), np.float32(1) - share, share)


def rasterise(
    logits_hw: Floats, size: tuple[int, int], packed_hb: NDArray[np.uint8], *, guide: Guide | None = None
) -> tuple[float, ...]:
    """Set the bits in `packed_hb`, which is zero; x0, y0, x1, y1, area, centroid x and y (NaN where it is empty)."""
    positive = logits_hw > 0
    rows, columns = np.flatnonzero(positive.any(axis=1)), np.flatnonzero(positive.any(axis=0))
    if not rows.size:
        return EMPTY
    ys, xs = axis_of(size[0], logits_hw.shape[0]), axis_of(size[1], logits_hw.shape[1])
    margin = 0 if guide is None else guide.margin
    top, bottom = ys.span(rows[0] - margin, rows[-1] + margin)
    left, right = xs.span(columns[0] - margin, columns[-1] + margin)
    if top >= bottom or left >= right:
        return EMPTY  # smaller than a pixel of a picture that is smaller still
    left = left // 8 * 8
    high_hw = _upsample(logits_hw, ys, xs, window=(top, bottom, left, right))
    if guide is not None:
        high_hw = guide(high_hw, (top, bottom, left, right), _cell(logits_hw, size))
    mask_hw = high_hw > 0
    bits_hb = np.packbits(mask_hw, axis=1)
    packed_hb[top:bottom, left // 8 : left // 8 + bits_hb.shape[1]] = bits_hb
    return _figures(mask_hw, bits_hb, top=top, left=left)


def _cell(logits_hw: Floats, size: tuple[int, int]) -> float:
    return float(min(size[0] / logits_hw.shape[0], size[1] / logits_hw.shape[1]))


def _upsample(logits_hw: Floats, ys: Axis, xs: Axis, *, window: Window) -> Floats:
    """Along the rows first: those are few."""
    top, bottom, left, right = window
    first, last = ys.low[top], ys.high[bottom - 1] + 1
    rows, across = logits_hw[first:last], slice(left, right)
    wide = rows[:, xs.low[across]] * xs.low_share[across] + rows[:, xs.high[across]] * xs.high_share[across]
    high: Floats = np.take(wide, ys.low[top:bottom] - first, axis=0)
    high *= ys.low_share[top:bottom, None]
    after = np.take(wide, ys.high[top:bottom] - first, axis=0)
    after *= ys.high_share[top:bottom, None]
    high += after
    return high


def _figures(mask_hw: NDArray[np.bool_], bits_hb: NDArray[np.uint8], *, top: int, left: int) -> tuple[float, ...]:
    in_rows = np.bitwise_count(bits_hb).sum(axis=1, dtype=np.int64)
    in_columns = np.add.reduce(mask_hw.view(np.uint8), axis=0, dtype=np.uint16)
    area = int(in_rows.sum())
    if not area:
        return EMPTY
    rows, columns = np.flatnonzero(in_rows), np.flatnonzero(in_columns)
    x = left + float(in_columns @ np.arange(in_columns.size, dtype=np.int64)) / area
    y = top + float(in_rows @ np.arange(in_rows.size)) / area
    edges = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
    return (*map(float, edges), float(area), x, y)
