"""`steadied`: logits that follow their own past where the object rests, and do not where it changes.

Owns: the motion gate. Pure functions on tensors of any device; the worker's thread. Never: waits for the device.

The past is moved along with the object (by the distance between the centroids of both masks) before it is blended in;
a pixel takes the less of it, the more the two differ there, and none where the masks differ as a whole. So an object
that moves, turns or appears leaves no ghost; an edge that trembles by less than a low-resolution pixel comes to rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SHARE = 0.6  # of the past, with smooth = 1
GATE_LOGITS = 8.0  # at this difference the past counts for a third
MIN_IOU = 0.6  # of the mask and the moved one before it; below, the object changed as a whole


def steadied(logits_nhw: Tensor, before_nhw: Tensor, smooth_n: Tensor) -> Tensor:
    """`smooth_n` from 0 to 1; what was empty, or is, stays as it is."""
    masks, masks_before = logits_nhw > 0, before_nhw > 0
    both = masks.flatten(1).any(1) & masks_before.flatten(1).any(1)
    shift_n2 = torch.where(both[:, None], _centroids(masks) - _centroids(masks_before), 0.0)
    moved = _moved(before_nhw, shift_n2)
    union = ((moved > 0) | masks).flatten(1).sum(1).clamp(min=1)
    is_same = both & (((moved > 0) & masks).flatten(1).sum(1) >= MIN_IOU * union)
    change = moved - logits_nhw
    share = torch.exp(-((change / GATE_LOGITS) ** 2)) * (MAX_SHARE * smooth_n * is_same)[:, None, None]
    return logits_nhw + share * change


def _centroids(masks_nhw: Tensor) -> Tensor:
    """(n, 2) x and y in pixels; of an empty mask 0."""
    columns, rows = masks_nhw.sum(1).float(), masks_nhw.sum(2).float()
    area = columns.sum(1).clamp(min=1)
    x = (columns * torch.arange(columns.shape[1], device=columns.device)).sum(1) / area
    return torch.stack([x, (rows * torch.arange(rows.shape[1], device=rows.device)).sum(1) / area], dim=1)


def _moved(logits_nhw: Tensor, shift_n2: Tensor) -> Tensor:
    height, width = logits_nhw.shape[1:]
    x = torch.arange(width, device=logits_nhw.device) - shift_n2[:, :1]
    y = torch.arange(height, device=logits_nhw.device) - shift_n2[:, 1:]
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return F.grid_sample(logits_nhw[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
