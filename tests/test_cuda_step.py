"""Whole steps on tape, without a GPU: a fake graph repeats what was recorded operation by operation on the tensors of
then, and every bit of every result must be that of the same step done piece by piece.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_graph import FakeRecorder
from pocket import Frames, assert_same, clip_frames, pocket_engine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.compiled.cuda import CudaOptions, recorded_engine
from engines.eager import EagerEngine
from engines.programmed import ProgrammedEngine
from engines.spec import FrameFeatures, ProgramKey
from engines.tape import RecordedProgram, Recorder
from stream.conveyor import NUM_BLOCKS, Conveyor
from stream.frame import Masks
from stream.slots import DRAIN_SLOT
from stream.step import Batch, Steps
from stream.tracker import Tracker

FULL_AFTER = 16  # frames


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip_frames(3, 30)


@pytest.fixture(scope="module")
def inner() -> EagerEngine:
    return pocket_engine()


@pytest.fixture
def make(inner: EagerEngine) -> Callable[..., ProgrammedEngine]:
    return lambda recorder=None: recorded_engine(inner, recorder, CudaOptions())


class PieceByPiece(Steps):
    """What a turn did before there were steps: read, track, write."""

    num_runs = 0

    @torch.inference_mode()
    def run(self, frames: FrameFeatures, batch: Batch) -> tuple[Tensor, ...]:
        self.num_runs += 1
        size = next(size for size in self.engine.row_buckets if size >= len(batch.rows))
        row_frame = torch.zeros(size, dtype=torch.int64)
        row_frame[: len(batch.rows)] = torch.tensor(batch.frames)
        found, conditioned = self.engine.track(frames, row_frame, self.bank.read(batch.rows, batch=size))
        self.bank.write_recent(batch.rows, found)
        self.results.put(torch.tensor(batch.positions), found)
        return conditioned, found.logits_bhw


def live(tracker: Tracker, frames: Frames, *, count: int = 30) -> list[dict[str, Masks]]:
    """Two cameras, objects that come and go, prompts, corrections, pictures that are kept."""
    story = []
    tracker.add(1, points=[(30, 30, 1)], camera="a")
    tracker.add(2, box=(40, 20, 80, 70), camera="a")
    tracker.add(1, points=[(60, 50, 1)], camera="b")
    for number in range(count):
        if number == 3:
            tracker.add(3, points=[(70, 60, 1)], camera="b")
        if number == 20:
            tracker.refine(1, points=[(32, 33, 1), (90, 90, 0)], camera="a")
        if number == 5:
            tracker.add(2, points=[(50, 40, 1)], camera="a")  # a second prompt
        if number == 25:
            tracker.remove(1, camera="b")
        cameras = ("a", "b") if number % 4 else ("b", "a")
        images = {camera: frames[(number + 7 * (camera == "b")) % len(frames)] for camera in cameras}
        pending = tracker.launch(images, dict.fromkeys(images, number), marks={"a": number})
        story.append({camera: masks.resolve() for camera, masks in pending.items()})
    return story


def assert_same_story(one: list[dict[str, Masks]], other: list[dict[str, Masks]]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert list(ours) == list(theirs)
        for camera in ours:
            assert_same(ours[camera], theirs[camera])


def test_a_step_is_read_track_and_write_bit_for_bit(make: Callable[..., ProgrammedEngine], frames: Frames) -> None:
    one, other = Tracker(make()), Tracker(make())
    other.steps = steps = PieceByPiece(other.engine, other._bank)
    other._equipment = dataclasses.replace(other._equipment, steps=steps)
    assert_same_story(live(one, frames), live(other, frames))
    assert steps.num_runs > 30
    assert torch.equal(one._bank.store.pointer_sc[one._bank.slots.num_pointers :],
                       other._bank.store.pointer_sc[other._bank.slots.num_pointers :])  # fmt: skip


def test_a_recorded_step_is_the_unrecorded_one_bit_for_bit(
    make: Callable[..., ProgrammedEngine], frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = FakeRecorder()
    recorded, plain = Tracker(make(recorder)), Tracker(make())
    assert_same_story(live(recorded, frames), live(plain, frames))
    assert not caplog.records, "nothing was refused"
    shapes = sorted(recorded.steps._recordings)
    assert [shape for shape in shapes if shape[0] == 4], "three and four objects share a recorded batch of four"
    assert {shape[1] for shape in shapes} == {7, 8}, "one and two prompts"
    assert sum(tape.num_plays for tape in recorder.tapes) > 20


def test_a_step_is_recorded_anew_when_what_it_holds_on_to_is_another(
    make: Callable[..., ProgrammedEngine], frames: Frames
) -> None:
    """The bank and the results grow, and a program is exchanged, between two steps."""
    recorder = FakeRecorder()
    recorded, plain = Tracker(make(recorder)), Tracker(make())
    for tracker in (recorded, plain):
        tracker.add(0, points=[(30, 30, 1)])

    def both(number: int) -> None:
        assert_same(*(tracker.step(frames[number % 30], time_ns=number) for tracker in (recorded, plain)))

    for number in range(FULL_AFTER + 2):
        both(number)
    before = len(recorder.tapes)
    for tracker in (recorded, plain):
        for index in range(1, 18):
            tracker.add(index, points=[(20 + 4 * index, 40, 1)])
    both(FULL_AFTER + 2)  # the row of object 0 is found in another tensor
    grown = len(recorder.tapes)
    assert grown > before
    for tracker in (recorded, plain):
        for index in range(1, 18):
            tracker.remove(index)
    both(FULL_AFTER + 3)
    both(FULL_AFTER + 4)
    assert len(recorder.tapes) == grown
    key = ProgramKey("track", 1, 1)
    assert isinstance(recorded.engine, ProgrammedEngine)
    program = recorded.engine.find(1, 7, 16)
    assert isinstance(program, RecordedProgram)
    recorded.engine.install(key, program.plain)
    both(FULL_AFTER + 5)
    assert len(recorder.tapes) == grown + 1


def test_programs_of_the_inner_engine_are_recorded_until_there_are_others(
    make: Callable[..., ProgrammedEngine], frames: Frames
) -> None:
    """A TensorRT engine without plans runs on compiled programs; a plan that arrives takes over between two turns."""
    recorder = FakeRecorder()
    compiled = make(recorder)
    engine = ProgrammedEngine(compiled, backend="later", sparse_1sc=compiled._sparse_1sc)
    recorded, plain = Tracker(engine), Tracker(make())
    for tracker in (recorded, plain):
        tracker.add(1, points=[(30, 30, 1)])
    for number in range(FULL_AFTER + 6):
        if number == FULL_AFTER + 3:
            assert [one.tape is not None for one in recorded.steps._recordings.values()] == [True]
            program = compiled.find(1, 7, 16)
            assert isinstance(program, RecordedProgram)
            before = len(recorder.tapes)
            engine.install(ProgramKey("track", 1, 1), program.plain)
        assert_same(*(tracker.step(frames[number], time_ns=number) for tracker in (recorded, plain)))
    assert len(recorder.tapes) == before + 1 and engine.installed == (ProgramKey("track", 1, 1),)


def test_steps_are_recorded_ahead_of_the_first_full_bank(make: Callable[..., ProgrammedEngine], frames: Frames) -> None:
    recorder = FakeRecorder()
    recorded, plain = Tracker(make(recorder)), Tracker(make())
    for tracker in (recorded, plain):
        tracker.steps.prepare()
    assert sorted(recorded.steps._recordings) == [
        (size, 6 + cond, 15 + cond) for size in (1, 2, 4) for cond in (1, 2)
    ] and not plain.steps._recordings  # fmt: skip
    for tracker in (recorded, plain):
        tracker.add(1, points=[(30, 30, 1)])
    recorded.step(frames[0], time_ns=0), plain.step(frames[0], time_ns=0)
    ahead = len(recorder.tapes)  # with the encoder's
    for number in range(1, FULL_AFTER + 4):
        assert_same(*(tracker.step(frames[number], time_ns=number) for tracker in (recorded, plain)))
    assert len(recorder.tapes) == ahead


def test_what_cannot_be_recorded_is_done_piece_by_piece(
    make: Callable[..., ProgrammedEngine], frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = FakeRecorder()
    recorder.fails = True
    assert_same_story(live(Tracker(make(recorder)), frames, count=19), live(Tracker(make()), frames, count=19))
    assert any("piece by piece" in record.getMessage() for record in caplog.records) and not recorder.tapes


def test_a_tape_that_computes_something_else_is_refused(
    make: Callable[..., ProgrammedEngine], frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(FakeRecorder):
        """Its tapes lose the last quarter of what was recorded, and have rubbish in the outputs before."""

        def record(self, work: Callable[[], None]) -> Any:
            tape = super().record(work)
            for _, _, _, results in tape._calls:
                for result in results:
                    if result.is_floating_point() and result._base is None and result.numel() > 512:
                        result.add_(1.0)
            del tape._calls[len(tape._calls) * 3 // 4 :]
            return tape

    with caplog.at_level(logging.WARNING):
        assert_same_story(live(Tracker(make(Forgetful())), frames, count=19), live(Tracker(make()), frames, count=19))
    assert any("does not compute what it did" in record.getMessage() for record in caplog.records)


class _Allocations(TorchDispatchMode):
    """Counts results that lie in memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in given for x in tree_leaves(result)):
            self.names.append(str(func))
        return result


