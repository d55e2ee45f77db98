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

SCRATCH_SCORES = 2**24  # 584 queries against 28,736 keys; 32 MB of bfloat16


class Chunked:
    """`_scores` is written by calls, in the one thread that makes them."""

    dtype: torch.dtype | None = None
    narrow_values = True

    def __init__(self, dtype: torch.dtype, num_scores: int = SCRATCH_SCORES) -> None:
        self._scores = torch.empty(num_scores, dtype=dtype)

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        batch, heads, num, _ = query_bhnc.shape
        result = query_bhnc.new_empty(batch, num, heads, value_bhkd.shape[-1]).transpose(1, 2)
        for head in range(heads):
            self._attend(query_bhnc[:, head], key_bhkc[:, head], value_bhkd[:, head], out_bnd=result[:, head])
        return result

    def _attend(self, query_bnc: Tensor, key_bkc: Tensor, value_bkd: Tensor, *, out_bnd: Tensor) -> None:
        batch, num, _ = query_bnc.shape
        fitting = self._scores.numel() // key_bkc.shape[1]
        assert fitting > 0, "the scratch holds the scores of one query"
        rows, queries = min(batch, max(1, fitting // num)), math.ceil(num / math.ceil(num / fitting))
        for row in range(0, batch, rows):
            part = slice(row, row + rows)
            for start in range(0, num, queries):
                here = slice(start, start + queries)
                self._slice(query_bnc[part, here], key_bkc[part], value_bkd[part], out_bnd=out_bnd[part, here])

    def _slice(self, query_bnc: Tensor, key_bkc: Tensor, value_bkd: Tensor, *, out_bnd: Tensor) -> None:
        shape = (*query_bnc.shape[:2], key_bkc.shape[1])
        scores = self._scores[: shape[0] * shape[1] * shape[2]].view(shape)
        scale = query_bnc.shape[-1] ** -0.5
        torch.baddbmm(scores, query_bnc, key_bkc.mT, beta=0, alpha=scale, out=scores)
        torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(scores, value_bkd, out=out_bnd)
