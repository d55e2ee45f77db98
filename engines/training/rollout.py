"""SAM 2's steps over a short clip, with gradients: prompt, attend, decode, remember.

Owns the order of the steps during training, on the official modules. Runs in the training process's one thread. Never
used to run a model: inference lives in `engines.graphs` and the tracker.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from engines.training.losses import frame_loss, mask_iou
from engines.training.prompts import Prompt, correction

NO_OBJECT = -1024.0


@dataclass(frozen=True, slots=True)
class Fresh:
    """A prompt for some rows, answered without memory."""

    prompt: Prompt
    rows: torch.Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to the rows of a batch during one clip."""

    prompt: Prompt
    """Given on frame 0."""
    num_unlearned: int = 0
    """So many frames at the start run without gradients and without loss, so that late frames are learned cheaply."""
    num_learned: int | None = None
    """So many frames then teach; None: all that are left."""
    corrected_frame: int | None = None
    """Here a second decode gets one more click, in the middle of the largest error."""
    mask_frame: int | None = None
    """Here the truth is given as a mask, as a second conditioning frame."""
    fresh: Fresh | None = None
    """A prompt without memory, on the last frame, learned beside the tracking: it shares the encoder's pass."""


@dataclass(frozen=True, slots=True)
class View:
    """One frame as the rows see it."""

    levels: list[torch.Tensor]
    sequences: list[torch.Tensor]
    positions: list[torch.Tensor]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the mask decoder said about one frame, before the gate."""

    logits_n4hw: torch.Tensor
    ious_n4: torch.Tensor
    tokens_n4c: torch.Tensor
    scores_n1: torch.Tensor
    is_multimask: bool

    def chosen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Low-resolution logits (N, 1, h, w) and token (N, C) of the mask that inference would take."""
        index = torch.zeros(len(self.logits_n4hw), dtype=torch.long)
        if self.is_multimask:
            index = self.ious_n4[:, 1:].argmax(1) + 1
        rows = torch.arange(len(index))
        return self.logits_n4hw[rows, index].unsqueeze(1).float(), self.tokens_n4c[rows, index]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the memory encoder needs of a frame."""

    high_res_n1hw: torch.Tensor
    pointers_nc: torch.Tensor
    scores_n1: torch.Tensor
    is_conditioning: bool


def decode(model: Any, features_nchw: torch.Tensor, high_res: list[torch.Tensor], *, prompt: Prompt | None) -> Decoded:
    """`SAM2Base._forward_sam_heads` up to the gate, keeping all four masks."""
    rows = len(features_nchw)
    points, labels = torch.zeros(rows, 1, 2), -torch.ones(rows, 1, dtype=torch.int32)
    if prompt is not None:
        points, labels = prompt.points_np2, prompt.labels_np
    mask = None if prompt is None else prompt.logits_n1hw
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=mask)
    masks, ious, tokens, scores = model.sam_mask_decoder.predict_masks(
        image_embeddings=features_nchw,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=high_res,
    )
    return Decoded(masks, ious, tokens, scores, is_multimask=prompt is None or prompt.is_ambiguous)


class ClipRunner:
    """Rolls one batch of rows through a clip; every field is written by the one thread that runs it."""

    def __init__(self, model: Any, frames_btchw: torch.Tensor, clip_of_row: torch.Tensor) -> None:
        self._model = model
        self._frames = frames_btchw
        self._first = 0
        self._clip_of_row = clip_of_row
        self._memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        self.losses: list[torch.Tensor] = []
        self.ious: list[torch.Tensor] = []
        """Of every learned frame, (N,)."""
        self.fresh_ious: torch.Tensor | None = None

    def run(self, truth_nthw: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Prompt frame 0, then track; returns the mean loss of the learned frames."""
        with ExitStack() as stack:
            if plan.num_unlearned:
                # A cast made without gradients must not be found in autocast's cache later.
                stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
                stack.enter_context(torch.no_grad())
                self._run_frames(range(plan.num_unlearned), truth_nthw, plan)
        num_left = truth_nthw.shape[1] - plan.num_unlearned
        num_learned = num_left if plan.num_learned is None else min(plan.num_learned, num_left)
        return self._learn(range(plan.num_unlearned, plan.num_unlearned + num_learned), truth_nthw, plan)

    def go_on(self, frames_btchw: torch.Tensor, truth_nthw: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Track the frames that follow those run so far, from what is remembered of them, without its gradients."""
        self._first += self._frames.shape[1]
        self._frames = frames_btchw
        for frames in self._memory.values():
            for entry in frames.values():
                entry["maskmem_features"] = entry["maskmem_features"].detach()
                entry["obj_ptr"] = entry["obj_ptr"].detach()
        recent = self._memory["non_cond_frame_outputs"]
        for t in [t for t in recent if t < self._first - self._model.max_obj_ptrs_in_encoder]:
            del recent[t]
        return self._learn(range(self._first, self._first + truth_nthw.shape[1]), truth_nthw, plan)

    def _learn(self, times: range, truth_nthw: torch.Tensor, plan: Plan) -> torch.Tensor:
        self.losses.clear()
        self.ious.clear()
        self._run_frames(times, truth_nthw, plan)
        return torch.stack(self.losses).mean()

    def _run_frames(self, times: range, truth_nthw: torch.Tensor, plan: Plan) -> None:
        """`truth_nthw` and the frames begin at the same time."""
        frames = self._frames[:, times.start - self._first : times.stop - self._first]
        backbone = self._model.forward_image(frames.flatten(0, 1))
        pyramid = [level.unflatten(0, (len(frames), -1)) for level in backbone["backbone_fpn"]]
        for offset, t in enumerate(times):
            levels = [level[self._clip_of_row, offset] for level in pyramid]
            truth_n1hw = truth_nthw[:, t - self._first][:, None]
            if plan.fresh is not None and t == times[-1]:
                self._answer_fresh(levels, truth_n1hw, plan.fresh)
            self._step(t, self._view(levels, backbone["vision_pos_enc"]), truth_n1hw, plan=plan)

    def _answer_fresh(self, levels: list[torch.Tensor], truth_n1hw: torch.Tensor, fresh: Fresh) -> None:
        levels, truth = [level[fresh.rows] for level in levels], truth_n1hw[fresh.rows]
        features = levels[-1] + self._model.no_mem_embed.flatten()[:, None, None]
        decoded = decode(self._model, features, levels[:-1], prompt=fresh.prompt)
        self.losses.append(_loss(decoded, truth, is_prompted=True))
        high_res = F.interpolate(decoded.chosen()[0], truth.shape[-2:], mode="bilinear", align_corners=False)
        self.fresh_ious = mask_iou(high_res, truth)[:, 0]

    def _view(self, levels: list[torch.Tensor], positions_nchw: list[torch.Tensor]) -> View:
        rows = len(self._clip_of_row)
        sequences = [level.flatten(2).permute(2, 0, 1) for level in levels]
        positions = [p[:1].expand(rows, -1, -1, -1).flatten(2).permute(2, 0, 1) for p in positions_nchw]
        return View(levels, sequences, positions, [(level.shape[-2], level.shape[-1]) for level in levels])

    def _step(self, t: int, view: View, truth_n1hw: torch.Tensor, *, plan: Plan) -> None:
        prompt = plan.prompt if t == 0 else None
        if t == plan.mask_frame or (prompt is not None and prompt.is_mask):
            self._remember_truth(t, view, truth_n1hw)
            return
        features = self._model._prepare_memory_conditioned_features(
            frame_idx=t,
            is_init_cond_frame=t == 0,
            current_vision_feats=view.sequences[-1:],
            current_vision_pos_embeds=view.positions[-1:],
            feat_sizes=view.sizes[-1:],
            output_dict=self._memory,
            num_frames=10_000,
        )
        decoded = decode(self._model, features, view.levels[:-1], prompt=prompt)
        if t == plan.corrected_frame:
            self.losses.append(_loss(decoded, truth_n1hw, is_prompted=prompt is not None))
            again = correction(prompt, decoded.chosen()[0], truth_n1hw)
            decoded = decode(self._model, features, view.levels[:-1], prompt=again)
        self.losses.append(_loss(decoded, truth_n1hw, is_prompted=prompt is not None))
        remembered = self._answer(decoded, truth_n1hw, is_conditioning=t == 0)
        if self._frames.shape[1] > 1:
            # Nothing learned comes after the last frame: its memory is only for frames to come.
            with torch.set_grad_enabled(torch.is_grad_enabled() and t + 1 < self._first + self._frames.shape[1]):
                self._remember(t, view, remembered)

    def _answer(self, decoded: Decoded, truth_n1hw: torch.Tensor, *, is_conditioning: bool) -> Remembered:
        """Gate and choose as inference does."""
        logits, token = decoded.chosen()
        scores = decoded.scores_n1.float()
        appearing = (scores > 0).float()
        logits = torch.where(appearing[..., None, None] > 0, logits, NO_OBJECT)
        high_res = F.interpolate(logits, truth_n1hw.shape[-2:], mode="bilinear", align_corners=False)
        self.ious.append(mask_iou(high_res, truth_n1hw)[:, 0])
        pointers = appearing * self._model.obj_ptr_proj(token).float() + (1 - appearing) * self._model.no_obj_ptr
        return Remembered(high_res, pointers, scores, is_conditioning)

    def _remember_truth(self, t: int, view: View, truth_n1hw: torch.Tensor) -> None:
        heads = self._model._use_mask_as_output(view.levels[-1], view.levels[:-1], truth_n1hw)
        self._remember(t, view, Remembered(heads[4], heads[5], heads[6], is_conditioning=True))

    def _remember(self, t: int, view: View, remembered: Remembered) -> None:
        features, positions = self._model._encode_new_memory(
            current_vision_feats=view.sequences,
            feat_sizes=view.sizes,
            pred_masks_high_res=remembered.high_res_n1hw,
            object_score_logits=remembered.scores_n1,
            is_mask_from_pts=False,
        )
        kind = "cond_frame_outputs" if remembered.is_conditioning else "non_cond_frame_outputs"
        entry = {"maskmem_features": features, "maskmem_pos_enc": positions, "obj_ptr": remembered.pointers_nc}
        self._memory[kind][t] = entry


def _loss(decoded: Decoded, truth_n1hw: torch.Tensor, *, is_prompted: bool) -> torch.Tensor:
    found = decoded.logits_n4hw, decoded.ious_n4, decoded.scores_n1
    return frame_loss(*found, truth_n1hw=truth_n1hw, is_prompted=is_prompted)
