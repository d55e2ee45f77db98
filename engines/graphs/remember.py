"""`Remember`: a frame's features and a mask to a memory frame. Replaces `SAM2Base._encode_new_memory` and
`MemoryEncoder.forward`.

Owns: the memory encoder's order of operations. Any thread. Never: stores anything.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from sam2.modeling.memory_encoder import CXBlock
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from engines.graphs.decode import layer_norm_2d


class Remember(nn.Module):
    """Raw features (b, c, h, w), low-resolution logits (b, h, w) and scores (b,) to a memory frame (b, num_tokens,
    memory_dim).
    """

    no_object_1c: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype) -> None:
        super().__init__()
        encoder = copy.deepcopy(model.memory_encoder).to(dtype)
        self.downsampler = encoder.mask_downsampler.encoder
        self.project_features = encoder.pix_feat_proj
        self.fuser_input = encoder.fuser.proj
        self.fuser = encoder.fuser.layers
        self.project_out = encoder.out_proj
        self.image_size = model.image_size
        self.scale, self.bias = model.sigmoid_scale_for_mem_enc, model.sigmoid_bias_for_mem_enc
        self.dtype = dtype
        no_object = model.no_obj_embed_spatial  # SAM 2.1 only
        dim = model.mem_dim
        self.register_buffer("no_object_1c", torch.zeros(1, dim) if no_object is None else no_object.detach().clone())

    def forward(self, features_bchw: Tensor, logits_bhw: Tensor, scores_b: Tensor, binarize: bool) -> Tensor:
        """`binarize`: on frames that received a prompt the memory is made from the mask as the user sees it, not from
        probabilities.
        """
        size = (self.image_size, self.image_size)
        high = F.interpolate(logits_bhw[:, None], size=size, mode="bilinear", align_corners=False)
        mask = (high > 0).float() if binarize else torch.sigmoid(high)
        x = (mask * self.scale + self.bias).to(self.dtype)
        for layer in self.downsampler:
            x = layer_norm_2d(x, layer) if isinstance(layer, LayerNorm2d) else layer(x)
        x = self.fuser_input(self.project_features(features_bchw) + x)
        for block in self.fuser:
            x = _convnext(x, block)
        memory_bnc = self.project_out(x).flatten(2).transpose(1, 2)
        absent_b1 = (scores_b <= 0).to(self.dtype)[:, None]
        result: Tensor = memory_bnc + (absent_b1 * self.no_object_1c.to(self.dtype))[:, None]
        return result


def _convnext(x_bchw: Tensor, block: CXBlock) -> Tensor:
    """`CXBlock.forward` with its LayerNorm2d taken in channels-last order."""
    x_bhwc = block.dwconv(x_bchw).permute(0, 2, 3, 1)
    x_bhwc = F.layer_norm(x_bhwc, x_bhwc.shape[-1:], block.norm.weight, block.norm.bias, block.norm.eps)
    x_bhwc = block.pwconv2(block.act(block.pwconv1(x_bhwc)))
    if block.gamma is not None:
        x_bhwc = block.gamma * x_bhwc
    result: Tensor = x_bchw + x_bhwc.permute(0, 3, 1, 2)
    return result
