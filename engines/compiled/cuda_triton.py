"""`NarrowAttention`: memory attention in Triton, for keys of 256 channels and values of 64.

Owns: the kernel, and the shapes of its tiles. Needs `triton`; imported only where that is installed. The thread that
uses the engine calls it. Never: takes a mask, or goes on where a tile does not fit the card: that raises RuntimeError.

Two things that PyTorch's kernels lack. Values stay at 64 channels, 30 % fewer operations (`Kernel.narrow_values`). And
the keys are divided among several programs for each tile of queries, as one object has 64 tiles of 64 queries, too few
for a large card; each leaves its weighted sum, its largest score and its sum of weights, and a second kernel joins
them (Dao et al., Flash-Decoding, 2023). Sums are float32, scores are in base 2. Any number of keys will do.

Tested in Triton's interpreter on a CPU; not tried on a GPU so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from engines.graphs import Sdpa

MAX_SPLITS = 8
# tile_n, tile_k, num_warps, num_stages; the last three fit the 99 KB of a GeForce
TILES = (
    (128, 128, 8, 2),
    (128, 64, 8, 3),
    (128, 64, 8, 2),
    (64, 64, 4, 3),
    (128, 32, 8, 2),
    (64, 64, 4, 2),
    (64, 32, 4, 3),
)


def _attend(
    query: tl.tensor, key: tl.tensor, value: tl.tensor, sums: tl.tensor, tops: tl.tensor, weights: tl.tensor,
    num_queries: tl.tensor, num_keys: tl.tensor, keys_a_split: tl.tensor, scale: tl.tensor,
    TILE_N: tl.constexpr, TILE_K: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of queries of one row against one share of its keys; all tensors are contiguous."""
    split, row = tl.program_id(1), tl.program_id(2)
    at_n, at_k = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N), tl.arange(0, TILE_K)
    at_c, at_d = tl.arange(0, DIM), tl.arange(0, VALUE_DIM)
    is_query = at_n < num_queries
    q = tl.load(query + (row * num_queries + at_n)[:, None] * DIM + at_c[None, :], mask=is_query[:, None], other=0.0)
    top = tl.full((TILE_N,), -1e30, tl.float32)
    weight = tl.zeros((TILE_N,), tl.float32)
    total = tl.zeros((TILE_N, VALUE_DIM), tl.float32)
    first = split * keys_a_split
    last = tl.minimum(first + keys_a_split, num_keys)
    for start in range(first, last, TILE_K):
        is_key = start + at_k < last
        place = row * num_keys + start + at_k
        k = tl.load(key + place[None, :] * DIM + at_c[:, None], mask=is_key[None, :], other=0.0)
        scores = tl.where(is_key[None, :], tl.dot(q, k) * scale, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        share = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        v = tl.load(value + place[:, None] * VALUE_DIM + at_d[None, :], mask=is_key[:, None], other=0.0)
        weight = weight * shrink + tl.sum(share, 1)
        total = tl.dot(share.to(v.dtype), v, total * shrink[:, None])
        top = new_top
    place = (row * tl.num_programs(1) + split) * num_queries + at_n
    tl.store(sums + place[:, None] * VALUE_DIM + at_d[None, :], total, mask=is_query[:, None])
    tl.store(tops + place, top, mask=is_query)
    tl.store(weights + place, weight, mask=is_query)


def _join(
    sums: tl.tensor, tops: tl.tensor, weights: tl.tensor, output: tl.tensor, num_queries: tl.tensor,
    NUM_SPLITS: tl.constexpr, TILE_N: tl.constexpr, VALUE_DIM: tl.constexpr,
) -> None:  # fmt: skip
    """What the shares of the keys have left, for one tile of queries of one row."""
    row = tl.program_id(1)
    at_n, at_d = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N), tl.arange(0, VALUE_DIM)
    is_query = at_n < num_queries
    top = tl.full((TILE_N,), -1e30, tl.float32)
    for split in range(NUM_SPLITS):
        place = (row * NUM_SPLITS + split) * num_queries + at_n
        top = tl.maximum(top, tl.load(tops + place, mask=is_query, other=-1e30))
    weight = tl.zeros((TILE_N,), tl.float32)
    total = tl.zeros((TILE_N, VALUE_DIM), tl.float32)
    for split in range(NUM_SPLITS):
        place = (row * NUM_SPLITS + split) * num_queries + at_n
        shrink = tl.exp2(tl.load(tops + place, mask=is_query, other=-1e30) - top)
        weight += shrink * tl.load(weights + place, mask=is_query, other=1.0)
        part = tl.load(sums + place[:, None] * VALUE_DIM + at_d[None, :], mask=is_query[:, None], other=0.0)
        total += shrink[:, None] * part
    place = (row * num_queries + at_n)[:, None] * VALUE_DIM + at_d[None, :]
    tl.store(output + place, (total / weight[:, None]).to(output.dtype.element_ty), mask=is_query[:, None])


