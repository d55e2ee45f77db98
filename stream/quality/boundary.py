"""F of DAVIS 2017: how well two masks' boundaries agree.

Owns: the boundary of a mask and the distance within which two agree. Pure; any thread. Never: looks at pixels that are
farther from both masks than that.

A pixel is on the boundary where the pixel to its right, below it, or both, differs (as the benchmark has it, with its
exceptions in the last row and column). It is matched where the other boundary has a pixel at most `radius` away, which
is what dilation with a disk asks, at any radius for the same price.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from stream.quality.blob import Blob
from stream.sequence import Bits

BOUND_SHARE = 0.008  # of the picture's diagonal


def radius_of(size: tuple[int, int]) -> int:
    """In pixels, for a picture of this height and width."""
    return math.ceil(BOUND_SHARE * float(np.linalg.norm(size)))


def boundary_f(prediction: Blob, truth: Blob, size: tuple[int, int]) -> float:
    """0 to 1; 1 where neither has a boundary."""
    if not (prediction.area and truth.area):
        return _f_of_one(prediction if prediction.area else truth, size)
    radius = radius_of(size)
    top, left = max(min(prediction.top, truth.top) - 1, 0), max(min(prediction.left, truth.left) - 1, 0)
    bottom = min(max(prediction.bottom, truth.bottom) + 1, size[0])
    right = min(max(prediction.right, truth.right) + 1, size[1])
    window = (bottom - top, right - left)
    ours_hw = boundary_of(prediction.window(top, left, size=window))
    theirs_hw = boundary_of(truth.window(top, left, size=window))
    num_ours, num_theirs = int(np.count_nonzero(ours_hw)), int(np.count_nonzero(theirs_hw))
    if not (num_ours and num_theirs):
        return float(num_ours == num_theirs)
    precision = int(np.count_nonzero(ours_hw & _near(theirs_hw, radius))) / num_ours
    recall = int(np.count_nonzero(theirs_hw & _near(ours_hw, radius))) / num_theirs
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_of(mask_hw: Bits) -> Bits:
    """Pixels that differ from one of three neighbours."""
    edge_hw = np.zeros_like(mask_hw)
    here = mask_hw[:-1, :-1]
    edge_hw[:-1, :-1] = (here ^ mask_hw[:-1, 1:]) | (here ^ mask_hw[1:, :-1]) | (here ^ mask_hw[1:, 1:])
    edge_hw[-1, :-1] = mask_hw[-1, :-1] ^ mask_hw[-1, 1:]
    edge_hw[:-1, -1] = mask_hw[:-1, -1] ^ mask_hw[1:, -1]
    return edge_hw


def _near(edge_hw: Bits, radius: int) -> Bits:
    """Pixels at most `radius` from the edge; squares of distances are whole numbers."""
    away_hw = cv2.distanceTransform((~edge_hw).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away_hw <= math.sqrt(radius * radius + 0.5))


def _f_of_one(blob: Blob, size: tuple[int, int]) -> float:
    """Against an empty mask: 0 where there is a boundary; a mask that fills the picture has none."""
    return float(blob.area in (0, size[0] * size[1]))