def test_a_recorded_step_allocates_nothing(make: Callable[..., ProgrammedEngine], frames: Frames) -> None:
    """Of 100 steps, everything but the tape itself, which has its memory."""
    recorder = FakeRecorder()
    tracker = Tracker(make(recorder))
    for index in range(3):
        tracker.add(index, points=[(30 + 20 * index, 40, 1)])
    for number in range(FULL_AFTER + 2):
        tracker.step(frames[number], time_ns=number)
    for tape in recorder.tapes:
        tape._calls.clear()
    rows = [item.row for item in tracker._objects.values()]
    features = tracker.steps._frames
    assert features is not None
    features = FrameFeatures(*(x[:1].clone() for x in features))
    with _Allocations() as seen:
        torch.ones(1)
        assert seen.names, "an allocation is seen"
        seen.names.clear()
        for _ in range(100):
            tracker.steps.run(tracker.steps.hold(features), Batch(rows, [0, 0, 0], [0, 1, 2]))
            tracker._bank.advance(rows)
    assert not seen.names


def test_padding_goes_down_the_drain(make: Callable[..., ProgrammedEngine], frames: Frames) -> None:
    tracker = Tracker(make(FakeRecorder()))
    for index in range(3):
        tracker.add(index, points=[(30 + 20 * index, 40, 1)])
    for number in range(FULL_AFTER + 4):
        tracker.step(frames[number], time_ns=number)
    bank = tracker._bank
    memory, pointers = (
        bank.store.memory_snc[: bank.slots.num_memories],
        bank.store.pointer_sc[: bank.slots.num_pointers],
    )
    assert memory[DRAIN_SLOT].any() and pointers[DRAIN_SLOT].any(), "the fourth row went there"
    memory[DRAIN_SLOT] = 0
    pointers[DRAIN_SLOT] = 0
    assert not memory.any() and not pointers.any()
    assert not bank.store.memory_snc[4 * bank.slots.num_memories :].any(), "no other row was touched"


