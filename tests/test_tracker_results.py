"""What a step gives back and depends on: nothing is aliased, states follow time, number formats, and two more ways to
prompt in parity with the official predictor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from official import (
    Event,
    Record,
    Scenario,
    iou_between,
    lifted_network,
    make_frames,
    official_predictor,
    real_clip,
    run_official,
)
from pocket import Frames, OneByOne, assert_same, clip_frames, pocket_engine
from test_parity import assert_parity, make_engine, note_step
from torch import Tensor

from engines.eager import EagerEngine
from engines.spec import FrameFeatures, MemoryRead, Segmentation
from stream.frame import Masks, ObjectState
from stream.tracker import Tracker, TrackerOptions
from stream.verdict import LOST_AFTER_NS


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip_frames(1, 12)


@pytest.fixture(scope="module")
def engine() -> OneByOne:
    return OneByOne()


def start(engine: EagerEngine) -> Tracker:
    tracker = Tracker(engine)
    tracker.add(1, points=[(50, 40, 1)])
    tracker.add(2, box=(20, 20, 60, 70))
    return tracker


def copy_of(masks: Masks) -> Masks:
    names = ("scores", "ious", "boxes_n4", "areas", "centroids_n2", "packed_nhb")
    return replace(masks, **{name: getattr(masks, name).copy() for name in names})


# ---- whose memory it is


def test_results_stay_as_they_were_while_the_tracker_goes_on(engine: OneByOne, frames: Frames) -> None:
    tracker, kept = start(engine), []
    for time, frame in enumerate(frames):
        masks = tracker.step(frame, time_ns=time)
        kept.append((masks, copy_of(masks)))
    tracker.reset()
    tracker.add(5, points=[(9, 9, 1)])
    tracker.step(frames[0])
    for masks, copied in kept:
        assert_same(masks, copied)


def test_the_caller_may_write_into_a_result(engine: OneByOne, frames: Frames) -> None:
    spoiled, plain = start(engine), start(engine)
    for time, frame in enumerate(frames[:6]):
        wanted, masks = plain.step(frame, time_ns=time), spoiled.step(frame, time_ns=time)
        assert_same(wanted, masks)
        for array in (masks.scores, masks.ious, masks.boxes_n4, masks.areas, masks.centroids_n2, masks.packed_nhb):
            array.fill(99)


@pytest.mark.parametrize("size", [(64, 64), (96, 112)])
def test_the_picture_may_be_overwritten_once_the_call_returned(size: tuple[int, int], engine: OneByOne) -> None:
    """A ring slot is written again; also before the result was asked for. 64 x 64 needs no resize."""
    tried, plain = start(engine), start(engine)
    for tracker in (tried, plain):
        tracker.remove(2)
    slot = np.empty((*size, 3), np.uint8)
    for time, frame in enumerate(clip_frames(2, 6)):
        frame = np.ascontiguousarray(frame[: size[0], : size[1]])
        slot[:] = frame
        pending = tried.launch({"": slot}, {"": time})[""]
        slot.fill(255)
        assert_same(plain.step(frame, time_ns=time), pending.resolve())


def test_results_may_be_asked_for_late(engine: OneByOne, frames: Frames) -> None:
    tried, plain = start(engine), start(engine)
    pending = [tried.launch({"": frame}, {"": time})[""] for time, frame in enumerate(frames[:5])]
    tried.rename(1, 70)
    for time, frame in enumerate(frames[:5]):
        assert_same(plain.step(frame, time_ns=time), pending[time].resolve())


def test_the_prompts_arrays_may_be_overwritten_at_once(engine: OneByOne, frames: Frames) -> None:
    mask, points = np.zeros((96, 112), np.bool_), np.array([[50.0, 40.0, 1.0]])
    mask[20:60, 30:80] = True
    tried, plain = Tracker(engine), Tracker(engine)
    for tracker in (plain, tried):
        tracker.add(1, mask=mask)
        tracker.add(2, points=points)
    mask.fill(False)
    points.fill(0)
    assert_same(plain.step(frames[0], time_ns=0), tried.step(frames[0], time_ns=0))
    assert (plain.step(frames[1]).scores > 0).all()


# ---- states


class Scripted(OneByOne):
    """Tells a score for every tracked frame."""

    scores: tuple[float, ...] = ()

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        found, conditioned = super().track(frames, row_frame_b, read)
        score, self.scores = self.scores[0], self.scores[1:]
        return found._replace(scores_b=torch.full_like(found.scores_b, score)), conditioned


def test_an_object_is_tracked_then_occluded_then_lost_and_found_again(frames: Frames) -> None:
    engine = Scripted()
    engine.scores = (0.5, -1.0, 0.0, -3.0, -3.0, 2.0, -1.0)
    tracker = Tracker(engine)
    tracker.add(1, points=[(50, 40, 1)])
    assert tracker.step(frames[0], time_ns=0).states == (ObjectState.TRACKED,)
    second = 1_000_000_000
    times = (second, 2 * second, second + LOST_AFTER_NS, second + LOST_AFTER_NS + 1, 60 * second, 61 * second)
    states = [tracker.step(frames[1], time_ns=time).states[0].value for time in (*times, 61 * second + LOST_AFTER_NS)]
    assert states == ["tracked", "occluded", "occluded", "lost", "lost", "reacquired", "occluded"]


def test_an_object_seen_only_in_its_prompt_is_lost_two_seconds_after_it(frames: Frames) -> None:
    engine = Scripted()
    engine.scores = (-1.0, -1.0)
    tracker = Tracker(engine)
    tracker.add(1, mask=np.eye(96, 112, dtype=np.bool_))
    first = tracker.step(frames[0], time_ns=5)
    assert first.states == (ObjectState.TRACKED,), "a mask prompt is what is seen"
    states = [tracker.step(frames[1], time_ns=5 + time).states[0] for time in (LOST_AFTER_NS, LOST_AFTER_NS + 1)]
    assert states == [ObjectState.OCCLUDED, ObjectState.LOST]


def test_every_camera_has_its_own_time(frames: Frames) -> None:
    engine = Scripted()
    engine.scores = (-1.0,)
    tracker = Tracker(engine)
    for camera in ("a", "b"):
        tracker.add(1, points=[(50, 40, 1)], camera=camera)
    images = {"a": frames[0], "b": frames[0]}
    for times in ({"a": 0, "b": 0}, {"a": LOST_AFTER_NS, "b": LOST_AFTER_NS + 1}):
        states = {camera: pending.resolve().states[0] for camera, pending in tracker.launch(images, times).items()}
    assert states == {"a": ObjectState.OCCLUDED, "b": ObjectState.LOST}


# ---- number formats


def test_memories_are_stored_in_bfloat16_also_in_float32(frames: Frames) -> None:
    rounding, exact = OneByOne(), OneByOne()
    exact.memory_dtype = torch.float32
    one, other = start(rounding), start(exact)
    assert one._bank.store.memory_snc.dtype is torch.bfloat16 and other._bank.store.memory_snc.dtype is torch.float32
    scores = [(one.step(frame).scores, other.step(frame).scores) for frame in frames[:4]]
    assert np.array_equal(*scores[0]), "the first frame reads no memory"
    assert not np.array_equal(*scores[3])
    np.testing.assert_allclose(*scores[3], rtol=0.05)
    stored = other._bank.store.memory_snc[other._bank.slots.num_memories * other._objects["", 1].row + 2]
    assert torch.equal(
        stored.bfloat16(), one._bank.store.memory_snc[one._bank.slots.num_memories * one._objects["", 1].row + 2]
    )


@pytest.mark.parametrize(
    ("dtype", "memory"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16)],
)
def test_every_dtype_has_its_memory(dtype: torch.dtype, memory: torch.dtype) -> None:
    assert pocket_engine(dtype=dtype).memory_dtype is memory


def test_bfloat16_on_the_cpu_gives_the_masks_of_float32() -> None:
    """The trained nano; `../shared/clips/coffee.mp4` beside the repository where it exists, else a generated clip.

    Measured: 0.999 on the one, 0.997 on the other.
    """
    frames, click = real_clip(40)
    runs = []
    for dtype in ("fp32", "bf16"):
        tracker = Tracker.load("nano", device="cpu", dtype=dtype)
        tracker.add(1, points=[(*click, 1)])
        runs.append([tracker.step(frame).masks_nhw[0] for frame in frames])
    ious = [iou_between(a, b) for a, b in zip(*runs, strict=True)]
    print(f"mask IoU between bf16 and fp32: mean {np.mean(ious):.4f}, least {min(ious):.4f}")
    assert np.mean([mask.any() for mask in runs[0]]) > 0.5, "the object must be seen"
    assert np.mean(ious) >= 0.98


# ---- parity, continued


def run_twice_prompted(engine: EagerEngine, scenario: Scenario, options: TrackerOptions) -> Record:
    """As `run_ours`, but an `add` of an object that waits for its first frame is our `refine`."""
    tracker, record = Tracker(engine, options), Record()
    for time, frame in enumerate(scenario.frames):
        for event in (event for event in scenario.events if event.time == time):
            known = event.object_id in tracker.object_ids()
            (tracker.refine if known else tracker.add)(event.object_id, points=event.points, box=event.box)
        note_step(record, tracker, frame)
    return record


@pytest.mark.parametrize("second", ["points", "box"])
def test_a_correction_before_the_first_frame_equals_a_second_official_prompt(second: str, tmp_path: Path) -> None:
    network = lifted_network("nano", seed=3)
    frames, clip = make_frames(tmp_path, network.image_size, 12)
    x, y = clip.click(0)
    correction = {"points": ((x + 4, y, 1), (2.0, 2.0, 0))} if second == "points" else {"box": (x - 9, y - 9, x + 9, y)}
    events = (Event(0, "add", 1, points=((x, y, 1),)), Event(0, "add", 1, **correction))
    scenario = Scenario(second, frames, tmp_path, events)
    official = run_official(official_predictor("nano", network), scenario)
    assert_parity(official, run_twice_prompted(make_engine("nano", network), scenario, TrackerOptions()))
    once = run_official(official_predictor("nano", network), replace(scenario, events=events[1:]))
    with pytest.raises(AssertionError):
        assert_parity(official, once)


def test_corrections_kept_as_prompts_equal_the_official_option(tmp_path: Path) -> None:
    """`add_all_frames_to_correct_as_cond`: a corrected frame becomes a conditioning frame."""
    network = lifted_network("nano", seed=3)
    frames, clip = make_frames(tmp_path, network.image_size, 24)
    (x, y), (u, v) = clip.click(0), clip.click(0, 7)
    events = (
        Event(0, "add", 1, points=((x, y, 1),)),
        Event(7, "refine", 1, points=((u + 3, v, 1), (2.0, 2.0, 0))),
        Event(9, "refine", 1, box=(u - 12, v - 12, u + 12, v + 12)),
    )
    scenario = Scenario("as cond", frames, tmp_path, events)
    predictor = official_predictor("nano", network)
    predictor.add_all_frames_to_correct_as_cond = True
    official, engine = run_official(predictor, scenario), make_engine("nano", network)
    assert_parity(official, run_twice_prompted(engine, scenario, TrackerOptions(6, refine_as_cond=True)))
    with pytest.raises(AssertionError):
        assert_parity(official, run_twice_prompted(engine, scenario, TrackerOptions(6)))
