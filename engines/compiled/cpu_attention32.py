"""`Sliced32`: attention in float32 on a CPU, by oneDNN's products.

Owns: nothing. Any thread. Never: holds scores of more queries than fit the last cache.

`torch.mm` in float32 is MKL's, which on AMD takes two and a half times as long as oneDNN. oneDNN's float32 products
are reached by its linear operator only, which makes its own results: so there is no scratch, but scores of a size that
the allocator hands out again instead of returning it to the system.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_SCORES = 7 * 2**20  # glibc keeps blocks of up to 32 MB
SMALL = 2**16  # scores of one window


class Sliced32:
    """Small attentions are left to PyTorch; `can_fuse(torch.float32)` says whether the others run here."""

    dtype: torch.dtype | None = None
    narrow_values = True

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        batch, heads, num, width = query_bhnc.shape
        if num * key_bhkc.shape[2] < SMALL and value_bhkd.shape[-1] == width:
            return F.scaled_dot_product_attention(query_bhnc, key_bhkc, value_bhkd)
        result = query_bhnc.new_empty(batch * heads, num, value_bhkd.shape[-1])
        query_rnc, key_rkc, value_rkd = (x.flatten(0, 1) for x in (query_bhnc, key_bhkc, value_bhkd))
        query_rnc = query_rnc * width**-0.5
        step = math.ceil(num / math.ceil(num * key_rkc.shape[1] / NUM_SCORES))
        for row in range(batch * heads):
            # weights with gaps between their rows would fall into oneDNN's reference code, 300 times as slow
            key_kc, value_dk = key_rkc[row].contiguous(), value_rkd[row].T.contiguous()
            for start in range(0, num, step):
                scores = _product(query_rnc[row, start : start + step], key_kc)
                torch.softmax(scores, dim=-1, out=scores)
                result[row, start : start + step] = _product(scores, value_dk)
        return result.view(batch, heads, num, -1)


def _product(x_mk: Tensor, weight_nk: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x_mk, weight_nk, None, "none", [], "none")
    return result
