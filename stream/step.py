"""`Steps`: one batch of rows through the program `track`, from the memory bank back into it.

Owns: the recorded steps of full banks, and the buffer of a turn's results. The worker's thread alone uses it.
Never: decides which rows share a batch, waits for the device, or grows with the number of frames.

A step gathers the rows' memory, runs the engine, and writes what was found to the bank and to the results. Where it
does so is worked out on the host first (`MemoryBank.plan`); the rest is work on tensors alone. Where the engine has a
recorder and a program for this batch, that work is recorded once and from then on played as one launch: fresh places
go into fixed tensors with one copy from pinned memory, and nothing is allocated. All other batches do the same work
piece by piece.

A step cannot be repeated: it overwrites the oldest memory that it reads. So what is recorded reads the true places but
writes to the bank's drain; it is compared with the same work done piece by piece before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.programmed import ProgrammedEngine
from engines.spec import NUM_CONDS, Engine, FrameFeatures, MemoryRead, Program, ProgramKey, program_spec
from engines.tape import Recorder, Tape, agree
from stream.conveyor import Conveyor
from stream.memory import MemoryBank, Plan, Store
from stream.results import Content, ResultBuffer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of the bank of equal lengths, which frame each looks at, and where its results go."""

    rows: Sequence[int]
    frames: Sequence[int]
    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Ties:
    """What a recording holds on to; it is of no use once one of these is another."""

    program: Program
    store: Store
    content: Content
    frames: FrameFeatures

    def is_same(self, other: _Ties) -> bool:
        return self.program is other.program and self.is_same_place(other)

    def is_same_place(self, other: _Ties) -> bool:
        return self.store is other.store and self.content is other.content and self.frames is other.frames


@dataclass(frozen=True, slots=True)
class _Recording:
    """A step of one batch size on tape; `tape` is None where it could not be recorded."""

    ties: _Ties
    conveyor: Conveyor
    outputs: tuple[Tensor, ...]  # conditioned features, logits
    tape: Tape | None


