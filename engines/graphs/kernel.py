"""`Kernel`: how attention is computed. The programs are given one for the pictures and one for memory.

Owns: the contract, and `Sdpa`, PyTorch's own, which is the reference. Any thread. Never: projects or rotates anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Kernel(Protocol):
    """softmax(q k^T / sqrt(c)) v."""

    @property
    def dtype(self) -> torch.dtype | None:
        """Of its products, where it is not that of the query."""
        ...

    @property
    def narrow_values(self) -> bool:
        """Whether it takes values of fewer channels than keys; then memory attention multiplies the raw memory and
        projects the result, which is the same sum in another order: softmax(QK^T) (m W^T + b) = (softmax(QK^T) m) W^T
        + b, as the rows of a softmax add up to one.
        """
        ...

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        """(b, heads, n, d) in the query's dtype, from (b, heads, n, c), (b, heads, k, c) and (b, heads, k, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Sdpa:
    """`F.scaled_dot_product_attention`, in `dtype` where one is given: a bfloat16 island in a float16 program."""

    dtype: torch.dtype | None = None

    @property
    def narrow_values(self) -> bool:
        return False

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        if self.dtype is None or self.dtype is query_bhnc.dtype:
            return F.scaled_dot_product_attention(query_bhnc, key_bhkc, value_bhkd)
        query, key, value = (x.to(self.dtype) for x in (query_bhnc, key_bhkc, value_bhkd))
        return F.scaled_dot_product_attention(query, key, value).to(query_bhnc.dtype)


@dataclass(frozen=True, slots=True)
class Kernels:
    """`image`: the encoder's attention, in windows and over whole pictures; `memory`: the one head that looks at 28,736
    keys, and at the picture itself.
    """

    image: Kernel = Sdpa()
    memory: Kernel = Sdpa()


SDPA = Kernels()
