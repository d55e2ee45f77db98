"""What only a GPU can show of recorded steps and chosen kernels. Skipped without one; nobody has run it so far."""

from __future__ import annotations

import pytest
import torch
from pocket import clip_frames, pocket_engine, pocket_network

from engines.compiled.cuda import CudaOptions, cuda_engine, recorded_engine
from engines.compiled.cuda_kernels import candidates, cuda_milliseconds, inputs_of, try_kernels
from engines.eager import EagerEngine
from engines.programmed import ProgrammedEngine
from engines.spec import Engine, ModelSpec
from engines.weights import build_model
from stream.frame import Masks
from stream.tracker import Tracker

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and torch built for CUDA")
GPU = torch.device("cuda")
TINY = ModelSpec("tiny", image_size=1024, hidden_dim=256, memory_dim=64, num_memories=7, max_pointers=16)
FULL_AFTER = 16  # frames


def start(engine: Engine) -> Tracker:
    tracker = Tracker(engine)
    tracker.steps.prepare()
    for index, (x, y) in enumerate(((30, 40), (70, 50), (50, 20))):
        tracker.add(index, points=[(x, y, 1)])
    return tracker


def play(tracker: Tracker, count: int) -> list[Masks]:
    frames = clip_frames(1, 24)
    return [tracker.step(frames[number % 24], time_ns=number) for number in range(count)]


def assert_near(ours: list[Masks], theirs: list[Masks], limit: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        union = (one.masks_nhw | other.masks_nhw).sum()
        assert union == 0 or (one.masks_nhw & other.masks_nhw).sum() / union >= 1 - limit
        assert abs(one.scores - other.scores).max() <= limit * max(1.0, abs(other.scores).max())


def test_recorded_steps_compute_what_the_unrecorded_ones_do() -> None:
    inner = EagerEngine(pocket_network(), name="pocket", device=GPU, dtype=torch.float32)
    recorded = cuda_engine(pocket_network(), name="pocket", device=GPU, dtype=torch.float32)
    tracker = start(recorded)
    found, wanted = play(tracker, 30), play(start(recorded_engine(inner, None, CudaOptions())), 30)
    assert_near(found, wanted, 0.01)
    tapes = [one.tape for one in tracker.steps._recordings.values()]
    assert tapes and all(tape is not None for tape in tapes), "everything was recorded"


def test_a_gpu_in_float16_tracks_as_a_cpu_in_float32() -> None:
    found = play(start(cuda_engine(pocket_network(), name="pocket", device=GPU, dtype=torch.float16)), 30)
    assert_near(found, play(start(pocket_engine()), 30), 0.1)


def test_nothing_is_allocated_after_warm_up() -> None:
    network = build_model("nano", None)
    tracker = start(cuda_engine(network, name="nano", device=GPU, dtype=torch.float16))
    play(tracker, FULL_AFTER + 4)
    allocated, most = [], []
    for _ in range(4):
        torch.cuda.reset_peak_memory_stats()
        play(tracker, 25)
        allocated.append(torch.cuda.memory_allocated())
        most.append(torch.cuda.memory_reserved())
    assert len(set(allocated)) == 1 and len(set(most)) == 1, (allocated, most)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_of_this_card_at_the_real_shape(dtype: torch.dtype) -> None:
    """`pytest -s` shows them all; some may be refused, PyTorch's own choice never."""
    trials = try_kernels(candidates(GPU, dtype), inputs_of(TINY, GPU, dtype), timer=cuda_milliseconds)
    for trial in trials:
        print(trial.text)
    assert not trials[0].reason


def test_all_programs_of_an_engine_are_recorded() -> None:
    engine = cuda_engine(build_model("nano", None), name="nano", device=GPU, dtype=torch.float16)
    assert isinstance(engine, ProgrammedEngine)
    for count in engine.frame_buckets:
        first = engine.encode(torch.zeros(count, 3, engine.spec.image_size, engine.spec.image_size, device=GPU))
        again = engine.encode(torch.zeros(count, 3, engine.spec.image_size, engine.spec.image_size, device=GPU))
        assert [x.data_ptr() for x in first] == [x.data_ptr() for x in again], "a recording's outputs stay in place"
