"""`Readout`: mask logits on the device to `Masks` on the host: one block, one copy, one event a turn.

Owns: up-sampling, threshold, box, area, centroid and bit-packing. `launch` runs in the worker's thread and never waits;
`PendingMasks.resolve` runs in whichever thread wants the result. Never: tracks anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

NUM_STATS = 9  # x0, y0, x1, y1, area, centroid x, centroid y, object score, predicted IoU
_BIT_WEIGHTS = (128, 64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class MaskBlock:
    """One camera's part of a turn's result on the host; valid after the turn's event."""

    stats_ns: NDArray[np.float32]  # (n, NUM_STATS)
    packed_nhb: NDArray[np.uint8]  # (n, height, ceil(width / 8))
    event: torch.cuda.Event | None

    def wait(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Block until the copy has arrived."""
        if self.event is not None:
            self.event.synchronize()
        return self.stats_ns, self.packed_nhb


@torch.inference_mode()
def read_out(parts: Sequence[tuple[Tensor, Tensor, Tensor]], sizes: Sequence[tuple[int, int]]) -> list[MaskBlock]:
    """Each part is one camera's (logits_nhw, scores_n, ious_n); each size its picture's (height, width)."""
    device_parts = [_measure(part, size) for part, size in zip(parts, sizes, strict=True)]
    if not device_parts or device_parts[0][1].device.type == "cpu":
        return [MaskBlock(stats.numpy(), packed.numpy(), None) for stats, packed in device_parts]
    return _copy_out(device_parts)


def _copy_out(device_parts: Sequence[tuple[Tensor, Tensor]]) -> list[MaskBlock]:
    """All statistics, then all bits, in one pinned block; the caching allocator hands the same block out again."""
    flat = torch.cat([x.view(torch.uint8).flatten() for column in zip(*device_parts, strict=True) for x in column])
    host = torch.empty(flat.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(flat, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    lengths = [x.numel() * x.element_size() for column in zip(*device_parts, strict=True) for x in column]
    pieces = torch.split(host, lengths)
    count = len(device_parts)
    return [
        MaskBlock(
            pieces[i].view(torch.float32).view(stats.shape).numpy(),
            pieces[count + i].view(packed.shape).numpy(),
            event,
        )
        for i, (stats, packed) in enumerate(device_parts)
    ]


def _measure(part: tuple[Tensor, Tensor, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    logits, scores, ious = part
    high = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    masks_nhw = high > 0
    columns_nw, rows_nh = masks_nhw.sum(dim=1).float(), masks_nhw.sum(dim=2).float()
    (x0, x1, center_x), (y0, y1, center_y) = _extent(columns_nw), _extent(rows_nh)
    stats = torch.stack([x0, y0, x1, y1, rows_nh.sum(dim=1), center_x, center_y, scores.float(), ious.float()], dim=1)
    return stats, _pack(masks_nhw)


def _extent(counts_nk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First index, one past the last, and mean index of the pixels counted along an axis; 0, 0 and NaN where there are
    none.
    """
    length = counts_nk.shape[1]
    used = counts_nk > 0
    first, last = used.int().argmax(dim=1), length - used.int().flip(1).argmax(dim=1)
    last = torch.where(used.any(dim=1), last, 0)
    index = torch.arange(length, device=counts_nk.device, dtype=torch.float32)
    mean = (counts_nk * index).sum(dim=1) / counts_nk.sum(dim=1)
    return first.float(), last.float(), mean


def _pack(masks_nhw: Tensor) -> Tensor:
    """Eight pixels a byte, most significant bit first."""
    if masks_nhw.device.type == "cpu":
        return torch.from_numpy(np.packbits(masks_nhw.numpy(), axis=2))
    return _pack_on_device(masks_nhw)


def _pack_on_device(masks_nhw: Tensor) -> Tensor:
    """`np.packbits` without leaving the device."""
    padded = F.pad(masks_nhw.to(torch.uint8), (0, -masks_nhw.shape[2] % 8))
    weights = torch.tensor(_BIT_WEIGHTS, dtype=torch.uint8, device=masks_nhw.device)
    grouped = padded.view(*padded.shape[:2], -1, 8)
    return torch.sum(grouped * weights, dim=3, dtype=torch.uint8)
