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
        assert sorted(neck.fpn_top_down_levels) == [2, 3] and len(neck.convs) == 4 and model.image_encoder.scalp == 1, (
            "all SAM 2 configurations use the two finest levels as they are, and the coarsest for the next one only"
        )
        coarse, middle, *fine = (convolutions.conv for convolutions in neck.convs)
        self.coarse, self.middle = copy.deepcopy(coarse).to(dtype), copy.deepcopy(middle).to(dtype)
        self.high1 = _composed(fine[0], model.sam_mask_decoder.conv_s1).to(dtype)
        self.high0 = _composed(fine[1], model.sam_mask_decoder.conv_s0).to(dtype)
        self.look_around = LookAround(model, dtype, kernels.memory)
        self.dtype = dtype

    def forward(self, frames_f3hw: Tensor) -> FrameFeatures:
        finest, finer, middle, coarse = self._stages(frames_f3hw.to(self.dtype))
        # the official fp32 cast around a nearest copy changes nothing
        coarser = F.interpolate(self.coarse(coarse), size=middle.shape[-2:], mode="nearest")
        features = self.middle(middle) + coarser
        return FrameFeatures(features, self.high0(finest), self.high1(finer), self.look_around(features))

    def _stages(self, frames_f3hw: Tensor) -> list[Tensor]:
        x_fhwc = self.patch_embed(frames_f3hw) + self.position_1hwc
        stages = []
        for index, block in enumerate(self.blocks):
            x_fhwc = block(x_fhwc)
            if index in self.stage_ends:
                stages.append(x_fhwc.permute(0, 3, 1, 2))
        return stages


def _composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two projections of single pixels, one after the other, as one: 96 channels to 32 without 256 in between."""
    assert first.kernel_size == second.kernel_size == (1, 1), "SAM 2 projects levels pixel by pixel"
    result = nn.Conv2d(first.in_channels, second.out_channels, kernel_size=1)
    weight, bias = second.weight[:, :, 0, 0].double(), first.bias
    assert bias is not None and second.bias is not None, "SAM 2's projections have biases"
    with torch.no_grad():
        result.weight.copy_((weight @ first.weight[:, :, 0, 0].double())[:, :, None, None])
        result.bias.copy_(weight @ bias.double() + second.bias.double())  # type: ignore[union-attr]
    return result
