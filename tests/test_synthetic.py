"""Generated clips: deterministic, random access, truthful; and a frame counter that survives what cameras do."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.synthetic import (
    DEMO,
    EVALUATION_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    ClipSpec,
    SyntheticClip,
    deepest_point,
    draw_counter,
    read_counter,
)
from engines.synthetic.clip import MIN_VISIBLE_SHARE

SMALL = ClipSpec(seed=7, num_frames=20, height=96, width=128)
COARSE_DEMO = replace(DEMO, height=DEMO.height // 4, width=DEMO.width // 4)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def test_equal_specs_give_equal_pixels_in_any_order() -> None:
    forward, backward = SyntheticClip(SMALL), SyntheticClip(SMALL)
    frames = {t: forward.frame(t) for t in range(6)}
    for t in reversed(range(6)):
        np.testing.assert_array_equal(backward.frame(t), frames[t])
        np.testing.assert_array_equal(backward.masks(t), forward.masks(t))


def test_another_seed_is_another_clip() -> None:
    other = SyntheticClip(replace(SMALL, seed=8))
    assert np.abs(other.frame(0).astype(int) - SyntheticClip(SMALL).frame(0)).mean() > 5


def test_frames_and_masks_have_the_promised_shapes() -> None:
    clip = SyntheticClip(SMALL)
    assert clip.frame(3).shape == (96, 128, 3) and clip.frame(3).dtype == np.uint8
    assert clip.masks(3).shape == (2, 96, 128) and clip.masks(3).dtype == np.bool_
    assert clip.frame(3).flags.c_contiguous and clip.frame(3).flags.writeable


@pytest.mark.parametrize("seed", range(12))
def test_every_object_is_visible_at_first_and_masks_do_not_overlap(seed: int) -> None:
    clip = SyntheticClip(replace(SMALL, seed=seed, num_objects=3))
    assert clip.masks(0).mean((1, 2)).min() >= MIN_VISIBLE_SHARE
    for t in range(0, 20, 5):
        assert clip.masks(t).sum(0).max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_is_where_the_picture_shows_the_object(seed: int) -> None:
    spec = replace(SMALL, seed=seed, num_distractors=0, num_objects=1, noise=0.0)
    clip, t = SyntheticClip(spec), 4
    bare = SyntheticClip(spec)
    bare._order = []
    changed = np.abs(clip.frame(t).astype(int) - bare.frame(t)).max(2) > 12
    edge = cv2.dilate(clip.masks(t)[0].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.bool_)
    assert not (changed & ~edge).any()
    assert (changed & clip.masks(t)[0]).sum() > 0.6 * clip.masks(t)[0].sum()


def test_a_click_lies_inside_its_object() -> None:
    clip = SyntheticClip(SMALL)
    for number in range(2):
        x, y = clip.click(number)
        assert clip.masks(0)[number, int(y), int(x)]


def test_the_deepest_point_is_far_from_the_border_and_an_empty_mask_has_none() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[5:14, 10:19] = True
    assert deepest_point(mask) == (14.0, 9.0)
    with pytest.raises(ValueError, match="empty mask"):
        deepest_point(np.zeros((4, 4), np.bool_))


def test_too_many_objects_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="40 visible objects"):
        SyntheticClip(ClipSpec(seed=1, height=32, width=32, num_objects=40))


def test_seeds_for_training_judging_evaluation_and_demo_never_meet() -> None:
    assert TRAINING_SEEDS[-1] < VALIDATION_SEEDS[0]
    assert VALIDATION_SEEDS[-1] < EVALUATION_SEEDS[0]
    assert DEMO.seed > EVALUATION_SEEDS[-1]


def test_the_demo_cannot_be_solved_by_standing_still() -> None:
    clip = SyntheticClip(COARSE_DEMO)
    first = clip.masks(0)
    for number in range(DEMO.num_objects):
        scores = [iou(first[number], clip.masks(t)[number]) for t in range(0, DEMO.num_frames, 3)]
        assert np.mean(scores) <= 0.25


def test_the_demo_cannot_be_solved_by_colour() -> None:
    clip = SyntheticClip(COARSE_DEMO)
    first, times = clip.frame(0).astype(np.float32), range(0, DEMO.num_frames, 10)
    for number in range(DEMO.num_objects):
        pixels = first[clip.masks(0)[number]]
        for width in (1.0, 1.5, 2.0, 3.0):
            limit = width * pixels.std(0) + 4
            scores = [
                iou((np.abs(clip.frame(t) - pixels.mean(0)) <= limit).all(2), clip.masks(t)[number]) for t in times
            ]
            assert np.mean(scores) <= 0.5


def test_in_the_demo_one_object_hides_the_other_for_a_while() -> None:
    clip = SyntheticClip(COARSE_DEMO)
    areas = np.array([clip.masks(t).sum((1, 2)) for t in range(0, DEMO.num_frames, 3)])
    assert areas.min() < 0.35 * np.median(areas, axis=0).min()
    assert areas[-1].min() > 0


def test_a_demo_frame_is_cheap() -> None:
    clip = SyntheticClip(DEMO)
    clip.frame(0)
    times_ms = []
    for t in range(8):
        start = time.perf_counter()
        clip.frame(t)
        times_ms.append(1000 * (time.perf_counter() - start))
    assert min(times_ms) < 15


@pytest.mark.parametrize("number", [0, 1, 255, 256, 12345, 65535])
@pytest.mark.parametrize("size", [(640, 480), (192, 192), (1920, 1080)])
def test_the_counter_reads_back(number: int, size: tuple[int, int]) -> None:
    frame = cv2.resize(SyntheticClip(SMALL).frame(0), size)
    draw_counter(frame, number)
    assert read_counter(frame) == number


def test_the_counter_survives_rescaling_noise_and_compression() -> None:
    rng = np.random.default_rng(0)
    for number in rng.integers(0, 65536, 20).tolist():
        frame = cv2.resize(SyntheticClip(SMALL).frame(0), (640, 480))
        draw_counter(frame, number)
        frame = cv2.resize(frame, (426, 240), interpolation=cv2.INTER_AREA)
        frame = np.clip(frame + rng.normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
        packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        assert read_counter(cv2.imdecode(packed, cv2.IMREAD_COLOR)) == number


def test_no_counter_and_a_damaged_counter_read_as_nothing() -> None:
    clip = SyntheticClip(SMALL)
    assert all(read_counter(clip.frame(t)) is None for t in range(10))
    frame = cv2.resize(clip.frame(0), (640, 480))
    draw_counter(frame, 4711)
    for cell in range(2, 26):
        damaged = frame.copy()
        left, right = round(640 / 28 * cell), round(640 / 28 * (cell + 1))
        damaged[:24, left:right] = 255 - damaged[:24, left:right]
        assert read_counter(damaged) is None
