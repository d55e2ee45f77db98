"""Parity with the official `SAM2VideoPredictor` on the same weights and frames: the definition of correct.

Both run in fp32 on the CPU; both store memories in bfloat16. Random weights have their time embeddings scaled by 20,
or they would hardly see their memory, and their object score lifted, or there would be no masks; the trained nano runs
as it is. Measured: max |a - b| is up to 3e-6 of max |b| with random weights. With the trained ones it is 1e-6 to 7e-6
at the median frame and 1.1e-4 at the worst of 400 with two threads of torch, 2.5e-4 with one: a value that differs in
its seventh digit now and then rounds to the neighbouring bfloat16 when it is stored, and a trained network amplifies
that. So the trained weights have a tolerance of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from official import Event, Record, Scenario, lifted_network, make_frames, official_predictor, run_official
from sam2.modeling.sam2_base import SAM2Base

from engines.eager import EagerEngine
from engines.spec import FrameFeatures, MemoryRead, Segmentation
from engines.weights import build_model
from stream.tracker import Tracker, TrackerOptions

TOLERANCE, TRAINED_TOLERANCE = 2e-4, 5e-4
NUM_FRAMES = 40


def make_engine(model: str, network: SAM2Base) -> EagerEngine:
    return EagerEngine(network, name=model, device=torch.device("cpu"), dtype=torch.float32)


def note_step(record: Record, tracker: Tracker, frame: np.ndarray) -> None:
    """Process one frame and keep what the official record keeps."""
    masks = tracker.step(frame)
    ids = masks.object_ids
    record.logits.append(dict(zip(ids, tracker.steps.results.part(0, len(ids))[0].numpy().copy(), strict=True)))
    record.scores.append(dict(zip(ids, masks.scores.tolist(), strict=True)))
    record.full.append(dict(zip(ids, masks.masks_nhw, strict=True)))


def run_ours(engine: EagerEngine, scenario: Scenario, *, max_cond_frames: int = 6) -> Record:
    tracker = Tracker(engine, TrackerOptions(max_cond_frames=max_cond_frames))
    record = Record()
    for time, frame in enumerate(scenario.frames):
        for event in scenario.events:
            if event.time == time and event.kind != "downgrade":
                act = tracker.add if event.kind == "add" else tracker.refine
                act(event.object_id, points=event.points, box=event.box, mask=event.mask)
        note_step(record, tracker, frame)
    return record


def assert_parity(official: Record, ours: Record, tolerance: float = TOLERANCE) -> None:
    for time, wanted in enumerate(official.logits):
        assert set(wanted) == set(ours.logits[time]), f"objects on frame {time}"
        for object_id, logits in wanted.items():
            where = f"object {object_id} on frame {time}"
            error = np.abs(logits - ours.logits[time][object_id]).max() / np.abs(logits).max()
            assert error <= tolerance, f"{where}: logits differ by {error:.2e} of their maximum"
            assert (official.scores[time][object_id] > 0) == (ours.scores[time][object_id] > 0), (
                f"{where}: score decision"
            )
            _assert_same_mask(official.full[time][object_id], ours.full[time][object_id], where)


def _assert_same_mask(logits: np.ndarray, mask: np.ndarray, where: str) -> None:
    wanted = logits > 0
    clear = np.abs(logits) > 1e-3 * np.abs(logits).max()
    assert (wanted == mask)[clear].all(), f"{where}: mask bits"
    if wanted.sum() > 2000:
        iou = (wanted & mask).sum() / (wanted | mask).sum()
        assert iou >= 0.999, f"{where}: IoU {iou}"


def box_around(mask: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


def make_scenario(name: str, folder: Path, size: int, count: int) -> Scenario:
    frames, clip = make_frames(folder, size, count)
    (x, y), other = clip.click(0), clip.click(1)
    click = Event(0, "add", 1, points=((x, y, 1),))
    middle = count // 3
    late = (*clip.click(1, middle), 1)
    events = {
        "point": (click,),
        "points": (Event(0, "add", 1, points=((x, y, 1), (x + 3, y + 2, 1), (1.0, 1.0, 0))),),
        "box": (Event(0, "add", 1, box=box_around(clip.masks(0)[0])),),
        "box and point": (Event(0, "add", 1, points=((x, y, 1),), box=box_around(clip.masks(0)[0])),),
        "mask": (Event(0, "add", 1, mask=clip.masks(0)[0]),),
        "two objects": (click, Event(0, "add", 2, points=((*other, 1),))),
        "second object": (click, Event(middle, "add", 2, points=(late,))),
        "refined": (click, Event(middle, "refine", 1, points=((x + 5, y, 1), (2.0, 2.0, 0)))),
        "refined by mask": (click, Event(middle, "refine", 1, mask=clip.masks(middle)[0])),
        "prompted again": (click, Event(middle, "add", 1, box=box_around(clip.masks(middle)[0]))),
    }
    return Scenario(name, frames, folder, events[name])


SCENARIOS = (
    "point", "points", "box", "box and point", "mask", "two objects", "second object", "refined", "refined by mask",
    "prompted again",
)  # fmt: skip


@pytest.fixture(scope="module")
def random_nano() -> SAM2Base:
    return lifted_network("nano", seed=3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_random_nano_equals_official(name: str, random_nano: SAM2Base, tmp_path: Path) -> None:
    scenario = make_scenario(name, tmp_path, random_nano.image_size, NUM_FRAMES)
    assert_parity(
        run_official(official_predictor("nano", random_nano), scenario),
        run_ours(make_engine("nano", random_nano), scenario),
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_trained_nano_equals_official(name: str, tmp_path: Path) -> None:
    network = build_model("nano")
    scenario = make_scenario(name, tmp_path, network.image_size, NUM_FRAMES)
    assert_parity(
        run_official(official_predictor("nano", network), scenario),
        run_ours(make_engine("nano", network), scenario),
        TRAINED_TOLERANCE,
    )


def flips_of(record: Record) -> tuple[int, int]:
    """How often any object appeared, and how often one vanished."""
    visible = np.array([[frame[i] > 0 for i in (1, 2)] for frame in record.scores], np.int8)
    change = np.diff(visible, axis=0)
    return int((change > 0).sum()), int((change < 0).sum())


def test_an_object_that_comes_and_goes_equals_official(tmp_path: Path) -> None:
    """The score's bias at its median, so that the gate flips both ways again and again; the first seed that does it."""
    scenario = make_scenario("two objects", tmp_path, build_model("nano", random_seed=0).image_size, NUM_FRAMES)
    for seed in range(8):
        probe = lifted_network("nano", seed=seed, score_gain=300.0)
        scores = [
            s for frame in run_official(official_predictor("nano", probe), scenario).scores for s in frame.values()
        ]
        network = lifted_network("nano", seed=seed, score_gain=300.0, score_bias=3.0 - float(np.median(scores)))
        official = run_official(official_predictor("nano", network), scenario)
        if min(flips_of(official)) >= 5:
            break
    assert min(flips_of(official)) >= 5, "the gate must flip both ways"
    assert_parity(official, run_ours(make_engine("nano", network), scenario))


