"""`Track`, `PromptPoints`, `PromptMask`: the programs made of `Attend`, `Decode` and `Remember`. Replaces
`SAM2Base.track_step`.

Owns: the order inside a program. Any thread. Never: knows which program runs when (`stream.tracker` does).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.graphs.attend import Attend
from engines.graphs.decode import Decode
from engines.graphs.kernel import SDPA, Kernel
from engines.graphs.remember import Remember
from engines.spec import NUM_EMPTY_TOKENS, FrameFeatures, MemoryRead, ModelSpec, PointPrompt, Proposals, Segmentation

_LOGIT_LIMIT = 32.0  # `add_new_points_or_box` clamps the logits that it feeds back
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0  # `_use_mask_as_output`


def spec_of(model: SAM2Base, name: str) -> ModelSpec:
    """Read the sizes off an official model."""
    return ModelSpec(
        name=name,
        image_size=model.image_size,
        hidden_dim=model.hidden_dim,
        memory_dim=model.mem_dim,
        num_memories=model.num_maskmem,
        max_pointers=model.max_obj_ptrs_in_encoder,
    )


def empty_prompt(model: SAM2Base) -> Tensor:
    """The tokens (1, 2, c) of a tracked frame, which has no prompt: one empty point, and the padding point that
    `_embed_points` appends. They are an input of the program `track`.
    """
    empty_point: Tensor = model.sam_prompt_encoder.not_a_point_embed.weight
    return empty_point.detach().clone().repeat(NUM_EMPTY_TOKENS, 1)[None]


class Track(nn.Module):
    """Follow each row from its memory: attend, decode, choose, object pointer, remember."""

    sparse_1sc: Tensor
    dense_1chw: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype, kernel: Kernel = SDPA.memory) -> None:
        super().__init__()
        self.attend: nn.Module = Attend(model, dtype, kernel)
        self.decode = Decode(model, dtype)
        self.remember = Remember(model, dtype)
        self.register_buffer("sparse_1sc", empty_prompt(model))
        no_mask: Tensor = model.sam_prompt_encoder.no_mask_embed.weight
        self.register_buffer("dense_1chw", no_mask.detach().clone().reshape(1, -1, 1, 1))

    def forward(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        rows = FrameFeatures(*(x.index_select(0, row_frame_b) for x in frames))
        return self.follow(rows, read, self.sparse_1sc.expand(row_frame_b.shape[0], -1, -1))

    def follow(self, rows: FrameFeatures, read: MemoryRead, sparse_bsc: Tensor) -> tuple[Segmentation, Tensor]:
        """`rows` has each row's frame at the row's place."""
        features = rows.features_fchw
        tokens_bnc = self.attend(rows.tokens_fnc, read)
        conditioned = tokens_bnc.transpose(1, 2).reshape(features.shape)
        choice = self.decode(conditioned, (rows.high0_fchw, rows.high1_fchw), (sparse_bsc, self.dense_1chw), True)
        memory = self.remember(features, choice.logits_bhw, choice.scores_b, False)
        return Segmentation(choice.logits_bhw, choice.ious_b, choice.scores_b, choice.pointers_bc, memory), conditioned

    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        """`forward` up to the choice."""
        rows = FrameFeatures(*(x.index_select(0, row_frame_b) for x in frames))
        conditioned = self.attend(rows.tokens_fnc, read).transpose(1, 2).reshape(rows.features_fchw.shape)
        prompt = self.sparse_1sc.expand(row_frame_b.shape[0], -1, -1), self.dense_1chw
        found = self.decode.candidates(conditioned, (rows.high0_fchw, rows.high1_fchw), prompt)
        return self.decode.compete(found), conditioned


class PromptPoints(nn.Module):
    """Decode one row from points and box corners, on conditioned features or, for a new object, without memory."""

    no_memory_1c11: Tensor

    def __init__(self, model: SAM2Base, decode: Decode, remember: Remember) -> None:
        super().__init__()
        self.prompts = copy.deepcopy(model.sam_prompt_encoder).float()
        self.decode, self.remember = decode, remember
        self.max_multimask_points = model.multimask_max_pt_num
        self.register_buffer("no_memory_1c11", model.no_mem_embed.detach().clone().reshape(1, -1, 1, 1))

    def forward(self, frame: FrameFeatures, prompt: PointPrompt, conditioned_bchw: Tensor | None) -> Segmentation:
        features = frame.features_fchw
        if conditioned_bchw is None:
            conditioned_bchw = features + self.no_memory_1c11.to(features.dtype)
        masks = None if prompt.logits_bhw is None else prompt.logits_bhw[:, None].clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)
        sparse, dense = self.prompts(points=(prompt.coords_bs2, prompt.labels_bs), boxes=None, masks=masks)
        multimask = prompt.labels_bs.shape[1] <= self.max_multimask_points
        choice = self.decode(conditioned_bchw, (frame.high0_fchw, frame.high1_fchw), (sparse, dense), multimask)
        memory = self.remember(features, choice.logits_bhw, choice.scores_b, True)
        return Segmentation(choice.logits_bhw, choice.ious_b, choice.scores_b, choice.pointers_bc, memory)


class PromptMask(nn.Module):
    """Take a mask as the segmentation itself; decode only for the object pointer.

    Replaces `SAM2Base._use_mask_as_output`.
    """

    no_object_pointer_1c: Tensor

    def __init__(self, model: SAM2Base, decode: Decode, remember: Remember) -> None:
        super().__init__()
        self.prompts = copy.deepcopy(model.sam_prompt_encoder).float()
        self.mask_downsample = copy.deepcopy(model.mask_downsample).float()
        self.decode, self.remember = decode, remember
        self.register_buffer("no_object_pointer_1c", model.no_obj_ptr.detach().clone())

    def forward(self, frame: FrameFeatures, mask_bhw: Tensor) -> Segmentation:
        mask = mask_bhw[:, None].float()
        size = (mask.shape[-2] // 4, mask.shape[-1] // 4)
        logits = F.interpolate(
            mask * _MASK_SCALE + _MASK_BIAS, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        empty_point = (mask.new_zeros(1, 1, 2), torch.full((1, 1), -1, dtype=torch.int32, device=mask.device))
        sparse, dense = self.prompts(points=empty_point, boxes=None, masks=self.mask_downsample(mask))
        choice = self.decode(frame.features_fchw, (frame.high0_fchw, frame.high1_fchw), (sparse, dense), False)
        visible_b = mask.flatten(1).amax(dim=1) > 0
        scores = visible_b.float() * _MASK_SCALE + _MASK_BIAS
        pointers = torch.where(visible_b[:, None], choice.pointers_bc, self.no_object_pointer_1c)
        memory = self.remember(frame.features_fchw, logits[:, 0], scores, True)
        return Segmentation(logits[:, 0], torch.ones_like(scores), scores, pointers, memory)
