"""A SAM 2.1 that fits a pocket, for tests that take thousands of steps: nano's configuration with smaller pictures and
hardly more than one block a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from hydra.utils import instantiate
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.eager import EagerEngine
from engines.spec import FrameFeatures, MemoryRead, Segmentation
from engines.synthetic import ClipSpec, SyntheticClip
from engines.weights import model_config
from stream.frame import Masks


def pocket_network(seed: int = 0) -> SAM2Base:
    """Random weights that see their memory (time embeddings x 20) and find an object (object score lifted)."""
    config = model_config("nano")
    config.image_size = 64
    trunk = config.image_encoder.trunk
    trunk.embed_dim, trunk.stages, trunk.global_att_blocks = 16, [1, 1, 2, 1], [3]
    config.image_encoder.neck.backbone_channel_list = [128, 64, 32, 16]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: SAM2Base = instantiate(config, _recursive_=True)
    with torch.no_grad():
        network.maskmem_tpos_enc.mul_(20)
        network.obj_ptr_tpos_proj.weight.mul_(20)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(3.0)
    return network.float().eval().requires_grad_(False)


def pocket_engine(seed: int = 0, dtype: torch.dtype = torch.float32) -> EagerEngine:
    return EagerEngine(pocket_network(seed), name="pocket", device=torch.device("cpu"), dtype=dtype)


class OneByOne(EagerEngine):
    """Computes every frame and row by itself, so that not even the last bit depends on a batch's other rows; notes the
    sizes of the batches that it was given.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(pocket_network(seed), name="pocket", device=torch.device("cpu"), dtype=torch.float32)
        self.frame_batches: list[int] = []
        self.row_batches: list[int] = []

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        self.frame_batches.append(len(frames_f3hw))
        return FrameFeatures(*_joined([super(OneByOne, self).encode(frame[None]) for frame in frames_f3hw]))

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        self.row_batches.append(len(row_frame_b))
        rows = [
            super(OneByOne, self).track(
                frames, row_frame_b[row : row + 1], MemoryRead(*(x[row : row + 1] for x in read))
            )
            for row in range(len(row_frame_b))
        ]
        return Segmentation(*_joined([found for found, _ in rows])), torch.cat([conditioned for _, conditioned in rows])


Frames = list[np.ndarray]


def clip_frames(seed: int, count: int, height: int = 96, width: int = 112) -> Frames:
    clip = SyntheticClip(ClipSpec(seed=seed, num_frames=count, height=height, width=width))
    return [clip.frame(index) for index in range(count)]


def assert_same(one: Masks, other: Masks) -> None:
    """Every bit of every field."""
    for field in fields(Masks):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b, field.name


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*parts, strict=True)]
