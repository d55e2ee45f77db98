"""`ResultBuffer`: the newest logits and scores of every object of a turn, in the turn's order.

Owns: the three tensors. The worker's thread alone uses it. Never: reads them out.

Capacity: grows by doubling before a turn, `content` is another one then; reused by every turn. Its last place is a
drain: what the padding of a batch leaves goes there, and nobody reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engines.spec import MAX_ROWS, Segmentation


class Content(NamedTuple):
    """Of every object; the last place is the drain."""

    logits_nhw: Tensor
    scores_n: Tensor
    ious_n: Tensor

    def put(self, positions: Tensor, found: Segmentation) -> None:
        """Keep what was found of the first rows of a batch at these places."""
        count = positions.shape[0]
        self.logits_nhw.index_copy_(0, positions, found.logits_bhw[:count])
        self.scores_n.index_copy_(0, positions, found.scores_b[:count])
        self.ious_n.index_copy_(0, positions, found.ious_b[:count])


class ResultBuffer:
    """`content` is written by the tracker's thread."""

    def __init__(self, low_res_size: int, device: torch.device, capacity: int = MAX_ROWS) -> None:
        self._low_res_size, self._device = low_res_size, device
        self.content = self._make(capacity)

    @property
    def drain(self) -> int:
        """The place of what nobody reads."""
        return self.content.scores_n.shape[0] - 1

    def reserve(self, count: int) -> None:
        """Make room for so many objects; what was there before may be gone."""
        capacity = self.drain
        while capacity < count:
            capacity *= 2
        if capacity != self.drain:
            self.content = self._make(capacity)

    def put(self, positions: Tensor, found: Segmentation) -> None:
        self.content.put(positions, found)

    def part(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        logits, scores, ious = self.content
        return logits[start:stop], scores[start:stop], ious[start:stop]

    def _make(self, capacity: int) -> Content:
        size, count = self._low_res_size, capacity + 1
        logits = torch.zeros(count, size, size, device=self._device)
        return Content(logits, *(torch.zeros(count, device=self._device) for _ in range(2)))
