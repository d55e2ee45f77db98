"""What a SAM 2 model looks like from outside: its sizes, and the table of its programs with every tensor's name, shape
and dtype.

Owns: `ModelSpec`, the table of programs, the `Engine` contract that every backend fulfils, and the tuples that travel
between programs.
Values only; any thread.
Never: holds weights or runs anything.

Axes: f frames, b rows (objects), m memory frames, p object pointers, n image tokens (feature_size squared), c
channels, h and w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

ROW_BUCKETS = (1, 2, 4, 8, 16)
FRAME_BUCKETS = (1, 2, 4, 8)
NUM_CONDS = (1, 2)  # conditioning frames of the full banks that have programs of their own
NUM_EMPTY_TOKENS = 2  # sparse tokens of a frame without a prompt: an empty point and the padding point
MAX_ROWS = ROW_BUCKETS[-1]
MAX_FRAMES = FRAME_BUCKETS[-1]
BACKBONE_STRIDE = 16
LOW_RES_STRIDE = 4
NO_OBJECT_LOGIT = -1024.0  # mask logit of an object that is not in the picture; fits fp16


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The sizes that fix every tensor's shape."""

    name: str
    image_size: int  # pixels, square
    hidden_dim: int  # channels of image features and object pointers
    memory_dim: int  # channels of a memory frame
    num_memories: int  # one conditioning frame + the recent ones (7)
    max_pointers: int  # one conditioning frame + the recent ones (16)

    @property
    def feature_size(self) -> int:
        return self.image_size // BACKBONE_STRIDE

    @property
    def num_tokens(self) -> int:
        return self.feature_size**2

    @property
    def low_res_size(self) -> int:
        return self.image_size // LOW_RES_STRIDE

    @property
    def num_recent_memories(self) -> int:
        return self.num_memories - 1

    @property
    def num_recent_pointers(self) -> int:
        return self.max_pointers - 1

    def num_keys(self, num_cond: int) -> int:
        """Keys of a full bank with `num_cond` conditioning frames: 4096 (c + 6) + 4 (c + 15) at 1024 pixels."""
        split = self.hidden_dim // self.memory_dim
        return self.num_tokens * (num_cond + self.num_recent_memories) + split * (num_cond + self.num_recent_pointers)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a program."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program with all shapes fixed."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, order=True)
class ProgramKey:
    """Which of the steady-state programs: `encode` for `batch` frames, or `track` for `batch` rows whose banks are full
    with `num_cond` conditioning frames (0 for `encode`).
    """

    kind: Literal["encode", "track"]
    batch: int
    num_cond: int = 0

    @property
    def name(self) -> str:
        """encode-f4, track-b8-c1."""
        return f"encode-f{self.batch}" if self.kind == "encode" else f"track-b{self.batch}-c{self.num_cond}"


class Program(Protocol):
    """One program on one device, ready to run."""

    @property
    def spec(self) -> ProgramSpec: ...

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the spec's order; the next call may overwrite them."""
        ...


class BackendMissing(Exception):
    """A backend cannot run here; the text says what is missing and the command that brings it."""


class FrameFeatures(NamedTuple):
    """What `encode` makes of a batch of frames."""

    features_fchw: Tensor  # (f, hidden_dim, feature_size, feature_size)
    high0_fchw: Tensor  # (f, hidden_dim / 8, 4 * feature_size, 4 * feature_size)
    high1_fchw: Tensor  # (f, hidden_dim / 4, 2 * feature_size, 2 * feature_size)
    tokens_fnc: Tensor  # (f, num_tokens, hidden_dim); what attends to memory, see `engines.graphs.LookAround`


class MemoryRead(NamedTuple):
    """What a row attends to. All rows of a batch have the same number of memories and pointers."""

    memory_bmnc: Tensor  # (b, m, num_tokens, memory_dim)
    memory_time_bm: Tensor  # int64; 0 = previous frame ... 5 = six frames ago, 6 = conditioning frame
    pointers_bpc: Tensor  # (b, p, hidden_dim) float32
    pointer_pos_bpc: Tensor  # (b, p, hidden_dim) float32 sine encoding of the temporal distance


class Segmentation(NamedTuple):
    """What decoding makes of each row."""

    logits_bhw: Tensor  # float32 (b, low_res_size, low_res_size)
    ious_b: Tensor  # float32, the model's estimate
    scores_b: Tensor  # float32 object score logits; > 0 = visible
    pointers_bc: Tensor  # float32 (b, hidden_dim)
    memory_bnc: Tensor  # (b, num_tokens, memory_dim)


class Proposals(NamedTuple):
    """The three masks that compete for each row (k), before one is taken; those of an absent object are gated."""

    logits_bkhw: Tensor  # float32 (b, 3, low_res_size, low_res_size)
    ious_bk: Tensor  # float32, the model's estimates
    scores_b: Tensor  # float32 object score logits; > 0 = visible
    pointers_bkc: Tensor  # float32 (b, 3, hidden_dim)


