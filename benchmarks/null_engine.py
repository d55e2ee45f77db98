"""`NullEngine`: SAM 2's shapes without its arithmetic, for benchmarks of all that is not the model.

Owns: a few precomputed masks with wavy outlines, of which every object shows the next one. Used by one thread. Never:
multiplies anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

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
from stream.tracker import Tracker

NUM_SHAPES = 16
SPECS = {
    "nano": ModelSpec("null", image_size=192, hidden_dim=64, memory_dim=16, num_memories=7, max_pointers=16),
    "tiny": ModelSpec("null", image_size=1024, hidden_dim=256, memory_dim=64, num_memories=7, max_pointers=16),
}


class NullEngine:
    """Fulfils `engines.spec.Engine`; `_step` is written by the thread that uses it."""

    def __init__(self, size: str = "nano", device: str = "cpu") -> None:
        self.spec, self.device, self.backend = SPECS[size], torch.device(device), "null"
        self.dtype = self.attention_dtype = self.memory_dtype = torch.float32
        self.row_buckets, self.frame_buckets = ROW_BUCKETS, FRAME_BUCKETS
        self._shapes_nhw = _shapes(self.spec.low_res_size).to(self.device)
        dim, side = self.spec.hidden_dim, self.spec.feature_size
        shapes = (dim, side, side), (dim // 8, 4 * side, 4 * side), (dim // 4, 2 * side, 2 * side), (side * side, dim)
        self._frames = FrameFeatures(*(torch.zeros(FRAME_BUCKETS[-1], *shape, device=device) for shape in shapes))
        self._conditioned = torch.zeros(ROW_BUCKETS[-1], dim, side, side, device=device)
        self._step = 0

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        return FrameFeatures(*(x[: frames_f3hw.shape[0]] for x in self._frames))

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        rows = row_frame_b.shape[0]
        return self._segment(rows), self._conditioned[:rows]

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
        self._step += 1
        chosen = [(self._step + row) % NUM_SHAPES for row in range(rows)]
        ones, spec = torch.ones(rows, device=self.device), self.spec
        memory = torch.zeros(rows, spec.num_tokens, spec.memory_dim, device=self.device)
        pointers = torch.zeros(rows, spec.hidden_dim, device=self.device)
        return Segmentation(self._shapes_nhw[chosen], ones * 0.9, ones * 5, pointers, memory)


class TimedTracker(Tracker):
    """Remembers when each picture was in `launch`; written by the thread that uses it."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.launches: dict[tuple[str, int], tuple[int, int]] = {}  # begin and end, by camera and arrival

    def launch(self, images: Mapping[str, Any], times_ns: Mapping[str, int], **options: Any) -> Any:
        started_ns = time.monotonic_ns()
        pending = super().launch(images, times_ns, **options)
        span_ns = started_ns, time.monotonic_ns()
        self.launches |= dict.fromkeys(times_ns.items(), span_ns)
        return pending


def _shapes(side: int) -> Tensor:
    """Logits of an object a fifth of the picture's height, with an outline as rough as a person's."""
    axis = (torch.arange(side) + 0.5) / side
    ys, xs = torch.meshgrid(axis, axis, indexing="ij")
    shapes: Sequence[Tensor] = [
        (0.14 + 0.02 * torch.sin(5 * angle + phase) + 0.004 * torch.sin(43 * angle - phase) - radius) * 200
        for phase in (torch.arange(NUM_SHAPES) * 0.4).tolist()
        for x, y in [(0.5 + 0.2 * torch.cos(torch.tensor(phase)), 0.5 + 0.2 * torch.sin(torch.tensor(phase)))]
        for angle, radius in [(torch.atan2(ys - y, xs - x), torch.hypot((xs - x) * 16 / 9, ys - y))]
    ]
    return torch.stack(list(shapes))
