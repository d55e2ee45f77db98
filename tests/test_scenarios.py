"""The generated scenarios: what happens in each is what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from engines.synthetic.scenarios import (
    NUM_FRAMES,
    SCENARIO_SEEDS,
    SCENARIOS,
    SIDE,
    ScenarioClip,
    ScenarioSpec,
)


def clip(name: str, seed: int = SCENARIO_SEEDS[7]) -> ScenarioClip:
    return ScenarioClip(ScenarioSpec(name, seed))


def areas(one: ScenarioClip, thing: int = 0) -> np.ndarray:
    return np.array([one.masks(index)[thing].sum() for index in range(0, NUM_FRAMES, 2)])


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_shows_its_objects_first_and_is_the_same_each_time(name: str) -> None:
    one, other = clip(name), clip(name)
    frame, masks = one.frame(0), one.masks(0)
    assert frame.shape == (SIDE, SIDE, 3) and frame.flags.c_contiguous
    assert masks.shape[1:] == (SIDE, SIDE) and 1 <= one.num_objects <= len(masks)
    assert all(masks[number].sum() > 200 for number in range(one.num_objects)), "a prompt needs something to click on"
    assert np.array_equal(other.frame(31), one.frame(31)) and np.array_equal(other.masks(31), one.masks(31))
    assert not np.array_equal(clip(name, SCENARIO_SEEDS[8]).frame(0), frame)
    assert not (masks.sum(axis=0) > 1).any(), "a pixel shows one thing"


def test_twins_look_the_same_and_pass_through_each_others_place() -> None:
    one = clip("crossing_twins")
    assert one._things[0].texture is one._things[1].texture
    apart = [np.nonzero(mask)[1].mean() for mask in one.masks(0)]
    later = [np.nonzero(mask)[1].mean() for mask in one.masks(NUM_FRAMES - 1)]
    assert apart[0] < apart[1] and later[0] > later[1]


@pytest.mark.parametrize("name", ["full_occlusion", "exit_and_return", "scene_cut"])
def test_who_is_hidden_or_leaves_comes_back(name: str) -> None:
    seen = areas(clip(name))
    gone = np.flatnonzero(seen == 0)
    assert len(gone) >= 3 and seen[: gone[0]].max() > 200 and seen[gone[0] :].max() > 200


def test_what_is_not_hidden_is_always_there() -> None:
    for name in ("easy", "crossing_twins", "scale_change", "motion_blur", "camera_shake", "lighting_change"):
        assert areas(clip(name)).min() > 100, name


def test_a_scale_change_is_one_and_a_dusk_is_dark() -> None:
    seen = areas(clip("scale_change"))
    assert seen.max() > 3 * seen.min()
    dusk = clip("lighting_change")
    assert dusk.frame(NUM_FRAMES // 2).mean() < 0.7 * dusk.frame(0).mean()


def test_blur_softens_what_moves() -> None:
    blurred, sharp = clip("motion_blur"), clip("easy")
    edges = [np.abs(np.diff(one.frame(9).astype(int), axis=1)).max() for one in (blurred, sharp)]
    assert min(edges) > 0 and blurred.spec.num_frames == 5 * NUM_FRAMES


def test_a_shaking_camera_moves_everything_at_once() -> None:
    one = clip("camera_shake")
    centres = np.array([[np.argwhere(mask).mean(axis=0) for mask in one.masks(index)] for index in range(0, 20)])
    jumps = np.diff(centres, axis=0)
    assert np.abs(jumps[:, 0]).max() > 8
    assert np.corrcoef(jumps[:, 0].ravel(), jumps[:, 1].ravel())[0, 1] > 0.8


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(ValueError, match="there is no scenario 'storm'; expected one of easy"):
        clip("storm")
