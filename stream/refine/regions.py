"""`without_small_regions`: holes of a mask are filled, and specks beside it removed, by their area.

Owns: the area rule of SAM 2's `fill_holes_in_mask_scores`: pixels at or below 0 that hang together, corners included,
and are few, get the logit 0.1; here the same for few pixels above 0, which get -0.1. Pure; the worker's thread. Never:
removes an object's largest piece, or waits for the device.

Areas are counted in pixels of a 256 x 256 mask; a model with coarser masks rounds down, but to one pixel at least.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stream.config.treatment import REFERENCE_SIZE

HOLE_LOGIT = 0.1
SPECK_LOGIT = -0.1
MAX_ROUNDS = 64  # a device looks so far; winding regions that are longer stay as they are

Floats = NDArray[np.float32]


def pixels_of(area: int, low_res: int) -> int:
    """The area in pixels of a low-resolution mask; 0 = off."""
    return area and max(1, area * low_res**2 // REFERENCE_SIZE**2)


def without_small_regions(logits_nhw: Tensor, *, holes: int, specks: int) -> Tensor:
    """Both in pixels of these logits, 0 = off."""
    if logits_nhw.device.type == "cpu":
        found = [_on_cpu(one.numpy(), holes, specks) for one in logits_nhw]
        return torch.stack([torch.from_numpy(one) for one in found])
    return on_device(logits_nhw, holes=holes, specks=specks)


def on_device(logits_nhw: Tensor, *, holes: int, specks: int) -> Tensor:
    """The same in a fixed number of steps without a look at the result."""
    filled = logits_nhw
    if holes:
        filled = torch.where(_small(filled <= 0, holes, keep_largest=False), HOLE_LOGIT, filled)
    if specks:
        filled = torch.where(_small(filled > 0, specks, keep_largest=True), SPECK_LOGIT, filled)
    return filled


def _on_cpu(logits_hw: Floats, holes: int, specks: int) -> Floats:
    filled = logits_hw
    if holes:
        filled = np.where(_small_on_cpu(filled <= 0, holes, keep_largest=False), np.float32(HOLE_LOGIT), filled)
    if specks:
        filled = np.where(_small_on_cpu(filled > 0, specks, keep_largest=True), np.float32(SPECK_LOGIT), filled)
    return filled


def _small_on_cpu(mask_hw: NDArray[np.bool_], most: int, *, keep_largest: bool) -> NDArray[np.bool_]:
    """Where the mask's regions of at most so many pixels are."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw.view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    is_small = areas <= most
    is_small[0] = False  # what is not the mask
    if keep_largest and areas.size > 1:
        is_small[1:] &= areas[1:] < areas[1:].max()
    found: NDArray[np.bool_] = is_small[labels]
    return found


def _small(mask_nhw: Tensor, most: int, *, keep_largest: bool) -> Tensor:
    """The same: every pixel takes the highest number within reach; a region that agrees on one is counted."""
    count, height, width = mask_nhw.shape
    numbers = torch.arange(1, height * width + 1, device=mask_nhw.device, dtype=torch.float32).view(1, 1, height, width)
    inside = mask_nhw[:, None].float()
    label = numbers * inside
    for _ in range(min(most, MAX_ROUNDS)):
        label = F.max_pool2d(label, 3, 1, 1) * inside
    lowest = -F.max_pool2d(torch.where(inside > 0, -label, -float(2**24)), 3, 1, 1)
    is_open = (inside > 0) & ((F.max_pool2d(label, 3, 1, 1) != label) | (lowest != label))
    flat = label.long().view(count, -1)
    weights = torch.where(is_open, float(height * width), inside).view(count, -1)  # an open region counts as large
    areas = torch.zeros(count, height * width + 1, device=mask_nhw.device).scatter_add_(1, flat, weights)
    areas[:, 0] = 0
    area = areas.gather(1, flat).view_as(mask_nhw)
    small = mask_nhw & (area <= most)
    return small & (area < areas.max(1).values[:, None, None]) if keep_largest else small
