"""`Tape`: device work that is recorded once and then played again, as one launch, on the same addresses.

Owns: `CudaRecorder` (CUDA graphs), and `RecordedProgram`, a program of fixed shapes on a tape. The thread that uses the
engine records and plays. Never: knows what a program computes.

A recorded work must not wait for the device, nor read anything from the host: what it reads lies in fixed tensors.

Other threads: the capture is in the mode `thread_local`, so that the driver watches the recording thread alone and
another thread's call neither fails nor spoils it. None of the daemon's other threads allocates on the device or
launches anything; the thread that publishes waits on events that were recorded before, and a capture creates none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from engines.spec import Program, ProgramSpec

log = logging.getLogger(__name__)
NUM_WARM_UPS = 3  # libraries choose algorithms and allocate in their first calls, which a graph may not hold


class Tape(Protocol):
    """Work on fixed addresses."""

    def play(self) -> None:
        """Do the work again, without waiting for it."""
        ...


class Recorder(Protocol):
    """What makes tapes."""

    @property
    def is_recording(self) -> bool:
        """Whether `record` is at work, so that what is launched now belongs to another's tape."""
        ...

    def record(self, work: Callable[[], None]) -> Tape:
        """Do the work a few times, then put it on a tape. Raises RuntimeError where it cannot be recorded."""
        ...


class CudaRecorder:
    """CUDA graphs of one engine. They share their scratch memory, as they are played one after another.

    Fields are written by the thread that uses the engine. Not tried on a GPU so far; whoever records compares what is
    played with what was done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: torch.cuda._POOL_HANDLE | None = None
        self.is_recording = False

    def record(self, work: Callable[[], None]) -> Tape:
        self.is_recording = True
        try:
            return self._record(work)
        finally:
            self.is_recording = False

    def _record(self, work: Callable[[], None]) -> Tape:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        stream, current = self._stream, torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                work()
        stream.synchronize()
        tape = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(tape, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(current)  # a capture that fails leaves its own
        current.wait_stream(stream)
        return CudaTape(tape)


class CudaTape:
    """One CUDA graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def play(self) -> None:
        self._graph.replay()


class RecordedProgram:
    """A program that is recorded at its first call, with inputs of its own; while something else is being recorded, or
    where recording fails, it is the plain program.

    Fields are written by the thread that uses the engine.
    """

    def __init__(self, program: Program, recorder: Recorder) -> None:
        self.plain = program
        self._recorder = recorder
        self._tape: Tape | None = None
        self._can_record = True
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    @property
    def spec(self) -> ProgramSpec:
        return self.plain.spec

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self._can_record or self._recorder.is_recording:
            return self.plain(*inputs)
        if self._tape is None and not self._record(inputs):
            return self.plain(*inputs)
        assert self._tape is not None, "it has just been recorded"
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._tape.play()
        return self._outputs

    def _record(self, inputs: tuple[Tensor, ...]) -> bool:
        self._inputs = tuple(x.clone(memory_format=torch.contiguous_format) for x in inputs)
        wanted = tuple(x.clone() for x in self.plain(*self._inputs))

        def work() -> None:
            self._outputs = self.plain(*self._inputs)

        try:
            self._tape = self._recorder.record(work)
        except RuntimeError as error:
            self._give_up(str(error))
            return False
        self._tape.play()
        if not all(agree(x, y) for x, y in zip(wanted, self._outputs, strict=True)):
            self._give_up("played, it does not compute what it did")
        return self._can_record

    def _give_up(self, reason: str) -> None:
        log.warning("%s is launched piece by piece, as it cannot be recorded: %s", self.spec.name, reason)
        self._can_record, self._tape, self._inputs, self._outputs = False, None, (), ()


def agree(one: Tensor, other: Tensor, limit: float = 1e-2) -> bool:
    """Whether the largest difference is small against the largest value; waits for the device.

    A recording's kernels are those of the plain call, but for what libraries choose anew.
    """
    one, other = one.float(), other.float()
    return bool((one - other).abs().amax() <= limit * one.abs().amax() + 1e-6)
