"""`CpuAttend`: `Attend` with its heavy steps rearranged for a CPU; the same sums in another order.

Owns: the buffer of a layer's keys. Called by one thread at a time. Never: decides what is in the memory.

The keys of a full memory are 28,672 x 256, made anew in every layer. `rotate` passes over them eight times; here the
rotation is inside the projection's weights. A token's channels fall into two groups, one turned by its column x, the
other by its row y (axial rotary encoding), so the projection and the rotation of all tokens of one column are one
matrix product: two batches of products, over the columns and over the rows, give rotated keys at once. Tokens are
ordered (y, m, x) for that; a softmax does not mind. V and the output projection act on 64 channels as one product.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engines.graphs.attend import Attend, CrossAttention, rotate
from engines.spec import MemoryRead


class Bank(NamedTuple):
    """What one row attends to: memory with positions, in order (y, m, x), pointers with positions, and both without."""

    spatial_ymxc: Tensor
    pointer_keys_tc: Tensor
    values_kc: Tensor


class CpuAttend(nn.Module):
    """Does what the given `Attend` does, with its weights."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        cos_nd, _ = attend.rope()
        self.size = round(cos_nd.shape[0] ** 0.5)
        self.source = attend
        crosses = (cross for cross in attend.cross if isinstance(cross, CrossAttention))
        self.cross = nn.ModuleList(CpuCrossAttention(cross, attend.rope(), self.size) for cross in crosses)
        self._keys = torch.empty(0)

    def forward(self, tokens_bnc: Tensor, read: MemoryRead) -> Tensor:
        source, rope = self.source, self.source.rope()
        banks = self._banks(read)
        for index, (cross, feed_forward) in enumerate(zip(self.cross, source.feed_forward, strict=True)):
            if index > 0:
                tokens_bnc = source.own[index - 1](tokens_bnc, rope)
            tokens_bnc = feed_forward(cross(tokens_bnc, banks, self._keys_buffer(banks, tokens_bnc)))
        normed: Tensor = source.norm(tokens_bnc)
        return normed

    def _banks(self, read: MemoryRead) -> list[Bank]:
        source, size = self.source, self.size
        rows, num_memories, num_tokens, width = read.memory_bmnc.shape
        pointer_keys_btc, pointers_btc = source.pointer_tokens(read)
        num_spatial = num_memories * num_tokens
        values_bkc = pointers_btc.new_empty(rows, num_spatial + pointers_btc.shape[1], width)
        spatial = values_bkc[:, :num_spatial].view(rows, size, num_memories, size, width)
        spatial.copy_(read.memory_bmnc.view(rows, num_memories, size, size, width).transpose(1, 2))
        values_bkc[:, num_spatial:] = pointers_btc
        time_bmc = source.memory_time_tc[read.memory_time_bm]
        position = source.memory_position_1nc.view(1, size, 1, size, width) + time_bmc[:, None, :, None]
        keys = spatial + position.to(source.dtype)
        return [Bank(*parts) for parts in zip(keys, pointer_keys_btc, values_bkc, strict=True)]

    def _keys_buffer(self, banks: list[Bank], tokens_bnc: Tensor) -> Tensor:
        """Room for one row's keys (k, c); grows only when a row has more memories than any before."""
        shape = (banks[0].values_kc.shape[0], tokens_bnc.shape[-1])
        if self._keys.numel() < shape[0] * shape[1] or self._keys.dtype is not tokens_bnc.dtype:
            self._keys = tokens_bnc.new_empty(shape[0] * shape[1])
        return self._keys[: shape[0] * shape[1]].view(shape)