def test_a_program_is_recorded_once_and_played_on_its_own_inputs(make: Callable[..., ProgrammedEngine]) -> None:
    recorder = FakeRecorder()
    recorded, plain = make(recorder), make()
    for seed in range(3):
        pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        for one, other in zip(recorded.encode(pictures), plain.encode(pictures), strict=True):
            assert torch.equal(one, other)
    assert [tape.num_plays for tape in recorder.tapes] == [4], "once to be compared, then three times"


def test_a_recorder_is_given_to_nothing_that_is_already_being_recorded(
    make: Callable[..., ProgrammedEngine], frames: Frames
) -> None:
    class Strict(FakeRecorder):
        def record(self, work: Callable[[], None]) -> Any:
            assert not self.is_recording, "a graph within a graph"
            return super().record(work)

    recorder: Recorder = Strict()
    tracker = Tracker(make(recorder))
    tracker.add(1, points=[(30, 30, 1)])
    for number in range(FULL_AFTER + 2):
        tracker.step(frames[number], time_ns=number)
    assert len(tracker.steps._recordings) == 1


def test_a_conveyor_brings_every_array_whole() -> None:
    random = np.random.default_rng(0)

    def columns() -> list[np.ndarray]:
        return [
            random.integers(0, 99, 3),
            random.normal(size=(2, 5, 7)).astype(np.float32),
            random.integers(0, 9, (4, 1)),
        ]

    first = columns()
    conveyor = Conveyor(first, torch.device("cpu"))
    addresses = [x.data_ptr() for x in conveyor.inputs]
    assert [(x.shape, x.dtype) for x in conveyor.inputs] == [
        ((3,), torch.int64), ((2, 5, 7), torch.float32), ((4, 1), torch.int64),
    ]  # fmt: skip
    for given in [first, *(columns() for _ in range(2 * NUM_BLOCKS))]:
        conveyor.load(given)
        assert all(np.array_equal(x.numpy(), y) for x, y in zip(conveyor.inputs, given, strict=True))
    assert addresses == [x.data_ptr() for x in conveyor.inputs]
