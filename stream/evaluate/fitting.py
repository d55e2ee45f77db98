"""Masks made to fit: to another picture's size, and to an indexed picture, where no two objects share a pixel.

Owns: who gets a pixel that two objects claim. Pure functions; any thread. Never: gives an object a pixel that it did
not claim.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.evaluate.generated import GeneratedTruth
from stream.masksets.folders import FolderSequence
from stream.masksets.picture import PictureSequence
from stream.sequence import Bits, MaskSequence


def shares_no_pixel(truth: MaskSequence) -> bool:
    """Whether the true masks are such that no pixel can belong to two objects: indexed pictures, generated clips."""
    if isinstance(truth, FolderSequence):
        return None in truth.parts
    return isinstance(truth, PictureSequence | GeneratedTruth)


def disjoint(masks_nhw: Bits, logits_nhw: NDArray[np.float32]) -> Bits:
    """Each pixel to the object with the highest logit of those that claim it, as the official `non_overlap_masks`.

    The logits have low resolution; they are interpolated like the masks.
    """
    shared = masks_nhw.sum(0, dtype=np.uint8) > 1 if len(masks_nhw) > 1 else np.zeros(masks_nhw.shape[1:], np.bool_)
    if not shared.any():
        return masks_nhw
    size = (masks_nhw.shape[2], masks_nhw.shape[1])
    claimants = [index for index, mask in enumerate(masks_nhw) if (mask & shared).any()]
    best, winner = np.full(int(shared.sum()), -np.inf, np.float32), np.zeros(int(shared.sum()), np.int64)
    for index in claimants:
        full = cv2.resize(logits_nhw[index], size, interpolation=cv2.INTER_LINEAR)[shared]
        better = masks_nhw[index][shared] & (full > best)
        best, winner = np.where(better, full, best), np.where(better, index, winner)
    result = masks_nhw & ~shared
    for index in claimants:
        result[index][shared] = winner == index
    return result


def resized(mask: Bits, size: tuple[int, int]) -> Bits:
    """The mask on a picture of another (height, width); itself where that is its own."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.bool_)