def test_an_evicted_prompt_is_remembered_as_a_recent_frame(random_nano: SAM2Base, tmp_path: Path) -> None:
    frames, clip = make_frames(tmp_path, random_nano.image_size, 20)
    first = Event(0, "add", 1, points=((*clip.click(0), 1),))
    again = Event(3, "add", 1, points=((*clip.click(0, 3), 1),))
    scenario = Scenario("evicted", frames, tmp_path, (first, again, Event(3, "downgrade", 1)))
    official = run_official(official_predictor("nano", random_nano), scenario)
    assert_parity(official, run_ours(make_engine("nano", random_nano), scenario, max_cond_frames=1))


def test_a_click_changes_the_frames_after_it(random_nano: SAM2Base, tmp_path: Path) -> None:
    frames, clip = make_frames(tmp_path, random_nano.image_size, 20)
    click = Event(0, "add", 1, points=((*clip.click(0), 1),))
    correction = Event(8, "refine", 1, points=((5.0, 5.0, 0), (*clip.click(0, 8), 1)))
    engine = make_engine("nano", random_nano)
    plain = run_ours(engine, Scenario("plain", frames, tmp_path, (click,)))
    refined = run_ours(engine, Scenario("refined", frames, tmp_path, (click, correction)))
    for time in range(20):
        same = np.array_equal(plain.logits[time][1], refined.logits[time][1])
        assert same == (time < 8), f"frame {time}"


