"""Parts: what of a mask the object can be, where a mask has spread to something else.

Owns: cutting. Pure functions of small masks; the worker's thread. Never: touches a tensor, or decides between masks.

A mask that grows over a look-alike is how SAM 2 mostly loses one of two: it enters memory, and both are "the object"
from then on. So a part that lies apart, where the object cannot be, is cut off; and of a mask that, beside a
look-alike, is suddenly much larger than its object, what lies outside the place where the object is expected. Pixels
that two objects claim go to the one whose expected place is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.motion import BoxFilter, Place

Bits = NDArray[np.bool_]

MIN_PART = 0.1  # of a mask's area: smaller ones are left alone
MAX_AWAY = 0.6  # sizes of the object between its expected place and a part's centre
MAX_GROWTH = 1.5  # of the box's area against the expected one
WINDOW = 1.2  # of the expected box
UNREST = 1.0  # times the object's usual surprise, in addition


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a mask. `is_sure` unless it was cut through something that holds together."""

    mask_hw: Bits
    is_sure: bool = True


def cut(mask_hw: Bits, expected: BoxFilter, *, is_rivalled: bool) -> Cut:
    """The mask without what its object cannot be; what grows is cut only where a look-alike is near."""
    kept_hw = _reachable(mask_hw, expected)
    place = place_of(kept_hw)
    wanted = expected.place
    if not is_rivalled or place is None or place.width * place.height <= MAX_GROWTH * wanted.width * wanted.height:
        return Cut(kept_hw)
    height, width = mask_hw.shape
    y, x = (np.arange(length)[:, None] + 0.5 for length in (height, width))
    reach = WINDOW / 2 + UNREST * expected.unrest
    inside_h = np.abs(y / height - wanted.y) <= reach * wanted.height
    inside_w = np.abs(x / width - wanted.x) <= reach * wanted.width
    return Cut(kept_hw & inside_h & inside_w.T, is_sure=False)


def share_out(masks: Sequence[Bits], expected: Sequence[Place]) -> list[Bits]:
    """The masks without the pixels that another object is nearer to, of those that several claim."""
    height, width = masks[0].shape
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width
    away_nhw = np.stack([
        np.where(mask, np.hypot((x - one.x) / one.width, (y - one.y) / one.height), np.inf)
        for mask, one in zip(masks, expected, strict=True)
    ])  # fmt: skip
    nearest_hw = away_nhw.argmin(axis=0)
    return [mask & (nearest_hw == number) for number, mask in enumerate(masks)]


def place_of(mask_hw: Bits) -> Place | None:
    """The rectangle with the mask's moments: a stray pixel far away hardly moves it; None where the mask is empty."""
    columns_w, rows_h = mask_hw.sum(axis=0), mask_hw.sum(axis=1)
    if not columns_w.any():
        return None
    (x, width), (y, height) = _moments(columns_w), _moments(rows_h)
    return Place(x, y, width, height)


def area_of(place: Place) -> float:
    return place.width * place.height


def share_of_both(own: Place, other: Place) -> float:
    """The own box's share of the box around both."""
    spans = 1.0
    for middle, size, middle2, size2 in (
        (own.x, own.width, other.x, other.width), (own.y, own.height, other.y, other.height),
    ):  # fmt: skip
        spans *= max(middle + size / 2, middle2 + size2 / 2) - min(middle - size / 2, middle2 - size2 / 2)
    return own.width * own.height / spans if spans else 1.0


def touches_edge(mask_hw: Bits) -> bool:
    """Whether a part of the object may lie outside of the picture."""
    return bool(mask_hw[0].any() or mask_hw[-1].any() or mask_hw[:, 0].any() or mask_hw[:, -1].any())


def _reachable(mask_hw: Bits, expected: BoxFilter) -> Bits:
    """Without the parts that lie where the object cannot be, if another part does not."""
    count, labels_hw, stats, centres = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask_hw
    height, width = mask_hw.shape
    areas, place = stats[1:, cv2.CC_STAT_AREA], expected.place
    big = areas >= MIN_PART * areas.sum()
    right = ((centres[1:, 0] + 0.5) / width - place.x) / place.width
    down = ((centres[1:, 1] + 0.5) / height - place.y) / place.height
    away = np.hypot(right, down)
    reach = MAX_AWAY + UNREST * expected.unrest
    gone = big & (away > max(reach, away[big].min() if big.any() else 0.0))
    return mask_hw & ~np.isin(labels_hw, 1 + np.flatnonzero(gone))


def _moments(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Middle and extent along an axis, as shares of it."""
    length, total = len(counts), counts.sum()
    at = (np.arange(length) + 0.5) / length
    middle = float((counts * at).sum() / total)
    spread = float((counts * (at - middle) ** 2).sum() / total) + 1 / (12 * length**2)
    return middle, float(np.sqrt(12 * spread))
