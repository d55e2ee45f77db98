"""Enhancing pictures for the model: light where it is dark, none where it is not, and never the published picture."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from fake_engine import FakeEngine
from pocket import clip_frames
from test_worker import Bench
from torch import Tensor

from engines.spec import FrameFeatures
from stream.config import EnhanceOptions
from stream.enhance import Enhancer, denoised, enhanced, lifted
from stream.tracker import Tracker

PICTURE = clip_frames(3, 1, 120, 160)[0]
DARK = cv2.convertScaleAbs(PICTURE, alpha=0.06)


def test_off_gives_the_very_same_picture() -> None:
    assert enhanced(PICTURE, EnhanceOptions()) is PICTURE


def test_a_dark_picture_is_lifted_by_one_factor_as_far_as_asked() -> None:
    whole, half = lifted(DARK, 1.0), lifted(DARK, 0.5)
    bright = [float(np.percentile(one.max(axis=2), 98)) for one in (DARK, half, whole)]
    assert bright[0] < 20 and 100 < bright[1] < 150 and 215 <= bright[2] <= 245
    lit = DARK > 0
    factors = whole[lit].astype(float) / DARK[lit]
    assert factors.max() - factors.min() < 0.6, "rounding alone"


def test_a_picture_with_bright_parts_is_left_alone() -> None:
    lamp = DARK.copy()
    lamp[:40, :40] = 170
    assert lifted(lamp, 1.0) is lamp


def test_the_brighter_a_picture_is_the_less_it_is_lifted_without_a_jump() -> None:
    ramp = [float(lifted(np.full((16, 16, 3), level, np.uint8), 1.0).mean()) / level for level in range(8, 200)]
    assert all(-0.02 <= a - b <= 0.08 * a for a, b in itertools.pairwise(ramp[8:])) and ramp[-1] == 1


@pytest.mark.parametrize("level", [0, 1])
def test_black_stays_finite(level: int) -> None:
    assert lifted(np.full((24, 32, 3), level, np.uint8), 1.0).max() <= 32 * level


def test_coarse_grain_is_taken_out_in_proportion() -> None:
    random = np.random.default_rng(1)
    grain = cv2.GaussianBlur(random.normal(0, 60, (240, 640, 3)).astype(np.float32), (0, 0), 1.0)
    flat = np.clip(128 + grain, 0, 255).astype(np.uint8)
    spreads = [float(denoised(flat, strength).std()) for strength in (0.25, 0.5, 1.0)]
    assert flat.std() > 1.05 * spreads[0] > 1.1 * spreads[1] > 1.2 * spreads[2]


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2)])
def test_pictures_of_any_size_keep_it_and_are_not_written(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 9, np.uint8)
    picture.flags.writeable = False
    found = Enhancer(EnhanceOptions(denoise=1.0, low_light=1.0)).apply(picture)
    assert found.shape == picture.shape and found.dtype == np.uint8 and (picture == 9).all()


class Seeing(FakeEngine):
    """Notes how bright the frames are that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.brightness: list[float] = []

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        self.brightness.append(float(frames_f3hw.mean()))
        return super().encode(frames_f3hw)


def test_the_daemon_s_model_sees_the_enhanced_picture_and_subscribers_the_camera_s() -> None:
    engine = Seeing()
    rig = Bench(1, 1, watched=True, tracker=Tracker(engine))
    feed = rig.feeds[0]
    rig.worker.start()
    try:
        rig.put(0, 0, picture_hwc=DARK)
        rig.sink.wait(1)
        feed.config = dataclasses.replace(feed.config, enhance=EnhanceOptions(low_light=1.0))
        rig.put(0, 1, picture_hwc=DARK)
        rig.sink.wait(2)
    finally:
        rig.worker.stop()
        rig.worker.join(20)
    assert engine.brightness[1] > engine.brightness[0] + 0.5
    assert len(rig.sink.pictures) == 2 and all(np.array_equal(one, DARK) for one in rig.sink.pictures)