@pytest.mark.timeout(900)
def test_tiny_at_1024_equals_official(tmp_path: Path) -> None:
    network = lifted_network("sam2.1-hiera-tiny", seed=1)
    scenario = make_scenario("two objects", tmp_path, network.image_size, 10)
    official = run_official(official_predictor("sam2.1-hiera-tiny", network), scenario)
    assert_parity(official, run_ours(make_engine("sam2.1-hiera-tiny", network), scenario))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "model",
    ["sam2-hiera-tiny", "sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large", "sam2-hiera-large"],
)
def test_every_size_equals_official(model: str, tmp_path: Path) -> None:
    network = lifted_network(model, seed=1)
    scenario = make_scenario("two objects", tmp_path, network.image_size, 4)
    official = run_official(official_predictor(model, network), scenario)
    assert_parity(official, run_ours(make_engine(model, network), scenario))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["second object", "refined", "mask"])
def test_more_of_tiny_at_1024_equals_official(name: str, tmp_path: Path) -> None:
    network = lifted_network("sam2.1-hiera-tiny", seed=2)
    scenario = make_scenario(name, tmp_path, network.image_size, 9)
    official = run_official(official_predictor("sam2.1-hiera-tiny", network), scenario)
    assert_parity(official, run_ours(make_engine("sam2.1-hiera-tiny", network), scenario))


class MutantEngine(EagerEngine):
    """An engine with one fault."""

    fault: str

    def track(
        self, frames: FrameFeatures, row_frame_b: torch.Tensor, read: MemoryRead
    ) -> tuple[Segmentation, torch.Tensor]:
        if self.fault == "time order reversed":
            recent = read.memory_time_bm < 6
            count = recent.sum(dim=1, keepdim=True)
            read = read._replace(
                memory_time_bm=torch.where(recent, count - 1 - read.memory_time_bm, read.memory_time_bm)
            )
        if self.fault == "one pointer missing" and read.pointers_bpc.shape[1] > 2:
            read = read._replace(pointers_bpc=read.pointers_bpc[:, :-1], pointer_pos_bpc=read.pointer_pos_bpc[:, :-1])
        if self.fault == "two rows swapped":
            read = read._replace(memory_bmnc=read.memory_bmnc.flip(0), pointers_bpc=read.pointers_bpc.flip(0))
        found, conditioned = super().track(frames, row_frame_b, read)
        if self.fault == "memory one frame old":
            old, self.old = getattr(self, "old", found.memory_bnc), found.memory_bnc
            found = found._replace(memory_bnc=old)
        return found, conditioned


FAULTS: dict[str, Callable[[MutantEngine], None]] = {
    "time order reversed": lambda engine: None,
    "one pointer missing": lambda engine: None,
    "memory one frame old": lambda engine: None,
    "two rows swapped": lambda engine: None,
    "mask scale forgotten": lambda engine: [
        setattr(engine._track.remember, "scale", 1.0),
        setattr(engine._track.remember, "bias", 0.0),
    ],
}


# the trained nano hardly reads a single one of its pointers: there the loss of one stays below the tolerance
CASES = [(fault, weights) for fault in FAULTS for weights in ("random", "trained")]
CASES.remove(("one pointer missing", "trained"))


@pytest.mark.parametrize(("fault", "weights"), CASES)
def test_a_faulty_tracker_fails_the_parity_test(
    fault: str, weights: str, random_nano: SAM2Base, tmp_path: Path
) -> None:
    network = random_nano if weights == "random" else build_model("nano")
    scenario = make_scenario("two objects", tmp_path, network.image_size, 16)
    official = run_official(official_predictor("nano", network), scenario)
    assert_parity(official, run_ours(make_engine("nano", network), scenario))
    engine = MutantEngine(network, name="nano", device=torch.device("cpu"), dtype=torch.float32)
    engine.fault = fault
    FAULTS[fault](engine)
    with pytest.raises(AssertionError):
        assert_parity(official, run_ours(engine, scenario))
