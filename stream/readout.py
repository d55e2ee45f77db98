"""`Readout`: mask logits on the device to bits on the host: one block, one copy, one event a turn.

Owns: up-sampling, threshold, box, area, centroid and bit-packing, and the pinned blocks that results arrive in.
`launch` and `wait_room` run in the worker's thread, `MaskBlock.wait` in whichever thread wants the result.
Never: tracks anything; `launch` never waits.

A pinned block is free again when nobody holds a result that lies in it, be it resolved or thrown away. Capacity: as
many blocks as there are turns whose results wait, which the publisher bounds (two for each camera); none is lost.
"""

from __future__ import annotations

import collections
import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stream.lane import CudaLane, Event, Lane
from stream.raster import Guide, rasterise

NUM_STATS = 9  # x0, y0, x1, y1, area, centroid x, centroid y, object score, predicted IoU
MAX_AHEAD = 2  # turns that may compute at the same time: one, and the next behind it
MIN_BLOCK_BYTES = 1 << 20

Part = tuple[Tensor, Tensor, Tensor]  # one camera's logits_nhw, scores_n, ious_n
Size = tuple[int, int]  # its picture's height and width
Guides = Sequence[Guide | None]  # one for each of its objects


class Hold:
    """While somebody has it, the pinned block that it stands for is not written again."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True)
class MaskBlock:
    """One camera's part of a turn's result on the host; valid after the turn's event."""

    stats_ns: NDArray[np.float32]  # (n, NUM_STATS)
    packed_nhb: NDArray[np.uint8]  # (n, height, ceil(width / 8))
    event: Event | None
    hold: Hold | None = None

    def wait(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Block until the copy has arrived."""
        if self.event is not None:
            self.event.synchronize()
        return self.stats_ns, self.packed_nhb


class Readout:
    """Written by the worker's thread; whichever thread drops a result's last holder gives its block back to `_free`.

    A device other than the CPU gets a lane; one may be given, in place of a device, for tests.
    """

    def __init__(self, device: torch.device, *, lane: Lane | None = None) -> None:
        self.num_blocks = 0
        self._lane = CudaLane(device) if lane is None and device.type == "cuda" else lane
        self._device = device
        self._free: collections.deque[Tensor] = collections.deque()
        self._ahead: collections.deque[Event] = collections.deque(maxlen=MAX_AHEAD)
        self._flat = torch.empty(0 if self._lane is None else MIN_BLOCK_BYTES, dtype=torch.uint8, device=device)

    def wait_room(self) -> None:
        """Wait until less than two turns compute: pictures that come meanwhile are newer than those it would take now.

        This is a turn's one wait for the device.
        """
        while len(self._ahead) >= MAX_AHEAD:
            self._ahead.popleft().synchronize()

    @torch.inference_mode()
    def launch(
        self, parts: Sequence[Part], sizes: Sequence[Size], guides: Sequence[Guides] | None = None
    ) -> list[MaskBlock]:
        """Each camera's results, on their way to the host. `guides` draw edges anew, on a CPU alone."""
        if self._lane is None:
            return read_out(parts, sizes, guides)
        found = [_measure(part, size) for part, size in zip(parts, sizes, strict=True)]
        return self._copy_out(found, self._lane) if found else []

    def _copy_out(self, found: Sequence[tuple[Tensor, Tensor]], lane: Lane) -> list[MaskBlock]:
        """All statistics, then all bits, so that the statistics are aligned."""
        pieces = [x for column in zip(*found, strict=True) for x in column]
        lengths = [x.numel() * x.element_size() for x in pieces]
        host = self._block(sum(lengths), lane)
        for target, piece in zip(torch.split(self._flat[: sum(lengths)], lengths), pieces, strict=True):
            target.copy_(piece.view(torch.uint8).flatten())
        event = lane.download(host[: sum(lengths)], self._flat[: sum(lengths)])
        self._ahead.append(event)
        hold = Hold()
        weakref.finalize(hold, self._free.append, host).atexit = False
        bytes_ = [x.numpy() for x in torch.split(host[: sum(lengths)], lengths)]
        stats, packed = bytes_[: len(found)], bytes_[len(found) :]
        return [
            MaskBlock(stats[i].view(np.float32).reshape(x.shape), packed[i].reshape(bits.shape), event, hold)
            for i, (x, bits) in enumerate(found)
        ]

    def _block(self, num_bytes: int, lane: Lane) -> Tensor:
        """A pinned block that nobody reads, and as much room on the device; both grow by doubling."""
        capacity = self._flat.shape[0]
        while capacity < num_bytes:
            capacity *= 2
        if capacity != self._flat.shape[0]:
            self._flat = torch.empty(capacity, dtype=torch.uint8, device=self._device)
        while self._free:
            host = self._free.popleft()
            if host.shape[0] == capacity:
                return host
            self.num_blocks -= 1  # one from before it grew
        self.num_blocks += 1
        return lane.pinned(capacity)


def read_out(parts: Sequence[Part], sizes: Sequence[Size], guides: Sequence[Guides] | None = None) -> list[MaskBlock]:
    """The same on a CPU, at once, and only where the objects are."""
    blocks = []
    for index, ((logits, scores, ious), (height, width)) in enumerate(zip(parts, sizes, strict=True)):
        stats_ns = np.empty((logits.shape[0], NUM_STATS), np.float32)
        packed_nhb = np.zeros((logits.shape[0], height, -(-width // 8)), np.uint8)
        for row, logits_hw in enumerate(logits.numpy()):
            guide = None if guides is None or not guides[index] else guides[index][row]
            stats_ns[row, :7] = rasterise(logits_hw, (height, width), packed_nhb[row], guide=guide)
        stats_ns[:, 7], stats_ns[:, 8] = scores.numpy(), ious.numpy()
        blocks.append(MaskBlock(stats_ns, packed_nhb, None))
    return blocks


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
    """Eight pixels a byte, most significant bit first: `np.packbits` without leaving the device."""
    padded = F.pad(masks_nhw.to(torch.uint8), (0, -masks_nhw.shape[2] % 8))
    grouped = padded.view(*padded.shape[:2], -1, 8)
    return torch.sum(grouped * _bit_weights(masks_nhw.device), dim=3, dtype=torch.uint8)


@functools.cache
def _bit_weights(device: torch.device) -> Tensor:
    """Once: to send numbers to a GPU makes the host wait for all that it computes."""
    return torch.tensor((128, 64, 32, 16, 8, 4, 2, 1), dtype=torch.uint8, device=device)
