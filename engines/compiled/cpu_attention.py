"""`Chunked`: attention on a CPU as plain matrix products over slices of queries, each slice's scores in a scratch that
stays in the last cache.

Owns: the scratch. Called by one thread at a time. Never: allocates scores, or more scratch than it began with.

PyTorch's own kernel for CPUs multiplies blocks of 32 or 256 queries and 512 keys with a library that has no bfloat16
products for every processor; products of whole slices go to oneDNN, which has.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCRATCH_SCORES = 2**24  # 512 queries against 28,736 keys; 32 MB of bfloat16
WINDOWS_SCORES = 2**20  # of many small attentions, as many at a time as the second cache holds


class Chunked:
    """`_scores` is written by calls, in the one thread that makes them."""

    dtype: torch.dtype | None = None
    narrow_values = True

    def __init__(self, dtype: torch.dtype, num_scores: int = SCRATCH_SCORES) -> None:
        self._scores = torch.empty(num_scores, dtype=dtype)

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        batch, heads, num, _ = query_bhnc.shape
        result = query_bhnc.new_empty(batch * heads, num, value_bhkd.shape[-1])
        query_rnc, key_rkc, value_rkd = (x.flatten(0, 1) for x in (query_bhnc, key_bhkc, value_bhkd))
        num_each = num * key_rkc.shape[1]
        rows = max(1, min(self._scores.numel(), WINDOWS_SCORES) // num_each)
        for row in range(0, batch * heads, rows):
            part = slice(row, row + rows)
            attend = self._slice if num_each <= self._scores.numel() else self._slices
            attend(query_rnc[part], key_rkc[part], value_rkd[part], out_rnd=result[part])
        return result.view(batch, heads, num, -1)

    def _slices(self, query_rnc: Tensor, key_rkc: Tensor, value_rkd: Tensor, *, out_rnd: Tensor) -> None:
        """Slices of queries of one size, but for the last."""
        num, fitting = query_rnc.shape[1], self._scores.numel() // key_rkc.shape[1]
        assert fitting > 0, "the scratch holds the scores of one query"
        step = math.ceil(num / math.ceil(num / fitting))
        for start in range(0, num, step):
            here = slice(start, start + step)
            self._slice(query_rnc[:, here], key_rkc, value_rkd, out_rnd=out_rnd[:, here])

    def _slice(self, query_rnc: Tensor, key_rkc: Tensor, value_rkd: Tensor, *, out_rnd: Tensor) -> None:
        shape = (*query_rnc.shape[:2], key_rkc.shape[1])
        scores = self._scores[: shape[0] * shape[1] * shape[2]].view(shape)
        scale = query_rnc.shape[-1] ** -0.5
        torch.baddbmm(scores, query_rnc, key_rkc.mT, beta=0, alpha=scale, out=scores)
        torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(scores, value_rkd, out=out_rnd)
