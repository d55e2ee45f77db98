"""Prompts: what is refused and how, and the way to model coordinates against the official one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from official import official_predictor
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor

from engines.weights import build_model
from stream.prompt import (
    MAX_OBJECT_ID,
    MAX_POINTS,
    Prompt,
    PromptError,
    check_inside,
    checked_id,
    checked_prompt,
    mask_in_model,
    points_in_model,
    read_mask,
)

NAN, INF = float("nan"), float("inf")
WIDTH, HEIGHT = 100, 76
SOME_MASK = np.eye(4, dtype=np.bool_)


def prompt(points: Any = (), box: Any = None, mask: Any = None) -> Prompt:
    return checked_prompt(points=points, box=box, mask=mask)


@pytest.mark.parametrize("value", [-1, MAX_OBJECT_ID + 1, True, 1.0, "1", None, [1], np.float32(3)])
def test_an_id_that_is_not_a_whole_number_in_range_is_refused(value: Any) -> None:
    with pytest.raises(PromptError, match=r"object id is .*; expected a whole number from 0 to"):
        checked_id(value)


def test_an_id_is_a_plain_number_afterwards() -> None:
    assert [type(checked_id(i)) for i in (0, MAX_OBJECT_ID, np.int64(5), np.uint8(7))] == [int] * 4


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "no points, box or mask"),
    "points beside the list": ({"points": (1.0, 2.0, 1)}, "the point is 1.0; expected .x, y, label."),
    "a number for points": ({"points": 5}, "the points are 5; expected a list"),
    "text for points": ({"points": "875,515"}, "the points are '875,515'; expected a list"),
    "text in a point": ({"points": [("1", "2", 1)]}, "the point is .'1', '2', 1."),
    "no label": ({"points": [(1, 2)]}, "the point is .1, 2."),
    "a label too many": ({"points": [(1, 2, 1, 0)]}, "the point is"),
    "a bad label": ({"points": [(1, 2, 2)]}, "label 1 or 0"),
    "a label of a box": ({"points": [(1, 2, 3)]}, "label 1 or 0"),
    "an empty point": ({"points": [(1, 2, -1)]}, "label 1 or 0"),
    "NaN": ({"points": [(NAN, 2, 1)]}, "finite numbers"),
    "infinity": ({"points": [(1, -INF, 1)]}, "finite numbers"),
    "NaN for a label": ({"points": [(1, 2, NAN)]}, "finite numbers"),
    "NaN in an array": ({"points": np.array([[1, NAN, 1]])}, "finite numbers"),
    "too many": ({"points": [(1, 2, 1)] * (MAX_POINTS + 1)}, f"{MAX_POINTS + 1} points were given; expected at most"),
    "a box of three": ({"box": (1, 2, 3)}, "the box is .1, 2, 3.; expected .x0, y0, x1, y1."),
    "a number for a box": ({"box": 7}, "the box is 7"),
    "a box turned round": ({"box": (5, 2, 1, 9)}, "x0 < x1"),
    "a flat box": ({"box": (1, 2, 3, 2)}, "y0 < y1"),
    "NaN in a box": ({"box": (1, NAN, 3, 4)}, "the box is"),
    "a list for a mask": ({"mask": [[True]]}, "the mask is list; expected an array"),
    "a mask of three axes": ({"mask": np.ones((1, 4, 4), np.bool_)}, "the mask is .1, 4, 4."),
    "an empty mask": ({"mask": np.zeros((4, 4), np.bool_)}, "the mask has no pixel set"),
    "a mask without pixels": ({"mask": np.zeros((0, 4), np.bool_)}, "the mask has no pixel set"),
    "NaN in a mask": ({"mask": np.full((4, 4), NAN)}, "the mask is not made of numbers .float64.; expected bool"),
    "text for a mask": ({"mask": np.full((4, 4), "x")}, "the mask is not made of numbers"),
    "mask and points": ({"mask": SOME_MASK, "points": [(1, 2, 1)]}, "a mask was given together with points or a box"),
    "mask and box": ({"mask": SOME_MASK, "box": (1, 2, 3, 4)}, "a mask was given together with points or a box"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_prompt_is_refused_in_one_line_that_says_why(name: str) -> None:
    arguments, text = REFUSED[name]
    with pytest.raises(PromptError, match=text) as caught:
        prompt(**arguments)
    assert "\n" not in str(caught.value)


def test_arrays_and_lists_are_as_good_as_tuples() -> None:
    wanted = prompt([(1.5, 2.0, 1), (3.0, 4.0, 0)], (1.0, 2.0, 30.0, 40.0))
    assert prompt([[1.5, 2, 1], [3, 4, 0]], [1, 2, 30, 40]) == wanted
    assert prompt(np.array([[1.5, 2, 1], [3, 4, 0]]), np.array([1, 2, 30, 40])) == wanted


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.float32])
def test_a_mask_of_any_number_type_is_copied(dtype: type) -> None:
    mask = np.zeros((4, 6), dtype)
    mask[1, 2] = 1
    taken = prompt(mask=mask).mask_hw
    assert taken is not None and taken.dtype == np.bool_ and taken[1, 2] and taken.sum() == 1
    mask[:] = 0
    assert taken[1, 2], "the caller's array may change afterwards"


@pytest.mark.parametrize("point", [(-0.1, 5), (WIDTH + 0.1, 5), (5, -0.1), (5, HEIGHT + 0.1), (1e30, 0)])
def test_a_point_outside_the_frame_is_refused(point: tuple[float, float]) -> None:
    with pytest.raises(PromptError, match="lies outside the frame; expected 0 <= x <= 100, 0 <= y <= 76"):
        check_inside(prompt([(*point, 1)]), HEIGHT, WIDTH)


@pytest.mark.parametrize("point", [(0, 0), (WIDTH, HEIGHT), (0.5, 75.9)])
def test_a_point_on_the_border_is_inside(point: tuple[float, float]) -> None:
    check_inside(prompt([(*point, 1)]), HEIGHT, WIDTH)


@pytest.mark.parametrize("box", [(100, 0, 120, 9), (-9, 0, 0, 9), (0, 76, 9, 99), (0, -9, 9, 0)])
def test_a_box_outside_the_frame_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(PromptError, match="lies outside the frame; expected it to overlap 100x76 pixels"):
        check_inside(prompt(box=box), HEIGHT, WIDTH)


def test_a_box_beyond_the_border_is_cut_to_the_frame() -> None:
    wide = prompt(box=(-20, -5, 130, 60))
    check_inside(wide, HEIGHT, WIDTH)
    coords = points_in_model(wide, (HEIGHT, WIDTH), image_size=64, logits_bhw=None).coords_bs2
    assert coords[0].tolist() == [[0, 0], [64, pytest.approx(60 / 76 * 64)]]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(PromptError, match=r"the mask has the shape \(4, 4\); expected the frame's, \(76, 100\)"):
        check_inside(prompt(mask=SOME_MASK), HEIGHT, WIDTH)


def test_a_mask_file_is_read_and_a_bad_one_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), (SOME_MASK * 255).astype(np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), SOME_MASK)
    with pytest.raises(PromptError, match=r"missing\.png cannot be read; expected a picture"):
        read_mask(tmp_path / "missing.png")


class Caught(Exception):
    """Carries what the official predictor would have given to the model."""


class Eavesdropper(SAM2VideoPredictor):
    """The official predictor up to the point where the model runs."""

    def _run_single_frame_inference(self, **arguments: Any) -> None:
        raise Caught(arguments["point_inputs"], arguments["mask_inputs"])


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> tuple[SAM2VideoPredictor, dict[str, Any]]:
    network: SAM2Base = build_model("nano", random_seed=0)
    predictor = official_predictor("nano", network)
    predictor.__class__ = Eavesdropper
    folder = tmp_path_factory.mktemp("frames")
    cv2.imwrite(str(folder / "00000.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predictor, predictor.init_state(str(folder))


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([(50.0, 38.0, 1)], None),
        ([(0.0, 0.0, 1), (99.5, 75.5, 0), (33.3, 66.6, 1)], None),
        ([], (10.5, 3.25, 90.0, 70.0)),
        ([(50.0, 38.0, 1), (1.0, 2.0, 0)], (10.5, 3.25, 90.0, 70.0)),
    ],
)
def test_points_and_boxes_reach_the_model_as_officially(
    points: list[tuple[float, float, int]], box: Any, listening: tuple[SAM2VideoPredictor, dict[str, Any]]
) -> None:
    predictor, state = listening
    xy, labels = [p[:2] for p in points] or None, [p[2] for p in points] or None
    with pytest.raises(Caught) as caught:
        predictor.add_new_points_or_box(state, 0, 1, points=xy, labels=labels, box=box)
    wanted = caught.value.args[0]
    ours = points_in_model(prompt(points, box), (HEIGHT, WIDTH), image_size=predictor.image_size, logits_bhw=None)
    assert torch.allclose(ours.coords_bs2, wanted["point_coords"], rtol=1e-6)
    assert torch.equal(ours.labels_bs, wanted["point_labels"])


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (192, 192), (480, 640), (90, 1000)])
def test_a_mask_reaches_the_model_as_officially(
    size: tuple[int, int], listening: tuple[SAM2VideoPredictor, dict[str, Any]]
) -> None:
    predictor, state = listening
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (size[1] // 2, size[0] // 2), (size[1] // 3, size[0] // 4), 30, 0, 360, 1, -1)
    mask ^= np.random.default_rng(1).random(size) < 0.1
    with pytest.raises(Caught) as caught:
        predictor.add_new_mask(state, 0, 1, mask.astype(np.bool_))
    wanted = caught.value.args[1][0]
    assert 0 < wanted.sum() < wanted.numel()
    assert torch.equal(mask_in_model(mask.astype(np.bool_), predictor.image_size), wanted)


def test_a_mask_smaller_than_a_model_pixel_does_not_vanish() -> None:
    dot, line = np.zeros((1080, 1920), np.bool_), np.zeros((1080, 1920), np.bool_)
    dot[700, 1300] = True
    line[:, 960] = True
    small = mask_in_model(dot, 192)[0]
    assert small.sum() >= 1 and small[700 * 192 // 1080, 1300 // 10] == 1
    assert mask_in_model(line, 192)[0].any(dim=1).all(), "a thin line stays a line"
