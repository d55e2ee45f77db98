"""`Strips` and `MaxOfFour`: forms of the image encoder's blocks for a CPU.

Owns: how a block's picture is cut. Any thread. Never: computes anything that the block does not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engines.graphs import Encode, HieraBlock

STRIP_TOKENS = 2**13  # so that the widest tensor inside a block, 6 x 96 channels in stage 1, fits a cache


class Strips(nn.Module):
    """A block with windows, a few rows of windows at a time: windows know nothing of each other, and a strip's tensors
    stay in the cache and come from memory that was just freed.
    """

    def __init__(self, block: HieraBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_fhwc: Tensor) -> Tensor:
        frames, height, width, _ = x_fhwc.shape
        rows = self.block.window * math.ceil(STRIP_TOKENS / (frames * width * self.block.window))
        if height <= rows or height % self.block.window or width % self.block.window:
            whole: Tensor = self.block(x_fhwc)
            return whole
        return torch.cat([self.block(strip) for strip in torch.split(x_fhwc, rows, dim=1)], dim=1)


class MaxOfFour(nn.Module):
    """`nn.MaxPool2d(2, 2)` without the indices that nobody reads; even sides only."""

    def forward(self, x_bchw: Tensor) -> Tensor:
        top, bottom = x_bchw[:, :, 0::2], x_bchw[:, :, 1::2]
        return torch.maximum(
            torch.maximum(top[..., 0::2], top[..., 1::2]), torch.maximum(bottom[..., 0::2], bottom[..., 1::2])
        )


def suit_encoder(encode: Encode) -> None:
    """Give an encoder's blocks their forms for a CPU."""
    for index, block in enumerate(encode.blocks):
        assert isinstance(block, HieraBlock), "an encoder is made of Hiera's blocks"
        if block.pool is not None and block.stride == 2:
            block.pool = MaxOfFour()
        if block.window > 0:
            encode.blocks[index] = Strips(block)
