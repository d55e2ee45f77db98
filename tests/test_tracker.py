"""The tracker's book-keeping: objects of any age on any camera do not feel each other, and bad input harms nothing.
Most tests compute every row by itself (`OneByOne`), so that equal means equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from pocket import Frames, OneByOne, assert_same, clip_frames, pocket_engine

from engines.eager import EagerEngine
from stream.device import OptionError
from stream.frame import Masks
from stream.prompt import PromptError
from stream.tracker import Tracker, TrackerOptions, load_engine

HEIGHT, WIDTH = 96, 112
Lives = dict[tuple[str, int, int], Masks]  # camera, object, frame


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip_frames(1, 16)


@pytest.fixture(scope="module")
def engine() -> OneByOne:
    return OneByOne()


def part_of(masks: Masks, object_id: int) -> Masks:
    """One object's share of a result."""
    index = masks.object_ids.index(object_id)
    part = {
        f.name: getattr(masks, f.name)[index : index + 1] for f in fields(Masks) if f.name not in ("height", "width")
    }
    return Masks(masks.height, masks.width, **part)


def start(engine: EagerEngine, object_ids: Sequence[int] = (1, 2, 3), **options: Any) -> Tracker:
    """Objects with different prompts, waiting for their first frame."""
    tracker = Tracker(engine, TrackerOptions(**options))
    for index in object_ids:
        tracker.add(index, **prompt_of(index))
    return tracker


def prompt_of(index: int) -> dict[str, Any]:
    """Points, a box or a mask, in turn."""
    x, y = 10.0 + 7 * index % 90, 20.0 + 11 * index % 70
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[int(y) - 15 : int(y) + 15, int(x) : int(x) + 20] = True
    return ({"mask": mask}, {"points": [(x, y, 1)]}, {"box": (x - 8, y - 9, x + 12, y + 13)})[index % 3]


def step_at(tracker: Tracker, frame: np.ndarray, time: int) -> Masks:
    return tracker.step(frame, time_ns=time * 33_000_000)


# ---- objects do not feel each other


@dataclass(frozen=True)
class Life:
    """One object: where it lives, when it is added, and when it is corrected."""

    camera: str
    object_id: int
    born: int
    corrected: int | None = None


LIVES = (
    Life("a", 1, 0), Life("a", 2, 0, 9), Life("b", 1, 0), Life("a", 3, 3), Life("c", 1, 4, 5), Life("b", 2, 7, 17),
    Life("c", 2, 11), Life("d", 1, 14, 16), Life("a", 4, 14),
)  # fmt: skip


CLIPS = {camera: clip_frames(5 + index, 19) for index, camera in enumerate("abcd")}


def play(engine: EagerEngine, lives: Sequence[Life]) -> Lives:
    """The cameras' clips through one tracker."""
    tracker, results = Tracker(engine), {}
    for time in range(19):
        for life in lives:
            if life.born == time:
                tracker.add(life.object_id, camera=life.camera, **prompt_of(life.object_id + time))
            if life.corrected == time:
                tracker.refine(life.object_id, camera=life.camera, points=[(50, 40, 1), (3, 3, 0)])
        cameras = sorted({life.camera for life in lives})
        pending = tracker.launch({c: CLIPS[c][time] for c in cameras}, dict.fromkeys(cameras, time))
        for camera, masks in ((camera, pending[camera].resolve()) for camera in cameras):
            results |= {(camera, i, time): part_of(masks, i) for i in masks.object_ids}
    return results


@pytest.fixture(scope="module")
def alone(engine: OneByOne) -> Lives:
    """Every object in a tracker of its own."""
    return {key: masks for life in LIVES for key, masks in play(engine, [life]).items()}


def test_objects_of_mixed_ages_on_several_cameras_live_as_if_alone(engine: OneByOne, alone: Lives) -> None:
    together = play(engine, LIVES)
    assert together.keys() == alone.keys()
    for key, masks in together.items():
        assert_same(masks, alone[key])


def test_a_real_batch_computes_what_each_row_computes_alone(alone: Lives) -> None:
    """Batches may round differently, but not so that a mask changes."""
    for key, masks in play(pocket_engine(), LIVES).items():
        np.testing.assert_allclose(masks.scores, alone[key].scores, rtol=1e-5)
        np.testing.assert_allclose(masks.ious, alone[key].ious, rtol=1e-5)
        np.testing.assert_array_equal(masks.packed_nhb, alone[key].packed_nhb)


ROWS, FRAMES = (1, 2, 4, 8, 16), (1, 2, 4, 8)


