"""The Kalman filter of boxes, and the camera's own motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engines.synthetic import ClipSpec, SyntheticClip
from stream.motion import BoxFilter, CameraMotion, Place


def followed(places: list[Place]) -> BoxFilter:
    """What is known after these places, one frame each."""
    known = BoxFilter.start(places[0])
    for place in places[1:]:
        known = known.predict().update(place)
    return known


def straight(count: int, *, speed: float = 0.02) -> list[Place]:
    return [Place(0.2 + speed * t, 0.5, 0.1, 0.2) for t in range(count)]


def test_an_object_at_constant_speed_is_expected_where_it_will_be() -> None:
    expected = followed(straight(15)).predict().place
    assert expected.x == pytest.approx(0.2 + 0.02 * 15, abs=0.002) and expected.y == pytest.approx(0.5, abs=1e-6)
    assert (expected.width, expected.height) == pytest.approx((0.1, 0.2))


def test_strides_are_counted_in_the_objects_own_sizes() -> None:
    assert followed(straight(20, speed=0.03)).strides == pytest.approx(0.3, abs=0.02)


def test_noise_is_averaged() -> None:
    rng = np.random.default_rng(0)
    noisy = [Place(0.5 + dx, 0.5 + dy, 0.2, 0.2) for dx, dy in rng.normal(0, 0.01, (40, 2))]
    known = followed(noisy)
    assert abs(known.place.x - 0.5) < 0.008 and known.strides < 0.05


def test_a_doubtful_sight_moves_the_filter_less() -> None:
    known = followed(straight(10)).predict()
    aside = Place(known.place.x + 0.05, 0.5, 0.1, 0.2)
    sure, doubted = known.update(aside).place.x, known.update(aside, doubt=4.0).place.x
    assert known.place.x < doubted < sure <= aside.x and doubted - known.place.x < (sure - known.place.x) / 2


def test_a_part_says_nothing_of_the_size() -> None:
    known = followed(straight(10)).predict()
    sliver = Place(known.place.x, 0.5, 0.01, 0.2)
    assert known.update(sliver, is_whole=False).place.width == pytest.approx(0.1)
    assert known.update(sliver).place.width < 0.08
    assert known.restart(sliver, is_whole=False).place.width == pytest.approx(0.1)
    assert known.restart(sliver, is_whole=True).place.width == pytest.approx(0.01)


def test_who_is_not_seen_slows_down_and_stays_near_the_picture() -> None:
    known = followed(straight(20, speed=0.035))
    for _ in range(100):
        known = known.predict().miss()
    assert 0.9 < known.place.x <= 1.06 and known.strides < 0.05
    assert known.place.width == pytest.approx(0.1, rel=0.05)


def test_the_own_place_fits_and_another_size_or_place_does_not() -> None:
    known = followed(straight(10)).predict()
    here = known.place
    assert known.fit(here) == 1.0
    assert known.fit(Place(here.x + 0.15, here.y, here.width, here.height)) < 0.1
    assert known.fit(Place(here.x, here.y, 2 * here.width, 2 * here.height)) < 0.1


def test_what_is_usual_for_a_restless_object_is_not_held_against_it() -> None:
    calm = followed(straight(20))
    rng = np.random.default_rng(1)
    restless = followed([Place(0.5 + dx, 0.5, 0.1, 0.2) for dx in rng.normal(0, 0.05, 30)])
    assert restless.unrest > 3 * calm.unrest
    away = [Place(known.predict().place.x + 0.05, 0.5, 0.1, 0.2) for known in (calm, restless)]
    assert calm.predict().fit(away[0]) < restless.predict().fit(away[1])


def test_a_moved_camera_moves_what_was_expected() -> None:
    known = followed(straight(10))
    matrix = np.array([[1.1, 0.0, -0.05], [0.0, 1.1, 0.2]])
    moved, old = known.moved(matrix), known.place
    assert (moved.place.x, moved.place.y) == pytest.approx((1.1 * old.x - 0.05, 1.1 * old.y + 0.2))
    assert moved.place.width == pytest.approx(1.1 * old.width) and moved.strides == pytest.approx(known.strides)


# ---- the camera


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    spec = ClipSpec(seed=77, height=400, width=500, num_objects=2, num_distractors=3, noise=0.0)
    return SyntheticClip(spec).frame(0)


def view(wall: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.ascontiguousarray(wall[y : y + 300, x : x + 400])


def test_the_shift_of_a_camera_is_found(wall: np.ndarray) -> None:
    camera = CameraMotion()
    assert np.array_equal(camera.follow(view(wall, 40, 40)), np.eye(2, 3)), "there is nothing to compare with"
    matrix = camera.follow(view(wall, 52, 31))
    assert matrix[:, 2] == pytest.approx((-12 / 400, 9 / 300), abs=0.004)
    assert matrix[:, :2] == pytest.approx(np.eye(2), abs=0.02)


def test_a_turning_camera_is_told_in_shares_of_the_picture(wall: np.ndarray) -> None:
    camera = CameraMotion()
    turn = cv2.getRotationMatrix2D((250, 200), 3.0, 1.03)
    turned = cv2.warpAffine(wall, turn, (500, 400), borderMode=cv2.BORDER_REFLECT_101)
    camera.follow(wall)
    matrix = camera.follow(turned)
    for x, y in ((0.3, 0.3), (0.7, 0.6)):
        wanted = turn @ (x * 500, y * 400, 1.0) / (500, 400)
        assert matrix @ (x, y, 1.0) == pytest.approx(wanted, abs=0.006)


def test_a_moving_object_is_not_the_cameras_motion(wall: np.ndarray) -> None:
    camera, later = CameraMotion(), view(wall, 40, 40).copy()
    camera.follow(view(wall, 40, 40))
    later[100:180, 120:220] = later[100:180, 100:200].copy()
    assert camera.follow(later) == pytest.approx(np.eye(2, 3), abs=0.003)


def test_where_nothing_can_be_followed_the_camera_stands_still() -> None:
    camera, plain = CameraMotion(), np.full((300, 400, 3), 90, np.uint8)
    camera.follow(plain)
    assert np.array_equal(camera.follow(plain), np.eye(2, 3))


def test_a_picture_of_another_size_begins_anew(wall: np.ndarray) -> None:
    camera = CameraMotion()
    camera.follow(view(wall, 0, 0))
    assert np.array_equal(camera.follow(wall[:200]), np.eye(2, 3))


def test_a_camera_goes_on_from_its_kept_view(wall: np.ndarray) -> None:
    camera = CameraMotion()
    camera.follow(view(wall, 40, 40))
    other = CameraMotion(camera.view)
    assert np.array_equal(other.follow(view(wall, 50, 40)), camera.follow(view(wall, 50, 40)))