class PointPrompt(NamedTuple):
    """Points of one object in model pixels; labels 0 negative, 1 positive, 2 and 3 box corners."""

    coords_bs2: Tensor  # float32 (1, s, 2)
    labels_bs: Tensor  # int32 (1, s)
    logits_bhw: Tensor | None  # that frame's low-resolution logits when correcting, else None


class Engine(Protocol):
    """The programs of one model on one device.

    Called from one thread only; results may be overwritten by the next call.
    """

    @property
    def backend(self) -> str:
        """eager, compiled, tensorrt or tensorrt-rtx."""
        ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoder, memory attention, mask decoder transformer and memory encoder."""
        ...

    @property
    def attention_dtype(self) -> torch.dtype:
        """Of the products inside memory attention; bfloat16 may be an island in float16 programs."""
        ...

    @property
    def memory_dtype(self) -> torch.dtype:
        """How memory frames are stored in the bank."""
        ...

    @property
    def row_buckets(self) -> tuple[int, ...]:
        """Batch sizes that `track` accepts."""
        ...

    @property
    def frame_buckets(self) -> tuple[int, ...]:
        """Batch sizes that `encode` accepts."""
        ...

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        """Normalised float32 frames (f, 3, image_size, image_size) to features."""
        ...

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        """Follow rows; `row_frame_b` tells which frame each row looks at.

        Also returns the conditioned features (b, c, h, w).
        """
        ...

    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        """`track` up to the choice: all masks that compete, and the conditioned features. Who chooses otherwise than by
        predicted IoU goes on with `remember`.
        """
        ...

    def remember(self, frames: FrameFeatures, row_frame_b: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        """Memory frames (b, num_tokens, memory_dim) of the chosen masks: their logits (b, h, w) and scores (b,)."""
        ...

    def prompt_points(self, frame: FrameFeatures, prompt: PointPrompt, conditioned_bchw: Tensor | None) -> Segmentation:
        """Decode one row from points on one frame, without memory where `conditioned_bchw` is None."""
        ...

    def prompt_mask(self, frame: FrameFeatures, mask_bhw: Tensor) -> Segmentation:
        """Take a mask (1, image_size, image_size) of zeros and ones as one row's segmentation."""
        ...


def program_keys(
    *, frames: Sequence[int] = FRAME_BUCKETS, rows: Sequence[int] = ROW_BUCKETS, conds: Sequence[int] = NUM_CONDS
) -> tuple[ProgramKey, ...]:
    """The table of programs that a backend may have as engines; all other lengths run elsewhere."""
    encode = tuple(ProgramKey("encode", count) for count in frames)
    return (*encode, *(ProgramKey("track", count, cond) for cond in conds for count in rows))


def program_spec(spec: ModelSpec, key: ProgramKey, dtype: torch.dtype) -> ProgramSpec:
    """Every tensor of a program of `dtype`, in the order of `engines.graphs.FlatEncode` and `FlatTrack`."""
    if key.kind == "encode":
        shape = (key.batch, 3, spec.image_size, spec.image_size)
        image = TensorSpec("frames_f3hw", shape, torch.float32)
        return ProgramSpec(key.name, (image,), _features(spec, key.batch, dtype, axis="f"))
    rows, dim, size = key.batch, spec.hidden_dim, spec.feature_size
    memories, pointers = key.num_cond + spec.num_recent_memories, key.num_cond + spec.num_recent_pointers
    inputs = (
        *_features(spec, rows, dtype, axis="b"),
        TensorSpec("memory_bmnc", (rows, memories, spec.num_tokens, spec.memory_dim), dtype),
        TensorSpec("memory_time_bm", (rows, memories), torch.int64),
        TensorSpec("pointers_bpc", (rows, pointers, dim), torch.float32),
        TensorSpec("pointer_pos_bpc", (rows, pointers, dim), torch.float32),
        TensorSpec("sparse_bsc", (rows, NUM_EMPTY_TOKENS, dim), torch.float32),
    )
    outputs = (
        TensorSpec("logits_bhw", (rows, spec.low_res_size, spec.low_res_size), torch.float32),
        TensorSpec("ious_b", (rows,), torch.float32),
        TensorSpec("scores_b", (rows,), torch.float32),
        TensorSpec("found_pointers_bc", (rows, dim), torch.float32),
        TensorSpec("found_memory_bnc", (rows, spec.num_tokens, spec.memory_dim), dtype),
        TensorSpec("conditioned_bchw", (rows, dim, size, size), dtype),
    )
    return ProgramSpec(key.name, inputs, outputs)


def _features(spec: ModelSpec, count: int, dtype: torch.dtype, *, axis: str) -> tuple[TensorSpec, ...]:
    size, dim = spec.feature_size, spec.hidden_dim
    return (
        TensorSpec(f"features_{axis}chw", (count, dim, size, size), dtype),
        TensorSpec(f"high0_{axis}chw", (count, dim // 8, 4 * size, 4 * size), dtype),
        TensorSpec(f"high1_{axis}chw", (count, dim // 4, 2 * size, 2 * size), dtype),
        TensorSpec(f"tokens_{axis}nc", (count, spec.num_tokens, dim), dtype),
    )
