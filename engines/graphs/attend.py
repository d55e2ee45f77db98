"""`LookAround` and `Attend`: condition a frame's features on a row's memory. Replaces `MemoryAttention.forward` with
both kinds of `RoPEAttention`. The self-attention of its first layer depends on the frame alone: `LookAround` does it
once a frame, as part of `Encode`, instead of once an object.

Owns: memory attention with real-valued rotary encoding. Any thread. Never: decides what is in the memory.

The official code rotates neighbouring pairs of channels as complex numbers (RoPE, Su et al. 2021; axial over x and y
as in Heo et al. 2024). Here the rows of the query and key projections are reordered once, even channels first, so that
a rotation acts on two contiguous halves; q . k does not depend on the order of channels.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.graphs.kernel import SDPA, Kernel
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


class _SelfAttention(nn.Module):
    """The first third of a layer, with its residual: what each place of the picture sees of the others."""

    def __init__(self, layer: MemoryAttentionLayer, kernel: Kernel) -> None:
        super().__init__()
        own = layer.self_attn
        assert isinstance(own, RoPEAttention) and own.num_heads == 1, "SAM 2 memory attention uses RoPE and one head"
        self.norm = copy.deepcopy(layer.norm1)
        self.query, self.key = _halves(own.q_proj), _halves(own.k_proj)
        self.value, self.out = copy.deepcopy(own.v_proj), copy.deepcopy(own.out_proj)
        self.kernel = kernel

    def forward(self, x_bnc: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        normed = self.norm(x_bnc)
        query, key = rotate(self.query(normed), *rope), rotate(self.key(normed), *rope)
        result: Tensor = x_bnc + self.out(_attention(self.kernel, query, key, value_bkc=self.value(normed)))
        return result


class CrossAttention(nn.Module):
    """The second third of a layer, with its residual: what each place sees of the memory."""

    def __init__(self, layer: MemoryAttentionLayer, kernel: Kernel) -> None:
        super().__init__()
        cross = layer.cross_attn_image
        assert isinstance(cross, RoPEAttention) and cross.num_heads == 1, "SAM 2 memory attention uses RoPE, one head"
        self.norm = copy.deepcopy(layer.norm2)
        self.query, self.key = _halves(cross.q_proj), _halves(cross.k_proj)
        self.value, self.out = copy.deepcopy(cross.v_proj), copy.deepcopy(cross.out_proj)
        self.kernel = kernel

    def forward(self, x_bnc: Tensor, memory: Memory, rope: tuple[Tensor, Tensor]) -> Tensor:
        query = rotate(self.query(self.norm(x_bnc)), *rope)
        spatial = rotate(self.key(memory.keys_bmnc), *rope).flatten(1, 2)
        key = torch.cat([spatial, self.key(memory.pointer_keys_btc)], dim=1)
        if self.kernel.narrow_values:
            value = self.value(_attention(self.kernel, query, key, value_bkc=memory.values_bkc))
        else:
            value = _attention(self.kernel, query, key, value_bkc=self.value(memory.values_bkc))
        result: Tensor = x_bnc + self.out(value)
        return result


class _FeedForward(nn.Module):
    """The last third of a layer, with its residual."""

    def __init__(self, layer: MemoryAttentionLayer) -> None:
        super().__init__()
        self.norm = copy.deepcopy(layer.norm3)
        self.layers = nn.Sequential(copy.deepcopy(layer.linear1), nn.ReLU(), copy.deepcopy(layer.linear2))

    def forward(self, x_bnc: Tensor) -> Tensor:
        result: Tensor = x_bnc + self.layers(self.norm(x_bnc))
        return result


def _attention(kernel: Kernel, query_bnc: Tensor, key_bkc: Tensor, *, value_bkc: Tensor) -> Tensor:
    """One head; the head axis is there because fused kernels want it."""
    return kernel(query_bnc[:, None], key_bkc[:, None], value_bkc[:, None])[:, 0]


class _Rotation(nn.Module):
    """The constants of axial rotary encoding over a picture's tokens."""

    cos_nd: Tensor
    sin_nd: Tensor

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        size = model.sam_image_embedding_size
        freqs = model.memory_attention.layers[0].self_attn.compute_cis(end_x=size, end_y=size)
        self.register_buffer("cos_nd", freqs.real.clone())
        self.register_buffer("sin_nd", freqs.imag.clone())

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.cos_nd, self.sin_nd