@pytest.mark.parametrize(("rows", "frames"), [(ROWS, FRAMES), ((1, 2, 4), (1, 2)), ((4,), (3,))])
def test_padding_a_batch_to_what_the_engine_takes_changes_nothing(
    rows: tuple[int, ...], frames: tuple[int, ...], alone: Lives
) -> None:
    padding = OneByOne()
    padding.row_buckets, padding.frame_buckets = rows, frames
    for key, masks in play(padding, LIVES).items():
        assert_same(masks, alone[key])
    assert set(padding.row_batches) <= set(rows) and set(padding.frame_batches) <= set(frames)


def remove_and_add(tracker: Tracker) -> None:
    tracker.remove(2)
    tracker.add(2, points=[(60, 60, 1)])


ACTS: dict[str, Callable[[Tracker], None]] = {
    "add a new one": lambda tracker: tracker.add(9, points=[(30, 30, 1)]),
    "prompt again": lambda tracker: tracker.add(2, box=(20, 20, 70, 80)),
    "refine": lambda tracker: tracker.refine(2, points=[(40, 40, 0), (50, 60, 1)]),
    "refine by mask": lambda tracker: tracker.refine(2, **prompt_of(3)),
    "remove": lambda tracker: tracker.remove(2),
    "remove and add": remove_and_add,
    "rename": lambda tracker: tracker.rename(2, 77),
    "reset another camera": lambda tracker: tracker.reset("b"),
    "add on another camera": lambda tracker: tracker.add(1, points=[(5, 5, 1)], camera="b"),
}


