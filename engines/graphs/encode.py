"""`Encode`: frames to image features. Replaces `SAM2Base.forward_image`, `Hiera.forward` and `FpnNeck.forward`, and
takes over what memory attention does before it looks at any memory.

Owns: the image encoder's order of operations. Any thread. Never: resizes or normalises pictures.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.graphs.attend import LookAround
from engines.graphs.hiera import HieraBlock
from engines.graphs.kernel import SDPA, Kernels
from engines.spec import FrameFeatures


class Encode(nn.Module):
    """Normalised frames (f, 3, image_size, image_size) to `FrameFeatures` in `dtype`."""

    position_1hwc: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype, kernels: Kernels = SDPA) -> None:
        super().__init__()
        trunk = model.image_encoder.trunk
        neck = model.image_encoder.neck
        assert neck.fpn_interp_model == "nearest" and neck.fuse_type == "sum", (
            "all SAM 2 configurations add nearest neighbours"
        )
        size = model.image_size // 4
        with torch.no_grad():
            position = trunk._get_pos_embed((size, size)).detach().clone()
        self.register_buffer("position_1hwc", position.to(dtype))
        self.patch_embed = copy.deepcopy(trunk.patch_embed).to(dtype)
        self.blocks = nn.ModuleList(HieraBlock(block, dtype, kernels.image) for block in trunk.blocks)
        self.stage_ends = tuple(trunk.stage_ends)
        self.lateral = copy.deepcopy(neck.convs).to(dtype)
        self.top_down_levels = frozenset(neck.fpn_top_down_levels)
        self.num_levels = len(neck.convs) - model.image_encoder.scalp
        self.high0 = copy.deepcopy(model.sam_mask_decoder.conv_s0).to(dtype)
        self.high1 = copy.deepcopy(model.sam_mask_decoder.conv_s1).to(dtype)
        self.look_around = LookAround(model, dtype, kernels.memory)
        self.dtype = dtype

    def forward(self, frames_f3hw: Tensor) -> FrameFeatures:
        high0, high1, features = self._pyramid(self._stages(frames_f3hw.to(self.dtype)))
        return FrameFeatures(features, self.high0(high0), self.high1(high1), self.look_around(features))

    def _stages(self, frames_f3hw: Tensor) -> list[Tensor]:
        x_fhwc = self.patch_embed(frames_f3hw) + self.position_1hwc
        stages = []
        for index, block in enumerate(self.blocks):
            x_fhwc = block(x_fhwc)
            if index in self.stage_ends:
                stages.append(x_fhwc.permute(0, 3, 1, 2))
        return stages

    def _pyramid(self, stages: list[Tensor]) -> list[Tensor]:
        """From coarse to fine; only some levels take the coarser one in.

        The official fp32 cast around a nearest copy changes nothing.
        """
        top = len(stages) - 1
        levels: list[Tensor] = []
        coarser: Tensor | None = None
        for index in range(top, -1, -1):
            level = self.lateral[top - index](stages[index])
            if coarser is not None and index in self.top_down_levels:
                level = level + F.interpolate(coarser, size=level.shape[-2:], mode="nearest")
            coarser = level
            levels.append(level)
        return levels[::-1][: self.num_levels]