class LookAround(nn.Module):
    """Features of frames (f, c, h, w) to the tokens (f, n, c) that look at memory: positions added, layer 0's
    self-attention done.
    """

    position_1nc: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype, kernel: Kernel) -> None:
        super().__init__()
        assert model.memory_attention.pos_enc_at_input, "SAM 2 adds the position at the input"
        size = model.sam_image_embedding_size
        image_position = _sine(model.image_encoder.neck.position_encoding, model.hidden_dim, size)
        self.register_buffer("position_1nc", (0.1 * image_position).to(dtype))
        self.own = _SelfAttention(model.memory_attention.layers[0], kernel).to(dtype)
        self.rope = _Rotation(model)

    def forward(self, features_fchw: Tensor) -> Tensor:
        tokens_fnc = features_fchw.flatten(2).transpose(1, 2) + self.position_1nc
        result: Tensor = self.own(tokens_fnc, self.rope())
        return result


class Memory(NamedTuple):
    """What the layers attend to: memory frames and pointer tokens with positions added, and both without, joined."""

    keys_bmnc: Tensor
    pointer_keys_btc: Tensor
    values_bkc: Tensor


class Attend(nn.Module):
    """What `LookAround` made of each row's frame (b, n, c), and the row's `MemoryRead`, to conditioned tokens
    (b, n, c).
    """

    memory_position_1nc: Tensor
    memory_time_tc: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype, kernel: Kernel = SDPA.memory) -> None:
        super().__init__()
        attention = model.memory_attention
        self.own = nn.ModuleList(_SelfAttention(layer, kernel) for layer in attention.layers[1:]).to(dtype)
        self.cross = nn.ModuleList(CrossAttention(layer, kernel) for layer in attention.layers).to(dtype)
        self.feed_forward = nn.ModuleList(_FeedForward(layer) for layer in attention.layers).to(dtype)
        self.norm = copy.deepcopy(attention.norm).to(dtype)
        self.dtype = dtype
        self.pointer_split = model.hidden_dim // model.mem_dim
        self.pointer_position = copy.deepcopy(model.obj_ptr_tpos_proj) if model.add_tpos_enc_to_obj_ptrs else None
        memory_position = _sine(model.memory_encoder.position_encoding, model.mem_dim, model.sam_image_embedding_size)
        self.register_buffer("memory_position_1nc", memory_position)
        # row t of maskmem_tpos_enc belongs to the frame t + 1 steps back, the last row to conditioning frames
        self.register_buffer("memory_time_tc", model.maskmem_tpos_enc.detach()[:, 0, 0].clone())
        self.rope = _Rotation(model)

    def forward(self, tokens_bnc: Tensor, read: MemoryRead) -> Tensor:
        memory, rope = self._memory(read), self.rope()
        for index, (cross, feed_forward) in enumerate(zip(self.cross, self.feed_forward, strict=True)):
            if index > 0:
                tokens_bnc = self.own[index - 1](tokens_bnc, rope)
            tokens_bnc = feed_forward(cross(tokens_bnc, memory, rope))
        normed: Tensor = self.norm(tokens_bnc)
        return normed

    def _memory(self, read: MemoryRead) -> Memory:
        memory_bmnc = read.memory_bmnc.to(self.dtype)
        time_bmc = self.memory_time_tc[read.memory_time_bm]
        position_bmnc = self.memory_position_1nc + time_bmc[:, :, None]
        pointer_keys, pointers_btc = self.pointer_tokens(read)
        values_bkc = torch.cat([memory_bmnc.flatten(1, 2), pointers_btc], dim=1)
        return Memory(memory_bmnc + position_bmnc.to(self.dtype), pointer_keys, values_bkc)

    def pointer_tokens(self, read: MemoryRead) -> tuple[Tensor, Tensor]:
        """Pointers cut into tokens (b, t, c) as wide as a memory's: with positions added, and without."""
        pointers_btc = read.pointers_bpc.reshape(read.pointers_bpc.shape[0], -1, read.memory_bmnc.shape[-1])
        with_positions = pointers_btc + self._pointer_positions(read, pointers_btc)
        return with_positions.to(self.dtype), pointers_btc.to(self.dtype)

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