class TurnedProjection(nn.Module):
    """A key projection to the channels of one axis, with each position's rotation in its weights."""

    weight_pcd: Tensor
    bias_p1d: Tensor

    def __init__(self, weight_dc: Tensor, bias_d: Tensor, rope_pd: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        rope = (rope_pd[0][:, None], rope_pd[1][:, None])
        turned_pcd = rotate(weight_dc.float().T[None], *rope).to(weight_dc.dtype).contiguous()
        self.register_buffer("weight_pcd", turned_pcd, persistent=False)
        self.register_buffer("bias_p1d", rotate(bias_d.float()[None, None], *rope).to(bias_d.dtype), persistent=False)

    def forward(self, x_prc: Tensor, out_prd: Tensor) -> None:
        torch.baddbmm(self.bias_p1d, x_prc, self.weight_pcd, out=out_prd)


class CpuCrossAttention(nn.Module):
    """`CrossAttention` over `Bank`s; channels in four quarters: x even, x odd, y even, y odd."""

    cos_n2d: Tensor
    sin_n2d: Tensor

    def __init__(self, cross: CrossAttention, rope: tuple[Tensor, Tensor], size: int) -> None:
        super().__init__()
        self.norm, self.kernel, self.size = cross.norm, cross.kernel, size
        self.query, self.key = _quarters(cross.query), _quarters(cross.key)
        self.value_out = _composed(cross.value, cross.out)
        cos_n2d, sin_n2d = (x.view(x.shape[0], 2, -1) for x in rope)
        self.register_buffer("cos_n2d", cos_n2d, persistent=False)
        self.register_buffer("sin_n2d", sin_n2d, persistent=False)
        weight_x, weight_y = self.key.weight.detach().chunk(2)
        bias_x, bias_y = self.key.bias.detach().chunk(2)
        # the tokens of the first row show the rotations of all columns, and those of the first column of all rows
        self.columns = TurnedProjection(weight_x, bias_x, (cos_n2d[:size, 0], sin_n2d[:size, 0]))
        self.rows = TurnedProjection(weight_y, bias_y, (cos_n2d[::size, 1], sin_n2d[::size, 1]))

    def forward(self, x_bnc: Tensor, banks: list[Bank], key_kd: Tensor) -> Tensor:
        unturned = self.query(self.norm(x_bnc)).view(*x_bnc.shape[:2], 2, -1)
        query = rotate(unturned, self.cos_n2d, self.sin_n2d).flatten(-2)
        found = []
        for row, bank in enumerate(banks):
            self._project(bank, key_kd)
            found.append(self.kernel(query[row, None, None], key_kd[None, None], bank.values_kc[None, None])[:, 0])
        joined = found[0] if len(found) == 1 else torch.cat(found)
        result: Tensor = x_bnc + self.value_out(joined)
        return result

    def _project(self, bank: Bank, key_kd: Tensor) -> None:
        """Rotated keys of memory, then those of pointers, which have no place in the picture."""
        size, half, width = self.size, key_kd.shape[1] // 2, bank.spatial_ymxc.shape[-1]
        num_spatial = bank.spatial_ymxc.numel() // width
        spatial = key_kd[:num_spatial]
        by_column = bank.spatial_ymxc.view(-1, size, width).transpose(0, 1)
        self.columns(by_column, spatial.view(-1, size, 2 * half)[..., :half].transpose(0, 1))
        self.rows(bank.spatial_ymxc.view(size, -1, width), spatial.view(size, -1, 2 * half)[..., half:])
        key_kd[num_spatial:] = self.key(bank.pointer_keys_tc)


def _quarters(linear: nn.Linear) -> nn.Linear:
    """The same projection, output channels reordered from (even x, even y, odd x, odd y), as `rotate` has them."""
    result = copy.deepcopy(linear)
    order = torch.arange(linear.out_features).view(2, 2, -1).transpose(0, 1).flatten()
    with torch.no_grad():
        result.weight.copy_(linear.weight[order])
        result.bias.copy_(linear.bias[order])
    return result


def _composed(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """`second(first(x))` as one projection."""
    result = nn.Linear(first.in_features, second.out_features, dtype=first.weight.dtype)
    with torch.no_grad():
        result.weight.copy_(second.weight.double() @ first.weight.double())
        result.bias.copy_(second.weight.double() @ first.bias.double() + second.bias.double())
    return result.requires_grad_(False)