attend = triton.jit(_attend)
join = triton.jit(_join)


@dataclass(frozen=True, slots=True)
class NarrowAttention:
    """`num_programs`: how many shall be at work at once; the keys are divided until there are so many. Values as wide
    as the keys (a picture's self-attention) go to PyTorch.
    """

    tile_n: int
    tile_k: int
    num_warps: int
    num_stages: int
    num_programs: int
    dtype: torch.dtype | None = None

    @property
    def narrow_values(self) -> bool:
        return True

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        if value_bhkd.shape[-1] == query_bhnc.shape[-1]:
            return Sdpa(self.dtype)(query_bhnc, key_bhkc, value_bhkd)
        kind = self.dtype or query_bhnc.dtype
        inputs = (x.to(kind).flatten(0, 1).contiguous() for x in (query_bhnc, key_bhkc, value_bhkd))
        output = query_bhnc.new_empty(*query_bhnc.shape[:-1], value_bhkd.shape[-1])
        try:
            self._launch(*inputs, output=output.flatten(0, 1))
        except TritonError as error:
            raise RuntimeError(f"Triton: {error}") from error
        return output

    def splits(self, rows: int, num_queries: int) -> int:
        """Among how many programs the keys of each tile are divided."""
        tiles = rows * triton.cdiv(num_queries, self.tile_n)
        wanted: int = triton.cdiv(self.num_programs, tiles)
        return max(1, min(MAX_SPLITS, wanted))

    def _launch(self, query_rnc: Tensor, key_rkc: Tensor, value_rkd: Tensor, *, output: Tensor) -> None:
        (rows, num_queries, dim), (num_keys, value_dim) = query_rnc.shape, value_rkd.shape[1:]
        splits, tiles = self.splits(rows, num_queries), triton.cdiv(num_queries, self.tile_n)
        sums = torch.empty(rows, splits, num_queries, value_dim, dtype=torch.float32, device=query_rnc.device)
        tops, weights = (torch.empty_like(sums[..., 0]) for _ in range(2))
        keys_a_split = triton.cdiv(triton.cdiv(num_keys, splits), self.tile_k) * self.tile_k
        attend[(tiles, splits, rows)](
            query_rnc, key_rkc, value_rkd, sums, tops, weights, num_queries, num_keys, keys_a_split,
            math.log2(math.e) / math.sqrt(dim), self.tile_n, self.tile_k, dim, value_dim,
            num_warps=self.num_warps, num_stages=self.num_stages,
        )  # fmt: skip
        join[(tiles, rows)](sums, tops, weights, output, num_queries, splits, self.tile_n, value_dim)


def triton_kernels(num_processors: int) -> list[NarrowAttention]:
    """Tiles for cards with much and with little memory in each of their `num_processors`; largest first."""
    return [NarrowAttention(*shape, num_programs=num_processors * share) for shape in TILES for share in (1, 2)]
