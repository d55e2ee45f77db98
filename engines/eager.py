"""`EagerEngine`: the programs in plain PyTorch, on CPU or CUDA. The reference for every other backend, and the
fallback everywhere.

Owns: one set of program modules on one device. Called by one thread at a time. Never: keeps anything between calls.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.graphs import SDPA, Encode, Kernels, PromptMask, PromptPoints, Track, spec_of
from engines.spec import (
    MAX_FRAMES,
    MAX_ROWS,
    FrameFeatures,
    MemoryRead,
    ModelSpec,
    PointPrompt,
    Proposals,
    Segmentation,
)


class EagerEngine:
    """Runs a model's programs eagerly.

    `dtype` is the dtype of the encoder, memory attention, mask decoder transformer and memory encoder; prompt encoder,
    IoU, score and pointer heads stay float32. Memory is stored in bfloat16 as the official predictor does, or in
    float16 with float16 programs. `kernels` compute the attention; PyTorch's own are the reference.
    """

    backend = "eager"

    def __init__(
        self, model: SAM2Base, *, name: str, device: torch.device, dtype: torch.dtype, kernels: Kernels = SDPA
    ) -> None:
        self.spec: ModelSpec = spec_of(model, name)
        self.device = device
        self.dtype = dtype
        self.attention_dtype = kernels.memory.dtype or dtype
        self.memory_dtype = torch.float16 if dtype is torch.float16 else torch.bfloat16
        self.row_buckets = tuple(range(1, MAX_ROWS + 1))
        self.frame_buckets = tuple(range(1, MAX_FRAMES + 1))
        self._encode = Encode(model, dtype, kernels).to(device).eval()
        self._track = Track(model, dtype, kernels.memory).to(device).eval()
        parts = (self._track.decode, self._track.remember)
        self._prompt_points = PromptPoints(model, *parts).to(device).eval()
        self._prompt_mask = PromptMask(model, *parts).to(device).eval()

    @property
    def encode_module(self) -> Encode:
        """The program `encode`, for a backend that makes another form of it and shares its weights."""
        return self._encode

    @property
    def track_module(self) -> Track:
        """The program `track`, likewise."""
        return self._track

    @torch.inference_mode()
    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        result: FrameFeatures = self._encode(frames_f3hw)
        return result

    @torch.inference_mode()
    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        result: tuple[Segmentation, Tensor] = self._track(frames, row_frame_b, read)
        return result

    @torch.inference_mode()
    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        return self._track.propose(frames, row_frame_b, read)

    @torch.inference_mode()
    def remember(self, frames: FrameFeatures, row_frame_b: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        features = frames.features_fchw.index_select(0, row_frame_b)
        result: Tensor = self._track.remember(features, *chosen, False)
        return result

    @torch.inference_mode()
    def prompt_points(self, frame: FrameFeatures, prompt: PointPrompt, conditioned_bchw: Tensor | None) -> Segmentation:
        result: Segmentation = self._prompt_points(frame, prompt, conditioned_bchw)
        return result

    @torch.inference_mode()
    def prompt_mask(self, frame: FrameFeatures, mask_bhw: Tensor) -> Segmentation:
        result: Segmentation = self._prompt_mask(frame, mask_bhw)
        return result
