"""Whole steps with TensorRT plans inside, against the emulated library: the memory bank's reading and writing and the
enqueue of the plan are one recording, played again in their order on the addresses of then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from fake_graph import FakeRecorder, Log
from pocket import assert_same, pocket_engine, pocket_network
from tensorrt_emulator import World, install
from test_tensorrt_runtime import BF16_ISLAND, ENCODE, TRACK, exported, follow

from engines.programmed import ProgrammedEngine
from engines.tensorrt import build_plan, install_plan, load_library, tensorrt_engine
from stream.tracker import Tracker


class PlanRecorder(FakeRecorder):
    """Enqueues are part of the tape, between the operations that they stood between."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def capturing(self, log: Log) -> AbstractContextManager[None]:
        return self._joined(log)

    @contextmanager
    def _joined(self, log: Log) -> Iterator[None]:
        class Joined(list[Callable[[], None]]):
            def append(self, run: Callable[[], None]) -> None:
                super().append(run)
                log.calls.append((run, (), {}, []))

        self._world.recorded = Joined()
        with self._world.capture():
            yield


def plan_engine(recorder: FakeRecorder | None, monkeypatch: pytest.MonkeyPatch) -> ProgrammedEngine:
    library = load_library("tensorrt")
    engine = tensorrt_engine(pocket_engine(dtype=torch.float16), pocket_network(), library, attention_dtype=BF16_ISLAND)
    monkeypatch.setattr(engine, "recorder", recorder)
    for key in (ENCODE, TRACK):
        install_plan(engine, library, key, plan=build_plan(library, exported(key)))
    return engine


def test_a_recorded_step_with_a_plan_inside_is_the_unrecorded_one_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = install(monkeypatch, "tensorrt")
    recorder = PlanRecorder(world)
    recorded, plain = Tracker(plan_engine(recorder, monkeypatch)), Tracker(plan_engine(None, monkeypatch))
    for ours, theirs in zip(follow(recorded), follow(plain), strict=True):
        assert_same(ours, theirs)
    assert "piece by piece" not in caplog.text and len(recorder.tapes) == 2, "encode, and one step of two rows"
    assert [tape.num_plays for tape in recorder.tapes] == [1 + 24, 1 + 8]


def test_a_plan_that_refuses_to_run_is_a_fault_also_while_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = install(monkeypatch, "tensorrt", faults="enqueue_false_later")
    tracker = Tracker(plan_engine(PlanRecorder(world), monkeypatch))
    with pytest.raises(RuntimeError, match="did not run"):
        follow(tracker)