@pytest.mark.parametrize("as_cond", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_what_is_done_to_one_object_leaves_the_others_as_they_are(
    act: str, as_cond: bool, engine: OneByOne, frames: Frames
) -> None:
    plain, changed = (start(engine, refine_as_cond=as_cond) for _ in range(2))
    for tracker in (plain, changed):
        tracker.add(1, points=[(9, 9, 1)], camera="b")
    for time, frame in enumerate(frames[:9]):
        if time == 4:
            ACTS[act](changed)
        wanted, found = (step_at(tracker, frame, time) for tracker in (plain, changed))
        for object_id in (1, 3):
            assert_same(part_of(wanted, object_id), part_of(found, object_id))


def test_a_renamed_object_keeps_its_memory_and_place(engine: OneByOne, frames: Frames) -> None:
    plain, renamed = start(engine), start(engine)
    for time, frame in enumerate(frames[:10]):
        if time == 5:
            renamed.rename(2, 55)
        wanted, found = step_at(plain, frame, time), step_at(renamed, frame, time)
        assert found.object_ids == ((1, 55, 3) if time >= 5 else (1, 2, 3)) == renamed.object_ids()
        np.testing.assert_array_equal(wanted.scores, found.scores)
        np.testing.assert_array_equal(wanted.packed_nhb, found.packed_nhb)


def test_an_id_that_comes_again_starts_anew(engine: OneByOne, frames: Frames) -> None:
    used, fresh = start(engine, [1]), Tracker(engine)
    for time, frame in enumerate(frames[:8]):
        step_at(used, frame, time)
    used.remove(1)
    for tracker in (used, fresh):
        tracker.add(1, points=[(44, 33, 1)])
    for time, frame in enumerate(frames[8:16], start=8):
        assert_same(step_at(used, frame, time), step_at(fresh, frame, time))


def test_reset_forgets_one_camera_or_all(engine: OneByOne, frames: Frames) -> None:
    tracker = start(engine)
    tracker.add(1, points=[(5, 5, 1)], camera="b")
    assert tracker.num_objects == 4
    tracker.reset("b")
    assert tracker.object_ids("b") == () and tracker.object_ids() == (1, 2, 3)
    tracker.reset()
    assert tracker.num_objects == 0 and tracker._bank.num_rows == 0
    assert tracker.step(frames[0]).object_ids == ()


def test_of_two_prompts_for_a_frame_the_last_counts(engine: OneByOne, frames: Frames) -> None:
    wavering, sure = start(engine), start(engine)
    for time, frame in enumerate(frames[:6]):
        if time == 3:
            wavering.refine(2, points=[(9, 9, 1)])
            wavering.add(2, points=[(8, 8, 1)])
            wavering.refine(3, points=[(7, 7, 1)])
            for tracker in (wavering, sure):
                tracker.add(2, points=[(60, 50, 1)])  # also forgets the correction that waited
                tracker.refine(3, points=[(30, 50, 0)])
        assert_same(step_at(wavering, frame, time), step_at(sure, frame, time))


# ---- many objects, many cameras, many sizes


def test_more_objects_than_a_batch_holds(engine: OneByOne, frames: Frames) -> None:
    ids = range(1, 20)
    tracker = start(engine, ids)
    alone = {i: start(engine, [i]) for i in (1, 16, 17, 19)}
    engine.row_batches.clear()
    for time, frame in enumerate(frames[:4]):
        masks = step_at(tracker, frame, time)
        assert masks.object_ids == tuple(ids)
        for object_id, single in alone.items():
            assert_same(part_of(masks, object_id), step_at(single, frame, time))
    assert max(engine.row_batches) == 16


def test_more_cameras_than_a_batch_holds(engine: OneByOne) -> None:
    """Each with its own picture size; one batch of 8 and one of 3, and every camera gets what is its own."""
    cameras = {f"cam{i}": clip_frames(i, 3, 90 + 2 * i, 100 + 5 * i) for i in range(11)}
    together = Tracker(engine)
    alone = {name: Tracker(engine) for name in cameras}
    for name, single in alone.items():
        together.add(1, points=[(33, 44, 1)], camera=name)
        single.add(1, points=[(33, 44, 1)])
    engine.frame_batches.clear()
    for time in range(3):
        pending = together.launch({n: clip[time] for n, clip in cameras.items()}, dict.fromkeys(cameras, time))
        assert engine.frame_batches == [8, 3]
        for name, clip in cameras.items():
            assert_same(pending[name].resolve(), alone[name].step(clip[time], time_ns=time))
        engine.frame_batches.clear()


def test_a_camera_without_objects_is_not_encoded(engine: OneByOne, frames: Frames) -> None:
    tracker = start(engine, [1])
    engine.frame_batches.clear()
    pending = tracker.launch({"": frames[0], "idle": frames[0][:40]}, {"": 0, "idle": 0})
    assert engine.frame_batches == [1]
    idle = pending["idle"].resolve()
    assert (idle.height, idle.width, idle.object_ids, idle.packed_nhb.shape) == (40, WIDTH, (), (0, 40, 14))
    tracker.launch({"idle": frames[0]}, {})
    assert engine.frame_batches == [1] and tracker._bank.age(1) == 1


def test_another_resolution_keeps_the_memory_and_masks_have_its_size(engine: OneByOne) -> None:
    """Pictures of one colour look the same to the model at any size, so the scores must be the same too."""
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (10, 3))
    sizes = [(64, 64)] * 4 + [(480, 640)] * 3 + [(50, 33)] + [(64, 64)] * 2
    steady, varied = start(engine, [1, 4]), start(engine, [1, 4])
    for tracker in (steady, varied):
        tracker.reset()
        tracker.add(1, points=[(20, 30, 1)])
        tracker.add(4, box=(10, 20, 50, 40))
    for time, (colour, size) in enumerate(zip(colours, sizes, strict=True)):
        wanted = step_at(steady, np.full((64, 64, 3), colour, np.uint8), time)
        found = step_at(varied, np.full((*size, 3), colour, np.uint8), time)
        np.testing.assert_array_equal(wanted.scores, found.scores)
        assert found.masks_nhw.shape == (2, *size) and found.packed_nhb.shape[2] == -(-size[1] // 8)
        assert found.areas.sum() / (size[0] * size[1]) == pytest.approx(wanted.areas.sum() / 64**2, abs=0.05)


# ---- bad input


BAD_CALLS: dict[str, tuple[Callable[[Tracker], Any], str]] = {
    "no prompt": (lambda t: t.add(9), "no points, box or mask"),
    "NaN": (lambda t: t.refine(1, points=[(float("nan"), 1, 1)]), "finite numbers"),
    "bad label": (lambda t: t.add(9, points=[(1, 1, 7)]), "label 1 or 0"),
    "empty mask": (lambda t: t.add(9, mask=np.zeros((HEIGHT, WIDTH), np.bool_)), "no pixel set"),
    "misshaped mask": (lambda t: t.add(9, mask=np.ones((2, 2, 2), np.bool_)), "expected an array"),
    "mask and points": (lambda t: t.add(9, mask=np.ones((4, 4), np.bool_), points=[(1, 1, 1)]), "one or the other"),
    "refine an unknown id": (lambda t: t.refine(9, points=[(1, 1, 1)]), "there is no object 9; known ids: 1, 2, 3"),
    "refine on another camera": (lambda t: t.refine(1, points=[(1, 1, 1)], camera="b"), "known ids: none"),
    "remove an unknown id": (lambda t: t.remove(9), "there is no object 9"),
    "rename an unknown id": (lambda t: t.rename(9, 10), "there is no object 9"),
    "rename to an id in use": (lambda t: t.rename(1, 2), "object id 2 is in use"),
    "rename to a bad id": (lambda t: t.rename(1, -4), "object id is -4; expected a whole number"),
    "a bad id": (lambda t: t.add(-1, points=[(1, 1, 1)]), "object id is -1; expected a whole number"),
    "an id of a bad type": (lambda t: t.remove([1]), r"object id is \[1\]; expected a whole number"),
    "float picture": (lambda t: t.step(np.zeros((9, 9, 3))), r"the picture is float64 \(9, 9, 3\); expected uint8"),
    "grey picture": (lambda t: t.step(np.zeros((9, 9), np.uint8)), r"the picture is uint8 \(9, 9\)"),
    "RGBA picture": (lambda t: t.step(np.zeros((9, 9, 4), np.uint8)), r"the picture is uint8 \(9, 9, 4\)"),
    "picture without pixels": (lambda t: t.step(np.zeros((0, 9, 3), np.uint8)), r"the picture is uint8 \(0, 9, 3\)"),
    "no picture": (lambda t: t.step(None), "the picture is NoneType"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_says_why_and_changes_nothing(name: str, engine: OneByOne, frames: Frames) -> None:
    call, text = BAD_CALLS[name]
    tried, plain = start(engine), start(engine)
    for time, frame in enumerate(frames[:4]):
        with pytest.raises(ValueError, match=text):
            call(tried)
        assert_same(step_at(tried, frame, time), step_at(plain, frame, time))


OUTSIDE: dict[str, dict[str, Any]] = {
    "point": {"points": [(WIDTH + 1.0, 5, 1)]},
    "box": {"box": (WIDTH + 1, 0, WIDTH + 9, 9)},
    "mask of another size": {"mask": np.ones((HEIGHT, WIDTH + 1), np.bool_)},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_new_object_prompted_outside_the_picture_is_dropped_alone(
    name: str, engine: OneByOne, frames: Frames
) -> None:
    tried, plain = start(engine), start(engine)
    for time, frame in enumerate(frames[:6]):
        if time in (0, 3):
            tried.add(9, **OUTSIDE[name])
            with pytest.raises(PromptError, match="expected"):
                step_at(tried, frame, time)
            assert tried.object_ids() == (1, 2, 3)
        assert_same(step_at(tried, frame, time), step_at(plain, frame, time))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_correction_outside_the_picture_is_dropped_and_its_object_goes_on(
    name: str, engine: OneByOne, frames: Frames
) -> None:
    tried, plain = start(engine), start(engine)
    for time, frame in enumerate(frames[:6]):
        if time >= 3:
            tried.refine(2, **OUTSIDE[name])
            tried.add(3, **OUTSIDE[name]) if time == 4 else None
            for _ in range(2 if time == 4 else 1):
                with pytest.raises(PromptError, match="expected"):
                    step_at(tried, frame, time)
        assert_same(step_at(tried, frame, time), step_at(plain, frame, time))


def test_a_bad_prompt_on_one_camera_moves_no_other(engine: OneByOne, frames: Frames) -> None:
    tried, plain = (start(engine) for _ in range(2))
    for tracker in (tried, plain):
        tracker.add(1, points=[(9, 9, 1)], camera="b")
    for time, frame in enumerate(frames[:5]):
        images, times = {"": frame, "b": frame[::-1]}, {"": time, "b": time}
        if time == 2:
            tried.add(8, points=[(9, HEIGHT + 1.0, 1)], camera="b")
            with pytest.raises(PromptError, match="lies outside"):
                tried.launch(images, times)
        wanted, found = plain.launch(images, times), tried.launch(images, times)
        for camera in images:
            assert_same(wanted[camera].resolve(), found[camera].resolve())


@pytest.mark.parametrize("limit", [0, 8, -1])
def test_the_number_of_prompts_kept_has_limits(limit: int, engine: OneByOne) -> None:
    with pytest.raises(ValueError, match=f"max_cond_frames is {limit}; expected 1 to 7"):
        Tracker(engine, TrackerOptions(max_cond_frames=limit))


@pytest.mark.parametrize(("limit", "lengths"), [(1, (6, 12)), (2, (7, 12)), (7, (7, 12))])
def test_prompts_beyond_the_limit_only_replace_others(
    limit: int, lengths: tuple[int, int], engine: OneByOne, frames: Frames
) -> None:
    """Twelve prompted frames: of the last six those that were evicted count as recent."""
    tracker = start(engine, [1], max_cond_frames=limit)
    for time, frame in enumerate(frames[:12]):
        tracker.add(1, points=[(10.0 + time, 20, 1)])
        step_at(tracker, frame, time)
    assert tracker._bank.lengths(1) == lengths


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="backend is 'onnx'; expected eager, compiled"):
        load_engine("nano", backend="onnx")
    with pytest.raises(OptionError, match="device is 'tpu'"):
        Tracker.load("nano", device="tpu")
