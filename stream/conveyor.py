"""`Conveyor`: small host arrays to fixed tensors on the device, all with one copy that nobody waits for.

Owns: one block on the device and a few pinned ones of the same layout. The worker's thread alone uses it.
Never: allocates after it was made.

A pinned block is written again only when its last copy has passed; with `NUM_BLOCKS` of them that is long ago.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_BLOCKS = 4
_ALIGNMENT = 256  # bytes


class Conveyor:
    """`inputs` are the tensors on the device, of the shapes and dtypes of the arrays that it was made for."""

    def __init__(self, columns: Sequence[NDArray[np.generic]], device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        sizes = [-(-x.nbytes // _ALIGNMENT) * _ALIGNMENT for x in columns]
        self._block = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)
        self.inputs = _views(self._block, sizes, columns)
        self._pinned = [torch.zeros(sum(sizes), dtype=torch.uint8, pin_memory=is_cuda) for _ in range(NUM_BLOCKS)]
        self._arrays = [[x.numpy() for x in _views(block, sizes, columns)] for block in self._pinned]
        self._passed = [torch.cuda.Event() if is_cuda else None for _ in self._pinned]  # type: ignore[no-untyped-call]
        self._next = 0

    def load(self, columns: Sequence[NDArray[np.generic]]) -> None:
        """Let the device have these arrays from the next launch on."""
        number, self._next = self._next, (self._next + 1) % NUM_BLOCKS
        passed = self._passed[number]
        if passed is not None:
            passed.synchronize()
        for own, given in zip(self._arrays[number], columns, strict=True):
            own[...] = given
        self._block.copy_(self._pinned[number], non_blocking=True)
        if passed is not None:
            passed.record()


def _views(block: Tensor, sizes: Sequence[int], columns: Sequence[NDArray[np.generic]]) -> list[Tensor]:
    views, start = [], 0
    for size, column in zip(sizes, columns, strict=True):
        piece = block[start : start + column.nbytes]
        views.append(piece.view(torch.from_numpy(column[:0]).dtype).view(column.shape))
        start += size
    return views
