"""An engine without a model, in place of a GPU: right shapes, no arithmetic worth mentioning."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from engines.spec import (
    FRAME_BUCKETS,
    ROW_BUCKETS,
    FrameFeatures,
    MemoryRead,
    ModelSpec,
    PointPrompt,
    Proposals,
    Segmentation,
)


class FakeEngine:
    """Every object fills the picture, with `score`. `encoded` and `tracked` list the batch sizes of each call.

    While `gate` is clear, `encode` waits: a slow device.
    """

    def __init__(self) -> None:
        self.spec = ModelSpec("fake", image_size=64, hidden_dim=32, memory_dim=8, num_memories=7, max_pointers=16)
        self.device = torch.device("cpu")
        self.backend = "fake"
        self.dtype = self.attention_dtype = self.memory_dtype = torch.float32
        self.row_buckets, self.frame_buckets = ROW_BUCKETS, FRAME_BUCKETS
        self.score = 1.0
        self.gate = threading.Event()
        self.gate.set()
        self.encoded: list[int] = []
        self.tracked: list[int] = []

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        assert self.gate.wait(30)
        self.encoded.append(frames_f3hw.shape[0])
        count = frames_f3hw.shape[0]
        shapes = ((32, 4, 4), (4, 16, 16), (8, 8, 8), (16, 32))
        return FrameFeatures(*(torch.zeros(count, *shape) for shape in shapes))

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        rows = row_frame_b.shape[0]
        self.tracked.append(rows)
        return self._segment(rows), torch.zeros(rows, 32, 4, 4)

    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        found, conditioned = self.track(frames, row_frame_b, read)
        logits, ious, scores, pointers, _ = found
        proposals = Proposals(
            logits[:, None].repeat(1, 3, 1, 1), ious[:, None].repeat(1, 3), scores, pointers[:, None].repeat(1, 3, 1)
        )
        return proposals, conditioned

    def remember(self, frames: FrameFeatures, row_frame_b: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        return self._segment(row_frame_b.shape[0]).memory_bnc

    def prompt_points(self, frame: FrameFeatures, prompt: PointPrompt, conditioned_bchw: Tensor | None) -> Segmentation:
        return self._segment(1)

    def prompt_mask(self, frame: FrameFeatures, mask_bhw: Tensor) -> Segmentation:
        return self._segment(1)

    def _segment(self, rows: int) -> Segmentation:
        ones = torch.ones(rows)
        return Segmentation(
            torch.ones(rows, 16, 16), ones, ones * self.score, torch.zeros(rows, 32), torch.zeros(rows, 16, 8)
        )
