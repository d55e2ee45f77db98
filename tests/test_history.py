"""Pictures of the past: what is kept and for how long, and that a prompt on one is as if it had come in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from convoy import BEHIND, OWN_WIDTH, RADIUS, Convoy, iou
from pocket import Frames, OneByOne, assert_same, clip_frames

from engines.spec import FrameFeatures
from stream.frame import Masks
from stream.history import MAX_OBJECTS, NUM_PICTURES, History
from stream.prompt import Prompt, checked_prompt
from stream.tracker import Tracker, TrackerOptions

CAMERA = "c"


def frame_of(value: float, dtype: torch.dtype = torch.float32) -> FrameFeatures:
    shapes = ((1, 8, 2, 2), (1, 1, 8, 8), (1, 2, 4, 4), (1, 4, 8))
    return FrameFeatures(*(torch.full(shape, value, dtype=dtype) for shape in shapes))


def kept(num: int, *, objects: tuple[str, ...] = ()) -> History:
    """A history that was given `num` pictures, whose values name them."""
    history = History()
    for index in range(num):
        history.put(CAMERA, ("mark", index), (48, 64), frame=frame_of(index))
        for item in objects:
            conditioned = torch.full((1, 8, 2, 2), index + 0.5)
            history.put_object(
                CAMERA, item, conditioned_1chw=conditioned, logits_1hw=torch.full((1, 8, 8), index + 0.25)
            )
    return history


# ---- the ring


@pytest.mark.parametrize("num", [1, NUM_PICTURES - 1, NUM_PICTURES, NUM_PICTURES + 1, 3 * NUM_PICTURES + 5])
def test_the_last_sixteen_pictures_are_kept_with_their_distance(num: int) -> None:
    history = kept(num, objects=("cup",))
    for index in range(num):
        picture = history.find(CAMERA, ("mark", index))
        assert (picture is not None) == (index >= num - NUM_PICTURES)
        if picture is None:
            continue
        assert history.distance(CAMERA, picture) == num - index
        assert [later.index for later in history.after(CAMERA, picture)] == list(range(index + 1, num))
        assert all((part == index).all() for part in history.sight(CAMERA, picture).frame)
        sight = history.sight_of(CAMERA, picture, "cup")
        assert sight is not None and sight.size == (48, 64)
        assert (sight.conditioned_1chw == index + 0.5).all() and (sight.logits_1hw == index + 0.25).all()
        assert history.sight_of(CAMERA, picture, "bowl") is None
    assert history.find("another", ("mark", 0)) is None


def test_nothing_is_allocated_once_the_ring_is_made() -> None:
    history = kept(1, objects=("a", "b", "c"))
    before = history.num_bytes()
    shelf = history._shelves[CAMERA]
    places = [x.data_ptr() for x in (*shelf.features, shelf.conditioned_kmchw, shelf.logits_kmhw)]
    for index in range(1, 100):
        history.put(CAMERA, index, (48, 64), frame=frame_of(index))
        history.put_object(CAMERA, "b", conditioned_1chw=None, logits_1hw=torch.zeros(1, 8, 8))
    assert history.num_bytes() == before
    assert [x.data_ptr() for x in (*shelf.features, shelf.conditioned_kmchw, shelf.logits_kmhw)] == places
    history.drop(CAMERA)
    assert history.num_bytes() == 0 and history.find(CAMERA, 99) is None


def test_pictures_that_are_not_kept_count_and_push_out_old_ones() -> None:
    history = kept(3)
    for _ in range(10):
        history.count(CAMERA)
    picture = history.find(CAMERA, ("mark", 2))
    assert picture is not None and history.distance(CAMERA, picture) == 11
    for index in range(4):
        history.put(CAMERA, ("late", index), (48, 64), frame=frame_of(100 + index))
    assert history.find(CAMERA, ("mark", 0)) is None, "it is seventeen frames old"
    assert [one.mark for one in history.after(CAMERA, picture)] == [("late", index) for index in range(4)]


def test_objects_share_few_slots_and_those_that_are_gone_free_theirs() -> None:
    names = tuple(f"object {index}" for index in range(MAX_OBJECTS + 2))
    history = kept(2, objects=names)
    picture = history.find(CAMERA, ("mark", 1))
    assert picture is not None
    known = [name for name in names if history.sight_of(CAMERA, picture, name) is not None]
    assert known == list(names[:MAX_OBJECTS])
    history.set_objects(CAMERA, names[3:])
    assert history.sight_of(CAMERA, picture, names[0]) is None
    history.put(CAMERA, "next", (48, 64), frame=frame_of(2))
    for name in names[3:]:
        history.put_object(CAMERA, name, conditioned_1chw=None, logits_1hw=torch.full((1, 8, 8), float(name[-1])))
    last = history.find(CAMERA, "next")
    assert last is not None
    for name in names[3:]:
        sight = history.sight_of(CAMERA, last, name)
        assert sight is not None and sight.conditioned_1chw is None and (sight.logits_1hw == float(name[-1])).all()


def test_the_memory_of_a_camera_is_what_the_docstring_says() -> None:
    """By shape, for nano (192 pixels, float32) and a 1024-pixel model (float16); no data is made."""
    for size, dim, dtype, camera_mb, object_mb in (
        (12, 128, torch.float32, 5.9, 1.3),
        (64, 256, torch.float16, 168, 38),
    ):
        history = History()
        with torch.device("meta"):
            parts = [
                torch.zeros(1, c, k * size, k * size, dtype=dtype) for c, k in ((dim, 1), (dim // 8, 4), (dim // 4, 2))
            ]
            tokens = torch.zeros(1, size * size, dim, dtype=dtype)
            history.put(CAMERA, 0, (1, 1), frame=FrameFeatures(*parts, tokens))
            assert history.num_bytes() / 1e6 == pytest.approx(camera_mb, rel=0.02)
            before = history.num_bytes()
            logits = torch.zeros(1, 4 * size, 4 * size)
            history.put_object(CAMERA, "a", conditioned_1chw=parts[0], logits_1hw=logits)
            assert (history.num_bytes() - before) / 1e6 == pytest.approx(object_mb, rel=0.05)


# ---- a late prompt is as good as one in time


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip_frames(4, 30)


@pytest.fixture(scope="module")
def engine() -> OneByOne:
    return OneByOne()


CLICK = checked_prompt(points=[(50.0, 40.0, 1)], box=None, mask=None)
CORRECTION = checked_prompt(points=[(40.0, 44.0, 1), (4.0, 4.0, 0)], box=None, mask=None)


def step(tracker: Tracker, frames: Frames, index: int) -> Masks:
    pending = tracker.launch({CAMERA: frames[index]}, {CAMERA: index * 33_000_000}, marks={CAMERA: index})
    return pending[CAMERA].resolve()


def act(tracker: Tracker, prompt: Prompt, *, refine: bool = False) -> None:
    put = tracker.refine if refine else tracker.add
    put(1, points=prompt.points, box=prompt.box, mask=prompt.mask_hw, camera=CAMERA)


@pytest.mark.parametrize("delay", [1, 2, 7, NUM_PICTURES])
@pytest.mark.parametrize(
    "prompt", [CLICK, checked_prompt(points=(), box=(20, 20, 70, 70), mask=None)], ids=["click", "box"]
)
def test_a_new_object_prompted_late_lives_as_if_prompted_in_time(
    delay: int, prompt: Prompt, engine: OneByOne, frames: Frames
) -> None:
    """Bit for bit, from the first picture on that shows it."""
    in_time, late = Tracker(engine), Tracker(engine)
    seen = 5
    for index in range(len(frames)):
        if index == seen:
            act(in_time, prompt)
        if index == seen + delay:
            assert late.prompt_past(1, prompt, seen, camera=CAMERA, refine=False)
        wanted, found = step(in_time, frames, index), step(late, frames, index)
        if index >= seen + delay:
            assert_same(found, wanted)
    assert late._bank.age(1) == in_time._bank.age(1) == len(frames) - seen


@pytest.mark.parametrize("as_cond", [True, False])
@pytest.mark.parametrize(("seen", "delay"), [(1, 4), (3, 3), (4, 1), (20, 1)])
def test_a_young_object_corrected_late_lives_as_if_corrected_in_time(
    seen: int, delay: int, as_cond: bool, engine: OneByOne, frames: Frames
) -> None:
    """While nothing that it remembered before has been overwritten since: bit for bit."""
    options = TrackerOptions(refine_as_cond=as_cond)
    in_time, late, plain = (Tracker(engine, options) for _ in range(3))
    differs = False
    for index in range(len(frames)):
        if index == 0:
            for tracker in (in_time, late, plain):
                act(tracker, CLICK)
        if index == seen:
            act(in_time, CORRECTION, refine=True)
        if index == seen + delay:
            assert late.prompt_past(1, CORRECTION, seen, camera=CAMERA, refine=True)
        wanted, found, other = (step(tracker, frames, index) for tracker in (in_time, late, plain))
        if index >= seen + delay:
            assert_same(found, wanted)
            differs |= not np.array_equal(found.scores, other.scores)
    assert differs, "the correction changes something"


def test_an_old_object_corrected_late_differs_only_by_what_was_overwritten(engine: OneByOne, frames: Frames) -> None:
    options = TrackerOptions(refine_as_cond=True)
    in_time, late = Tracker(engine, options), Tracker(engine, options)
    seen, delay = 12, 8
    for index in range(len(frames)):
        if index == 0:
            act(in_time, CLICK)
            act(late, CLICK)
        if index == seen:
            act(in_time, CORRECTION, refine=True)
        if index == seen + delay:
            assert late.prompt_past(1, CORRECTION, seen, camera=CAMERA, refine=True)
        step(in_time, frames, index), step(late, frames, index)
    for tracker in (in_time, late):
        assert tracker._bank.age(1) == len(frames)
        assert tracker._bank.slots.memory_time_rs[1, :2].tolist() == [0, seen]
    assert late._bank.lengths(1) == in_time._bank.lengths(1), "soon all recent slots are in use again"


def test_a_correction_follows_a_late_click_on_the_same_picture(engine: OneByOne, frames: Frames) -> None:
    """The pictures of the catch-up know the object, also the one that was clicked on."""
    in_time, late = (Tracker(engine, TrackerOptions(refine_as_cond=True)) for _ in range(2))
    for index in range(16):
        if index == 4:
            act(in_time, CLICK)
            act(in_time, CORRECTION, refine=True)
        if index == 7:
            assert late.prompt_past(1, CLICK, 4, camera=CAMERA, refine=False)
        if index == 9:
            assert late.prompt_past(1, CORRECTION, 4, camera=CAMERA, refine=True)
        wanted, found = step(in_time, frames, index), step(late, frames, index)
        if index >= 9:
            assert_same(found, wanted)


def test_a_later_prompt_survives_one_on_an_earlier_picture(engine: OneByOne, frames: Frames) -> None:
    tracker = Tracker(engine, TrackerOptions(refine_as_cond=True, max_cond_frames=3))
    for index in range(12):
        if index == 1:
            act(tracker, CLICK)
        if index == 6:
            act(tracker, CORRECTION, refine=True)
        step(tracker, frames, index)
    assert tracker.prompt_past(1, CORRECTION, 4, camera=CAMERA, refine=True)
    assert tracker._bank.slots.memory_time_rs[1, :3].tolist() == [0, 5, 3] and tracker._bank.age(1) == 11
    step(tracker, frames, 12)


def test_a_later_prompt_counts_as_if_the_late_one_had_come_before_it(engine: OneByOne, frames: Frames) -> None:
    """A mask, because what it says of its picture does not depend on memory; and until long after its eviction."""
    mask = np.zeros(frames[0].shape[:2], np.bool_)
    mask[20:60, 30:80] = True
    by_mask = checked_prompt(points=(), box=None, mask=mask)
    options = TrackerOptions(refine_as_cond=True, max_cond_frames=3)
    in_time, late = Tracker(engine, options), Tracker(engine, options)
    for index in range(24):
        for tracker in (in_time, late):
            if index == 1:
                act(tracker, CLICK)
            if index in (6, 10, 11):
                act(tracker, by_mask if index == 6 else CORRECTION, refine=True)
        if index == 4:
            act(in_time, CORRECTION, refine=True)
        if index == 8:
            assert late.prompt_past(1, CORRECTION, 4, camera=CAMERA, refine=True)
        wanted, found = step(in_time, frames, index), step(late, frames, index)
        if index >= 8:
            assert_same(found, wanted)


def test_a_late_prompt_changes_no_other_object(engine: OneByOne, frames: Frames) -> None:
    tried, plain = Tracker(engine), Tracker(engine)
    for index in range(14):
        if index == 2:
            for tracker in (tried, plain):
                tracker.add(2, points=[(30, 70, 1)], camera=CAMERA)
        if index == 9:
            assert tried.prompt_past(1, CLICK, 6, camera=CAMERA, refine=False)
        wanted, found = step(plain, frames, index), step(tried, frames, index)
        if index >= 2:
            one, other = wanted.object_ids.index(2), found.object_ids.index(2)
            assert wanted.scores[one] == found.scores[other]
            np.testing.assert_array_equal(wanted.packed_nhb[one], found.packed_nhb[other])


def test_what_is_not_remembered_is_refused_and_changes_nothing(engine: OneByOne, frames: Frames) -> None:
    tracker = Tracker(engine)
    for index in range(NUM_PICTURES + 3):
        step(tracker, frames, index)
    assert not tracker.prompt_past(1, CLICK, 2, camera=CAMERA, refine=False)
    assert not tracker.prompt_past(1, CLICK, 10, camera="another", refine=False)
    assert tracker.object_ids(CAMERA) == () and tracker._bank.num_rows == 0
    act(tracker, CLICK)
    step(tracker, frames, NUM_PICTURES + 3)
    assert not tracker.prompt_past(1, CORRECTION, NUM_PICTURES, camera=CAMERA, refine=True), "it did not exist then"
    tracker.forget_pictures(CAMERA)
    assert not tracker.prompt_past(1, CLICK, NUM_PICTURES + 3, camera=CAMERA, refine=False)


def test_an_object_prompted_anew_on_a_picture_older_than_itself_starts_there(engine: OneByOne, frames: Frames) -> None:
    fresh, again = Tracker(engine), Tracker(engine)
    for index in range(14):
        if index == 8:
            act(again, CORRECTION)
        if index == 10:
            for tracker in (fresh, again):
                assert tracker.prompt_past(1, CLICK, 5, camera=CAMERA, refine=False)
        wanted, found = step(fresh, frames, index), step(again, frames, index)
        if index >= 10:
            assert_same(found, wanted)


# ---- what it is for


@pytest.fixture(scope="module")
def nano() -> Tracker:
    return Tracker.load("nano", device="cpu", dtype="fp32")


def follow(tracker: Tracker, *, delay: int, is_late: bool) -> tuple[float, float]:
    """A click on the first disc of picture 2, `delay` pictures later; IoU with either disc over the next ten."""
    clip, seen = Convoy(), 2
    tracker.reset()
    tracker.forget_pictures(CAMERA)
    click = checked_prompt(points=[(*clip.center(0, seen), 1)], box=None, mask=None)
    found = []
    for index in range(seen + delay + 10):
        if index == seen + delay:
            if is_late:
                assert tracker.prompt_past(1, click, seen, camera=CAMERA, refine=False)
            else:
                act(tracker, click)
        pending = tracker.launch({CAMERA: clip.frame(index)}, {CAMERA: index}, marks={CAMERA: index})
        masks = pending[CAMERA].resolve()
        if masks.object_ids:
            found.append([iou(masks.masks_nhw[0], clip.mask(disc, index)) for disc in (0, 1)])
    first, second = np.array(found).mean(axis=0)
    return float(first), float(second)


@pytest.mark.parametrize("widths", [1, 2])
def test_an_object_that_moved_its_own_width_since_it_was_seen_is_the_one_selected(widths: int, nano: Tracker) -> None:
    assert BEHIND == 2 * 2 * RADIUS, "after two widths the other disc is where the click was"
    first, second = follow(nano, delay=widths * OWN_WIDTH, is_late=True)
    assert first > 0.75 and second < 0.05
    first, second = follow(nano, delay=widths * OWN_WIDTH, is_late=False)
    assert first < 0.3, "the same click on the newest picture misses it"