class Steps:
    """All fields are written by the worker's thread."""

    def __init__(self, engine: Engine, bank: MemoryBank) -> None:
        self.engine, self.bank = engine, bank
        self.results = ResultBuffer(engine.spec.low_res_size, engine.device)
        self._recorder: Recorder | None = engine.recorder if isinstance(engine, ProgrammedEngine) else None
        self._frames: FrameFeatures | None = None
        self._recordings: dict[tuple[int, ...], _Recording] = {}

    @torch.inference_mode()
    def hold(self, frames: FrameFeatures) -> FrameFeatures:
        """The turn's frames where recorded steps find them; as they are, where nothing is recorded."""
        if self._recorder is None:
            return frames
        if self._frames is None:
            most = self.engine.frame_buckets[-1]
            self._frames = FrameFeatures(*(x.new_zeros(most, *x.shape[1:]) for x in frames))
        count = frames.features_fchw.shape[0]
        views = FrameFeatures(*(x[:count] for x in self._frames))
        for own, given in zip(views, frames, strict=True):
            own.copy_(given)
        return views

    @torch.inference_mode()
    def prepare(self, sizes: Sequence[int] = (1, 2, 4)) -> None:
        """Record the steps of these batch sizes now. Otherwise that happens at the first full bank of each, and that
        turn takes some tenths of a second.
        """
        if self._recorder is None:
            return
        features = program_spec(self.engine.spec, ProgramKey("encode", 1), self.engine.dtype).outputs
        self.hold(FrameFeatures(*(torch.zeros(x.shape, dtype=x.dtype, device=self.engine.device) for x in features)))
        for num_cond in (cond for cond in NUM_CONDS if cond <= self.bank.max_cond):
            for size in sizes:
                self._recording(self.bank.blank_plan(size, num_cond), Batch((), (), ()))

    @torch.inference_mode()
    def run(self, frames: FrameFeatures, batch: Batch) -> tuple[Tensor, ...]:
        """The conditioned features and the logits of each row, and padding rows; valid until the next step."""
        size = next(size for size in self.engine.row_buckets if size >= len(batch.rows))
        plan = self.bank.plan(batch.rows, size)
        recording = self._recording(plan, batch)
        if recording is None or recording.tape is None:
            inputs = [self.bank.upload(x) for x in self._columns(plan, batch)]
            outputs = self._work(frames, inputs)
        else:
            recording.conveyor.load(self._columns(plan, batch))
            recording.tape.play()
            outputs = recording.outputs
        self.bank.slots.note(batch.rows, plan.places)
        return outputs

    def _columns(self, plan: Plan, batch: Batch) -> list[NDArray[np.generic]]:
        """All that the work reads of the host's, in its order."""
        size, count = plan.reading.memory_bm.shape[0], len(batch.rows)
        frames, positions = np.zeros(size, np.int64), np.full(size, self.results.drain)
        frames[:count], positions[:count] = batch.frames, batch.positions
        reading, places = plan.reading, plan.places
        return [
            frames, positions, reading.memory_bm, reading.time_bm, reading.pointer_bp,
            places.memory_b, places.pointer_b, plan.position_bpc,
        ]  # fmt: skip

    def _work(self, frames: FrameFeatures, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The step itself, on tensors alone."""
        row_frame, positions, memory_bm, time_bm, pointer_bp, memory_b, pointer_b, position_bpc = inputs
        memory, pointers = self.bank.store.gather(memory_bm.view(-1), pointer_bp.view(-1))
        memory_bmnc = memory.view(*memory_bm.shape, *memory.shape[1:])
        read = MemoryRead(memory_bmnc, time_bm, pointers.view(*pointer_bp.shape, -1), position_bpc)
        found, conditioned = self.engine.track(frames, row_frame, read)
        self.bank.store.scatter(memory_b, pointer_b, found)
        self.results.put(positions, found)
        return conditioned, found.logits_bhw

    # --- on tape -----------------------------------------------------------------------------------------------------

    def _recording(self, plan: Plan, batch: Batch) -> _Recording | None:
        """That of a batch of this shape, made now where there is none; None where there is nothing to record."""
        if self._recorder is None or self._frames is None or not isinstance(self.engine, ProgrammedEngine):
            return None
        (rows, memories), pointers = plan.reading.memory_bm.shape, plan.reading.pointer_bp.shape[1]
        program = self.engine.find(rows, memories, pointers)
        if program is None:
            return None
        ties = _Ties(program, self.bank.store, self.results.content, self._frames)
        shape = (rows, memories, pointers)
        known = self._recordings.get(shape)
        if known is None or not known.ties.is_same(ties):
            known = self._record(ties, self._columns(plan.rehearsal(), batch))
            # only now, as recording has waited for the device: an old tape may have been at work until then
            kept = {key: one for key, one in self._recordings.items() if one.ties.is_same_place(ties)}
            self._recordings = {**kept, shape: known}
        return known

    def _record(self, ties: _Ties, columns: list[NDArray[np.generic]]) -> _Recording:
        conveyor = Conveyor(columns, self.engine.device)
        conveyor.load(columns)
        outputs: list[Tensor] = []
        wanted: list[Tensor] = []  # of the first time, when all was done piece by piece

        def work() -> None:
            outputs[:] = self._work(ties.frames, conveyor.inputs)
            if not wanted:
                wanted.extend(x.clone() for x in outputs)

        tape = self._tape(work)
        if tape is not None and not all(agree(x, y) for x, y in zip(wanted, outputs, strict=True)):
            log.warning(
                "%s is launched piece by piece: played, it does not compute what it did", ties.program.spec.name
            )
            tape = None
        return _Recording(ties, conveyor, tuple(outputs), tape)

    def _tape(self, work: Callable[[], None]) -> Tape | None:
        """The work, recorded and played once; None where that is not possible."""
        assert self._recorder is not None, "only called where there is one"
        try:
            tape = self._recorder.record(work)
        except RuntimeError as error:
            log.warning("a step is launched piece by piece, as it cannot be recorded: %s", error)
            return None
        tape.play()
        return tape
