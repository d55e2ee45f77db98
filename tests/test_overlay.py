"""The overlay: colour only where the mask is, steady per object, readable at the rims, never on the given picture."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.frame import Masks, ObjectState
from stream.overlay import caption, colour_of, contact_sheet, draw_overlay, draw_status


def masks_of(masks_nhw: NDArray[np.bool_], ids: list[int], states: list[ObjectState] | None = None) -> Masks:
    boxes, areas = [], []
    for mask_hw in masks_nhw:
        ys, xs = np.nonzero(mask_hw)
        areas.append(len(xs))
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0))
    num_objects, height, width = masks_nhw.shape
    return Masks(
        height=height,
        width=width,
        object_ids=tuple(ids),
        states=tuple(states or [ObjectState.TRACKED] * num_objects),
        scores=np.full(num_objects, 2.0, np.float32),
        ious=np.ones(num_objects, np.float32),
        boxes_n4=np.array(boxes, np.int32).reshape(-1, 4),
        areas=np.array(areas, np.int64),
        centroids_n2=np.zeros((num_objects, 2), np.float32),
        packed_nhb=np.packbits(masks_nhw, axis=2),
    )


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (243, 317, 3), np.uint8)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask_hw = np.zeros((243, 317), np.bool_)
    mask_hw[y0:y1, x0:x1] = True
    return mask_hw


def test_the_given_picture_stays_as_it_is(picture: NDArray[np.uint8]) -> None:
    before = picture.copy()
    draw_overlay(picture, masks_of(rectangle(50, 60, 120, 160)[None], [1]), status="status")
    draw_status(picture, "status")
    assert np.array_equal(picture, before)


def test_the_fill_is_where_the_mask_is_and_nowhere_else(picture: NDArray[np.uint8]) -> None:
    mask_hw = rectangle(51, 60, 123, 160)
    mask_hw[90:120, 80:100] = False  # a hole stays a hole
    drawn = draw_overlay(picture, masks_of(mask_hw[None], [3]))
    inside, hole = (slice(125, 155), slice(56, 118)), (slice(93, 117), slice(83, 97))
    blended = picture[inside] * 0.58 + np.array(colour_of(3)) * 0.42
    assert np.abs(drawn[inside] - blended).max() <= 1
    assert np.array_equal(drawn[hole], picture[hole])
    far = np.ones(picture.shape[:2], np.bool_)
    far[40:163, 48:200] = False  # the object, its contour and its plate
    assert np.array_equal(drawn[far], picture[far])


def test_the_contour_lies_on_the_rim(picture: NDArray[np.uint8]) -> None:
    drawn = draw_overlay(picture, masks_of(rectangle(50, 60, 120, 160)[None], [2]))
    assert np.abs(drawn[100:150, 50].astype(int) - colour_of(2)).max() <= 40  # anti-aliased
    assert np.abs(drawn[159, 60:110].astype(int) - colour_of(2)).max() <= 40  # anti-aliased


def test_a_colour_belongs_to_an_id_whatever_else_is_there(picture: NDArray[np.uint8]) -> None:
    alone = draw_overlay(picture, masks_of(rectangle(150, 160, 220, 220)[None], [7]))
    both = np.stack([rectangle(10, 60, 60, 120), rectangle(150, 160, 220, 220)])
    together = draw_overlay(picture, masks_of(both, [4, 7]))
    assert np.array_equal(alone[165:215, 155:215], together[165:215, 155:215])


def test_neighbouring_ids_look_different() -> None:
    colours = np.array([colour_of(object_id) for object_id in range(12)], int)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 999 * np.eye(12, dtype=int)
    assert distances.min() >= 60


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 20), (280, 0, 317, 30), (0, 200, 30, 243), (0, 0, 317, 243), (316, 242, 317, 243)]
)
def test_objects_at_the_rim_are_drawn_inside(picture: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    labels = {1: "a name that is longer than the picture is wide, so that it must be cut somewhere"}
    drawn = draw_overlay(picture, masks_of(rectangle(*box)[None], [1]), labels=labels)
    assert drawn.shape == picture.shape and not np.array_equal(drawn, picture)


def test_the_plates_of_objects_at_one_place_do_not_cover_one_another(picture: NDArray[np.uint8]) -> None:
    places = np.stack([rectangle(100 + 3 * index, 60, 200, 160) for index in range(4)])
    drawn = draw_overlay(picture, masks_of(places, [1, 2, 3, 4]))
    alone = draw_overlay(picture, masks_of(places[:1], [1]))
    plate = (np.abs(alone.astype(int) - colour_of(1)).max(axis=2) < 6).sum()
    for object_id in (1, 2, 3, 4):
        assert (np.abs(drawn.astype(int) - colour_of(object_id)).max(axis=2) < 6).sum() > 0.5 * plate


def test_no_objects_and_no_status_is_the_picture_itself(picture: NDArray[np.uint8]) -> None:
    assert np.array_equal(draw_overlay(picture, Masks.empty(243, 317)), picture)


def test_an_unseen_object_is_told_in_the_status_line(picture: NDArray[np.uint8]) -> None:
    nothing = np.zeros((1, 243, 317), np.bool_)
    for state in (ObjectState.OCCLUDED, ObjectState.LOST):
        drawn = draw_overlay(picture, masks_of(nothing, [1], [state]), labels={1: "cup"})
        assert np.array_equal(drawn, draw_status(picture, f"1 cup {state.value}"))


def test_the_status_line_fits_whatever_is_said(picture: NDArray[np.uint8]) -> None:
    drawn = draw_status(picture, "Grüße " * 100)
    assert drawn.shape == picture.shape
    assert np.array_equal(drawn[:200], picture[:200]) and not np.array_equal(drawn[225:], picture[225:])


def test_the_score_is_shown_as_a_probability() -> None:
    assert caption(3, "cup", score=0.0) == "3 cup 0.50"
    assert caption(3, "", score=1e9) == "3 1.00"


def test_a_contact_sheet_holds_every_picture() -> None:
    pictures = [np.full((90, 160, 3), 40 * (index + 1), np.uint8) for index in range(5)]
    sheet = contact_sheet(pictures, num_columns=3, width=640)
    assert sheet.shape[1] == 640
    assert all((sheet == 40 * (index + 1)).all(axis=2).sum() > 20_000 for index in range(5))


def test_masks_of_another_size_are_a_bug(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(AssertionError, match="not the size of the masks"):
        draw_overlay(picture, Masks.empty(100, 100))
