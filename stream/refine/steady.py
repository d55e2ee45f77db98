"""`steadied`: logits that follow their own past where the object rests, and do not where it changes.

Owns: the motion gate. Pure functions on tensors of any device; the worker's thread. Never: waits for the device.

The past is first laid over the present: moved by the distance between the centroids of both masks, then shifted,
turned and scaled a little more so that the edges fit (Gauss-Newton on the logits). Then a pixel takes the less of it,
the more the two differ there, and none where the masks differ as a whole or the object moved by its own size. So an
object that moves, grows, turns or appears leaves no ghost; an edge that trembles comes to rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SHARE = 0.6  # of the past, with smooth = 1
GATE_LOGITS = 8.0  # at this difference the past counts for a third
MIN_IOU = 0.7  # of the mask and the past laid over it; below, the object changed as a whole
MAX_SHIFT = 0.5  # of the object's size, from one picture to the next
NUM_STEPS = 3
EDGE_LOGITS = 6.0  # what is surer than that says little about where the edge is
RIDGE = 1e-3


def steadied(logits_nhw: Tensor, before_nhw: Tensor, smooth_n: Tensor) -> Tensor:
    """`smooth_n` from 0 to 1; what was empty, or is, stays as it is."""
    masks, masks_before = logits_nhw > 0, before_nhw > 0
    area = masks.flatten(1).sum(1)
    shift_n2 = _centroids(masks) - _centroids(masks_before)
    is_near = shift_n2.norm(dim=1) <= MAX_SHIFT * area.sqrt()
    is_followed = is_near & (area > 0) & masks_before.flatten(1).any(1)
    moved = _laid_over(before_nhw, logits_nhw, torch.where(is_followed[:, None], shift_n2, 0.0))
    union = ((moved > 0) | masks).flatten(1).sum(1)
    is_same = is_followed & (((moved > 0) & masks).flatten(1).sum(1) >= MIN_IOU * union)
    change = moved - logits_nhw
    share = torch.exp(-((change / GATE_LOGITS) ** 2)) * (MAX_SHARE * smooth_n * is_same)[:, None, None]
    return torch.where(is_same[:, None, None], logits_nhw + share * change, logits_nhw)


def _centroids(masks_nhw: Tensor) -> Tensor:
    """(n, 2) x and y in pixels; of an empty mask 0."""
    columns, rows = masks_nhw.sum(1).float(), masks_nhw.sum(2).float()
    area = columns.sum(1).clamp(min=1)
    x = (columns * torch.arange(columns.shape[1], device=columns.device)).sum(1) / area
    return torch.stack([x, (rows * torch.arange(rows.shape[1], device=rows.device)).sum(1) / area], dim=1)


def _laid_over(before_nhw: Tensor, logits_nhw: Tensor, shift_n2: Tensor) -> Tensor:
    """The past where the present is; begins at the shift."""
    height, width = logits_nhw.shape[1:]
    y, x = torch.meshgrid(*(torch.arange(float(n), device=logits_nhw.device) for n in (height, width)), indexing="ij")
    size = max(height, width)
    basis = torch.stack([torch.ones_like(x), (x - width / 2) / size, (y - height / 2) / size])  # at each place
    place = torch.stack([x, y])[None] - shift_n2[:, :, None, None]  # where in the past it comes from
    for _ in range(NUM_STEPS):
        moved = _sampled(before_nhw, place)
        place = place + _step(moved, logits_nhw, basis)
    return _sampled(before_nhw, place)


def _step(moved_nhw: Tensor, logits_nhw: Tensor, basis_3hw: Tensor) -> Tensor:
    """How much farther each place is to be looked for (n, 2, h, w), to fit better: a shift, a turn and a scale."""
    padded = F.pad(moved_nhw[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    one, x, y = basis_3hw
    slopes = torch.stack([across * one, down * one, across * x + down * y, down * x - across * y], dim=1).flatten(2)
    weight = (torch.exp(-((moved_nhw / EDGE_LOGITS) ** 2)) * (logits_nhw.abs() < 2 * EDGE_LOGITS)).flatten(1)
    weighted = slopes * weight[:, None]
    normal = weighted @ slopes.transpose(1, 2)
    normal = normal + (RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-6)[:, None, None] * torch.eye(
        4, device=one.device
    )
    wanted = weighted @ (logits_nhw - moved_nhw).flatten(1)[:, :, None]
    found, _ = torch.linalg.solve_ex(normal, wanted)  # does not wait for the device to say whether it could
    right, below, scale, turn = found[:, :, :, None].unbind(1)
    return torch.stack([right + scale * x - turn * y, below + scale * y + turn * x], dim=1)


def _sampled(logits_nhw: Tensor, place_n2hw: Tensor) -> Tensor:
    height, width = logits_nhw.shape[1:]
    x, y = place_n2hw.unbind(1)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=3)
    return F.grid_sample(logits_nhw[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
