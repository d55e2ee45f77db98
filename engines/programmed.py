"""`ProgrammedEngine`: an engine whose full-bank steps run as ready-made programs, and all else on another engine.

Owns: which program serves a call, and the set of installed ones. One thread uses it. Never: pads a memory (padding
would change the softmax): a bank of any other length goes to the inner engine, so that results are those of eager.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from engines.graphs import track_inputs
from engines.spec import (
    FRAME_BUCKETS,
    ROW_BUCKETS,
    Engine,
    FrameFeatures,
    MemoryRead,
    ModelSpec,
    PointPrompt,
    Program,
    ProgramKey,
    Proposals,
    Segmentation,
    program_spec,
)
from engines.tape import RecordedProgram, Recorder

log = logging.getLogger(__name__)


class ProgrammedEngine:
    """`_programs` is written by `install` and `discard`, `_has_proposed` by `propose`, in the one thread that uses it.

    With a `recorder`, by default the inner engine's, every program is recorded at its first call and then played;
    `stream.step` records whole steps.
    """

    def __init__(
        self,
        inner: Engine,
        *,
        backend: str,
        sparse_1sc: Tensor,
        attention_dtype: torch.dtype | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.backend = backend
        self.spec: ModelSpec = inner.spec
        self.device, self.dtype, self.memory_dtype = inner.device, inner.dtype, inner.memory_dtype
        self.attention_dtype = attention_dtype or inner.attention_dtype
        self.row_buckets, self.frame_buckets = ROW_BUCKETS, FRAME_BUCKETS
        self.inner, self._sparse_1sc = inner, sparse_1sc
        within: Recorder | None = inner.recorder if isinstance(inner, ProgrammedEngine) else None
        self.recorder: Recorder | None = within if recorder is None else recorder
        self._programs: dict[ProgramKey, Program] = {}
        self._has_proposed = False

    @property
    def installed(self) -> tuple[ProgramKey, ...]:
        """The programs in use, sorted."""
        return tuple(sorted(self._programs))

    def install(self, key: ProgramKey, program: Program) -> None:
        """Use this program from the next call on."""
        expected = program_spec(self.spec, key, self.dtype)
        assert program.spec == expected, f"{key.name} is built for these shapes and dtypes"
        self._programs[key] = program if self.recorder is None else RecordedProgram(program, self.recorder)

    def discard(self, key: ProgramKey) -> None:
        """Do without this program; the inner engine takes over."""
        self._programs.pop(key, None)

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        program = self._programs.get(ProgramKey("encode", frames_f3hw.shape[0]))
        return self.inner.encode(frames_f3hw) if program is None else FrameFeatures(*program(frames_f3hw))

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        (rows, memories), pointers = read.memory_time_bm.shape, read.pointers_bpc.shape[1]
        program = self._programs.get(self._key(rows, memories, pointers))
        if program is None:
            return self.inner.track(frames, row_frame_b, read)
        read = read._replace(memory_bmnc=read.memory_bmnc.to(self.dtype))  # float32 programs store it in bfloat16
        *found, conditioned = program(*track_inputs(frames, row_frame_b, read, sparse_1sc=self._sparse_1sc))
        return Segmentation(*found), conditioned

    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        """No program ends there, which is said once."""
        if self._programs and not self._has_proposed:
            self._has_proposed = True
            log.info(
                "objects with the memory policy motion run on %s, not on %s: its programs end with SAM 2's own choice",
                self.inner.backend, self.backend,
            )  # fmt: skip
        return self.inner.propose(frames, row_frame_b, read)

    def remember(self, frames: FrameFeatures, row_frame_b: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        return self.inner.remember(frames, row_frame_b, chosen)

    def prompt_points(self, frame: FrameFeatures, prompt: PointPrompt, conditioned_bchw: Tensor | None) -> Segmentation:
        return self.inner.prompt_points(frame, prompt, conditioned_bchw)

    def prompt_mask(self, frame: FrameFeatures, mask_bhw: Tensor) -> Segmentation:
        return self.inner.prompt_mask(frame, mask_bhw)

    def find(self, rows: int, memories: int, pointers: int) -> Program | None:
        """The program that tracks so many rows with banks of these lengths, here or in the inner engine; only full
        banks have one.
        """
        program = self._programs.get(self._key(rows, memories, pointers))
        if program is None and isinstance(self.inner, ProgrammedEngine):
            return self.inner.find(rows, memories, pointers)
        return program

    def _key(self, rows: int, memories: int, pointers: int) -> ProgramKey:
        """That of the full bank, or one that no program has."""
        num_cond = memories - self.spec.num_recent_memories
        is_full = num_cond > 0 and pointers == num_cond + self.spec.num_recent_pointers
        return ProgramKey("track", rows, num_cond if is_full else 0)
