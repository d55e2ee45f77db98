"""`HieraBlock`: one block of the image encoder's trunk. Replaces `MultiScaleBlock.forward` and
`MultiScaleAttention.forward`.

Owns: windows, query pooling and the order inside a block; attention itself is a `Kernel`. Any thread. Never: changes
the block that it was made of.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from torch import Tensor, nn

from engines.graphs.kernel import Kernel


class HieraBlock(nn.Module):
    """(f, h, w, c) to the same, or to half the size and other channels at the start of a stage."""

    def __init__(self, block: MultiScaleBlock, dtype: torch.dtype, kernel: Kernel) -> None:
        super().__init__()
        copied = copy.deepcopy(block).to(dtype)
        self.norm1, self.norm2, self.mlp = copied.norm1, copied.norm2, copied.mlp
        self.qkv, self.out = copied.attn.qkv, copied.attn.proj
        self.shortcut = copied.proj if block.dim != block.dim_out else None
        self.pool = copied.pool
        self.stride = block.q_stride[0] if block.q_stride else 1
        self.window = block.window_size
        self.num_heads = block.attn.num_heads
        self.kernel = kernel

    def forward(self, x_fhwc: Tensor) -> Tensor:
        normed = self.norm1(x_fhwc)
        shortcut = x_fhwc if self.shortcut is None else self._pooled(self.shortcut(normed))
        x_fhwc = shortcut + self._windowed_attention(normed, shortcut.shape[1], shortcut.shape[2])
        result: Tensor = x_fhwc + self.mlp(self.norm2(x_fhwc))
        return result

    def _windowed_attention(self, x_fhwc: Tensor, height: int, width: int) -> Tensor:
        """(f, height, width, c), whose size is that after pooling."""
        if self.window == 0:
            return self._attention(x_fhwc)
        frames = x_fhwc.shape[0]
        windows, rows, columns = _partition(x_fhwc, self.window)
        found = self._attention(windows)
        size = self.window // self.stride
        joined = found.view(frames, rows, columns, size, size, -1).transpose(2, 3)
        return joined.reshape(frames, rows * size, columns * size, -1)[:, :height, :width]

    def _attention(self, x_bhwc: Tensor) -> Tensor:
        batch, height, width, _ = x_bhwc.shape
        query, key, value = self.qkv(x_bhwc).view(batch, height * width, 3, self.num_heads, -1).unbind(2)
        pooled = self._pooled(query.reshape(batch, height, width, -1))
        query = pooled.reshape(batch, -1, self.num_heads, pooled.shape[-1] // self.num_heads)
        found = self.kernel(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        result: Tensor = self.out(found.transpose(1, 2).reshape(pooled.shape))
        return result

    def _pooled(self, x_bhwc: Tensor) -> Tensor:
        if self.pool is None:
            return x_bhwc
        result: Tensor = self.pool(x_bhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return result


def _partition(x_fhwc: Tensor, size: int) -> tuple[Tensor, int, int]:
    """Windows (f * rows * columns, size, size, c), padded with zeros at the right and the bottom."""
    frames, height, width, channels = x_fhwc.shape
    right, bottom = -width % size, -height % size
    if right or bottom:
        x_fhwc = F.pad(x_fhwc, (0, 0, 0, right, 0, bottom))
    rows, columns = (height + bottom) // size, (width + right) // size
    windows = x_fhwc.view(frames, rows, size, columns, size, channels).transpose(2, 3)
    return windows.reshape(-1, size, size, channels), rows, columns
