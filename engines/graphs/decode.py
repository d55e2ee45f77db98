"""`Decode`: features and prompt tokens to a mask, its scores and an object pointer.

Replaces `MaskDecoder.forward`, and the choice and gate in `SAM2Base._forward_sam_heads`.
Owns: decoding and choosing. Any thread. Never: attends to memory or encodes it.
The transformer runs in the program's dtype; the IoU, score, mask and pointer heads run in float32, where a tie decides.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from engines.spec import NO_OBJECT_LOGIT, Proposals


class Candidates(NamedTuple):
    """All four masks of each row before one is chosen; index 0 is the single-mask output."""

    logits_b4hw: Tensor
    ious_b4: Tensor
    tokens_b4c: Tensor
    scores_b1: Tensor


class Choice(NamedTuple):
    """The chosen mask of each row, gated by the object score."""

    logits_bhw: Tensor
    ious_b: Tensor
    scores_b: Tensor
    pointers_bc: Tensor


def layer_norm_2d(x_bchw: Tensor, norm: LayerNorm2d) -> Tensor:
    """`LayerNorm2d` without the squares that overflow in fp16."""
    x_bhwc = x_bchw.permute(0, 2, 3, 1)
    return F.layer_norm(x_bhwc, x_bhwc.shape[-1:], norm.weight, norm.bias, norm.eps).permute(0, 3, 1, 2)


class Decode(nn.Module):
    """Conditioned features (b, c, h, w) plus sparse and dense prompt embeddings to a `Choice`."""

    image_position_1chw: Tensor
    no_object_pointer_1c: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype) -> None:
        super().__init__()
        decoder = copy.deepcopy(model.sam_mask_decoder)
        assert decoder.pred_obj_scores and decoder.use_high_res_features, "SAM 2 decoders predict object scores"
        assert model.fixed_no_obj_ptr and not model.soft_no_obj_ptr, "SAM 2 uses a fixed pointer for absent objects"
        self.dtype = dtype
        self.transformer = decoder.transformer.to(dtype)
        self.upscaling = decoder.output_upscaling.to(dtype)
        tokens = [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        self.output_tokens = nn.Parameter(torch.cat(tokens).detach().clone(), requires_grad=False)
        self.mask_heads = decoder.output_hypernetworks_mlps
        self.iou_head = decoder.iou_prediction_head
        self.score_head = decoder.pred_obj_score_head
        self.pointer_head = copy.deepcopy(model.obj_ptr_proj)
        self.stability_delta = decoder.dynamic_multimask_stability_delta
        self.stability_threshold = decoder.dynamic_multimask_stability_thresh
        self.register_buffer("no_object_pointer_1c", model.no_obj_ptr.detach().clone())
        with torch.no_grad():
            self.register_buffer("image_position_1chw", model.sam_prompt_encoder.get_dense_pe().to(dtype))

    def forward(
        self, features_bchw: Tensor, high: tuple[Tensor, Tensor], prompt: tuple[Tensor, Tensor], multimask: bool
    ) -> Choice:
        """`high` = high0 and high1 of each row's frame; `prompt` = sparse (b, s, c) and dense (b or 1, c, h, w)
        embeddings, float32.
        """
        candidates = self.candidates(features_bchw, high, prompt)
        return self.choose(candidates, multimask)

    def candidates(
        self, features_bchw: Tensor, high: tuple[Tensor, Tensor], prompt: tuple[Tensor, Tensor]
    ) -> Candidates:
        rows, channels, height, width = features_bchw.shape
        sparse, dense = prompt
        tokens = torch.cat([self.output_tokens.expand(rows, -1, -1), sparse], dim=1).to(self.dtype)
        position = self.image_position_1chw.expand(rows, -1, -1, -1)
        out_btc, image_bnc = self.transformer(features_bchw + dense.to(self.dtype), position, tokens)
        image_bchw = image_bnc.transpose(1, 2).reshape(rows, channels, height, width)
        up_bchw = self._upscale(image_bchw, high)
        out_btc = out_btc.float()
        masks_b4c = out_btc[:, 2:6]
        weights_b4c = torch.stack([head(masks_b4c[:, i]) for i, head in enumerate(self.mask_heads)], dim=1)
        logits = weights_b4c.to(up_bchw.dtype) @ up_bchw.flatten(2)
        logits_b4hw = logits.float().reshape(rows, -1, *up_bchw.shape[-2:])
        return Candidates(logits_b4hw, self.iou_head(out_btc[:, 1]), masks_b4c, self.score_head(out_btc[:, 0]))

    def _upscale(self, image_bchw: Tensor, high: tuple[Tensor, Tensor]) -> Tensor:
        up1, norm, act1, up2, act2 = self.upscaling
        x = act1(layer_norm_2d(up1(image_bchw) + high[1], norm))
        result: Tensor = act2(up2(x) + high[0])
        return result

    def choose(self, found: Candidates, multimask: bool) -> Choice:
        """Three masks compete by predicted IoU when tracking or after one click; else mask 0, unless it is unstable."""
        row = torch.arange(found.ious_b4.shape[0], device=found.ious_b4.device)
        best = found.ious_b4[:, 1:].argmax(dim=-1) + 1
        logits, ious = found.logits_b4hw[row, best], found.ious_b4[row, best]
        tokens = found.tokens_b4c[row, best] if multimask else found.tokens_b4c[:, 0]
        if not multimask:
            stable = self._is_stable(found.logits_b4hw[:, 0])
            logits = torch.where(stable[:, None, None], found.logits_b4hw[:, 0], logits)
            ious = torch.where(stable, found.ious_b4[:, 0], ious)
        visible_b1 = found.scores_b1 > 0
        logits = torch.where(visible_b1[:, :, None], logits, NO_OBJECT_LOGIT)
        pointers = torch.where(visible_b1, self.pointer_head(tokens), self.no_object_pointer_1c)
        return Choice(logits, ious, found.scores_b1[:, 0], pointers)

    def compete(self, found: Candidates) -> Proposals:
        """The three masks that `choose` takes the best of when tracking, gated like it."""
        visible_b1 = found.scores_b1 > 0
        logits = torch.where(visible_b1[:, :, None, None], found.logits_b4hw[:, 1:], NO_OBJECT_LOGIT)
        pointers = torch.where(
            visible_b1[:, :, None], self.pointer_head(found.tokens_b4c[:, 1:]), self.no_object_pointer_1c
        )
        return Proposals(logits, found.ious_b4[:, 1:], found.scores_b1[:, 0], pointers)

    def _is_stable(self, logits_bhw: Tensor) -> Tensor:
        """Stability score of `MaskDecoder._get_stability_scores`: IoU of the mask at two nearby thresholds."""
        flat = logits_bhw.flatten(1)
        inner = (flat > self.stability_delta).float().sum(dim=1)
        outer = (flat > -self.stability_delta).float().sum(dim=1)
        score = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
        return score.ge(self.stability_threshold)
