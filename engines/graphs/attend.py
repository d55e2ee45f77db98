"""`Attend`: condition a frame's features on a row's memory. Replaces `MemoryAttention.forward` with both kinds of
`RoPEAttention`.

Owns: memory attention with real-valued rotary encoding. Any thread. Never: decides what is in the memory.

The official code rotates neighbouring pairs of channels as complex numbers (RoPE, Su et al. 2021; axial over x and y
as in Heo et al. 2024). Here the rows of the query and key projections are reordered once, even channels first, so that
a rotation acts on two contiguous halves; q . k does not depend on the order of channels.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.spec import MemoryRead

_POINTER_TEMPERATURE = 10000.0


def pointer_position(distances: NDArray[np.float64], max_pointers: int, dim: int) -> NDArray[np.float32]:
    """Sine encoding (..., dim) of distances in frames; in float64, so that it stays exact for weeks of video.

    Equals `get_1d_sine_pe(distance / (max_pointers - 1), dim)` of `sam2.modeling.sam2_utils`.
    """
    half = dim // 2
    exponent = 2.0 * (np.arange(half) // 2) / half
    angle = distances[..., None] / (max_pointers - 1) / _POINTER_TEMPERATURE**exponent
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)


def _halves(linear: nn.Linear) -> nn.Linear:
    """The same projection with its output channels reordered: even ones first, then odd ones."""
    result = copy.deepcopy(linear)
    order = torch.cat([torch.arange(0, linear.out_features, 2), torch.arange(1, linear.out_features, 2)])
    with torch.no_grad():
        result.weight.copy_(linear.weight[order])
        result.bias.copy_(linear.bias[order])
    return result


def rotate(x_btd: Tensor, cos_td: Tensor, sin_td: Tensor) -> Tensor:
    """Rotate the two halves of the last axis against each other, in float32 as officially."""
    first, second = x_btd.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos_td - second * sin_td, first * sin_td + second * cos_td], dim=-1)
    return rotated.to(x_btd.dtype)


class _Layer(nn.Module):
    """One pre-norm layer: self-attention, cross-attention to memory, feed-forward."""

    def __init__(self, layer: MemoryAttentionLayer) -> None:
        super().__init__()
        own, cross = layer.self_attn, layer.cross_attn_image
        assert isinstance(own, RoPEAttention) and isinstance(cross, RoPEAttention), (
            "SAM 2 memory attention uses RoPE throughout"
        )
        assert own.num_heads == cross.num_heads == 1, "SAM 2 memory attention has one head"
        self.norm1, self.norm2, self.norm3 = (copy.deepcopy(n) for n in (layer.norm1, layer.norm2, layer.norm3))
        self.own_q, self.own_k = _halves(own.q_proj), _halves(own.k_proj)
        self.own_v, self.own_out = copy.deepcopy(own.v_proj), copy.deepcopy(own.out_proj)
        self.cross_q, self.cross_k = _halves(cross.q_proj), _halves(cross.k_proj)
        self.cross_v, self.cross_out = copy.deepcopy(cross.v_proj), copy.deepcopy(cross.out_proj)
        self.linear1, self.linear2 = copy.deepcopy(layer.linear1), copy.deepcopy(layer.linear2)

    def forward(
        self, x_bnc: Tensor, keys: tuple[Tensor, Tensor], values_bkc: Tensor, rope: tuple[Tensor, Tensor]
    ) -> Tensor:
        """`keys` = memory frames (b, m, n, c) and pointer tokens (b, t, c) with positions added; `values_bkc` = both
        without, joined.
        """
        x_bnc = x_bnc + self._self_attention(self.norm1(x_bnc), rope)
        x_bnc = x_bnc + self._cross_attention(self.norm2(x_bnc), keys, values_bkc, rope=rope)
        hidden: Tensor = self.linear2(F.relu(self.linear1(self.norm3(x_bnc))))
        return x_bnc + hidden

    def _self_attention(self, x_bnc: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        query = rotate(self.own_q(x_bnc), *rope)
        key = rotate(self.own_k(x_bnc), *rope)
        out: Tensor = self.own_out(_attention(query, key, self.own_v(x_bnc)))
        return out

    def _cross_attention(
        self, x_bnc: Tensor, keys: tuple[Tensor, Tensor], values_bkc: Tensor, *, rope: tuple[Tensor, Tensor]
    ) -> Tensor:
        query = rotate(self.cross_q(x_bnc), *rope)
        spatial = rotate(self.cross_k(keys[0]), *rope).flatten(1, 2)
        key = torch.cat([spatial, self.cross_k(keys[1])], dim=1)
        out: Tensor = self.cross_out(_attention(query, key, self.cross_v(values_bkc)))
        return out


def _attention(query_bnc: Tensor, key_bkc: Tensor, value_bkc: Tensor) -> Tensor:
    """One head; the head axis is there because fused kernels want it."""
    out = F.scaled_dot_product_attention(query_bnc[:, None], key_bkc[:, None], value_bkc[:, None])
    return out[:, 0]


class Attend(nn.Module):
    """Features of each row's frame (b, c, h, w) and its `MemoryRead` to conditioned features of the same shape."""

    position_1nc: Tensor
    memory_position_1nc: Tensor
    memory_time_tc: Tensor
    cos_nd: Tensor
    sin_nd: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype) -> None:
        super().__init__()
        size = model.sam_image_embedding_size
        attention = model.memory_attention
        self.layers = nn.ModuleList(_Layer(layer) for layer in attention.layers).to(dtype)
        self.norm = copy.deepcopy(attention.norm).to(dtype)
        self.dtype = dtype
        self.pointer_split = model.hidden_dim // model.mem_dim
        self.pointer_position = copy.deepcopy(model.obj_ptr_tpos_proj) if model.add_tpos_enc_to_obj_ptrs else None
        assert attention.pos_enc_at_input, "SAM 2 adds the position at the input"
        image_position = _sine(model.image_encoder.neck.position_encoding, model.hidden_dim, size)
        self.register_buffer("position_1nc", (0.1 * image_position).to(dtype))
        self.register_buffer("memory_position_1nc", _sine(model.memory_encoder.position_encoding, model.mem_dim, size))
        # row t of maskmem_tpos_enc belongs to the frame t + 1 steps back, the last row to conditioning frames
        self.register_buffer("memory_time_tc", model.maskmem_tpos_enc.detach()[:, 0, 0].clone())
        freqs = attention.layers[0].self_attn.compute_cis(end_x=size, end_y=size)
        self.register_buffer("cos_nd", freqs.real.clone())
        self.register_buffer("sin_nd", freqs.imag.clone())

    def forward(self, features_bchw: Tensor, read: MemoryRead) -> Tensor:
        x_bnc = features_bchw.flatten(2).transpose(1, 2) + self.position_1nc
        memory_bmnc = read.memory_bmnc.to(self.dtype)
        time_bmc = self.memory_time_tc[read.memory_time_bm]
        position_bmnc = self.memory_position_1nc + time_bmc[:, :, None]
        pointers_btc = read.pointers_bpc.reshape(x_bnc.shape[0], -1, memory_bmnc.shape[-1])
        memory_keys = memory_bmnc + position_bmnc.to(self.dtype)
        keys = (memory_keys, (pointers_btc + self._pointer_positions(read, pointers_btc)).to(self.dtype))
        values_bkc = torch.cat([memory_bmnc.flatten(1, 2), pointers_btc.to(self.dtype)], dim=1)
        for layer in self.layers:
            x_bnc = layer(x_bnc, keys, values_bkc, (self.cos_nd, self.sin_nd))
        normed: Tensor = self.norm(x_bnc)
        return normed.transpose(1, 2).reshape(features_bchw.shape)

    def _pointer_positions(self, read: MemoryRead, pointers_btc: Tensor) -> Tensor:
        if self.pointer_position is None:
            return torch.zeros_like(pointers_btc)
        projected: Tensor = self.pointer_position(read.pointer_pos_bpc)
        return projected.repeat_interleave(self.pointer_split, dim=1)


def _sine(encoding: nn.Module, channels: int, size: int) -> Tensor:
    """The constant sine position of an image as (1, n, c) float32."""
    with torch.no_grad():
        position: Tensor = encoding(torch.zeros(1, channels, size, size))
    return position.flatten(2).transpose(1, 2).contiguous()
