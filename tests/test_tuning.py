"""What a configuration says of a camera's memory and masks reaches the objects, and changes while they are followed."""

from __future__ import annotations

import dataclasses

import numpy as np
from pocket import pocket_engine

from stream.config import CameraConfig, PromptConfig, RefineOptions
from stream.frame import Frame, Stamp
from stream.orders import Orders
from stream.tracker import Tracker

OWN, OF_CAMERA, CHANGED = RefineOptions(smooth=0.5), RefineOptions(fill_holes=8), RefineOptions(non_overlap=True)
PROMPTS = (
    PromptConfig(1, points=((5, 5, 1),), refine=OWN, memory_policy="motion"),
    PromptConfig(2, points=((9, 9, 1),)),
)
CAMERA = CameraConfig(
    "door", "testsrc://", memory_policy="motion", camera_motion=True, refine=OF_CAMERA, prompts=PROMPTS
)


def picture() -> Frame:
    return Frame(Stamp("door", 0, 0, "door", 0, 0, 0, 0), np.zeros((48, 64, 3), np.uint8))


def settings(tracker: Tracker) -> list[tuple[object, object]]:
    snapshots = [tracker.snapshot(object_id, camera="door") for object_id in tracker.object_ids("door")]
    return [(one.finish.options, one.policy) for one in snapshots]


def test_the_settings_of_camera_and_prompts_hold_from_the_first_picture_on_and_change_with_the_configuration() -> None:
    tracker = Tracker(pocket_engine())
    orders = Orders(tracker, max_objects=4)
    orders.set_cameras({"door": CAMERA})
    orders.follow(picture())
    assert settings(tracker) == [(OWN, "motion"), (None, None)]
    assert tracker._refined.of_camera("door") == OF_CAMERA
    assert tracker._guidance.of("door").memory_policy == "motion" and tracker._guidance.of("door").camera_motion
    plain = (dataclasses.replace(PROMPTS[0], refine=None, memory_policy=None), PROMPTS[1])
    orders.set_cameras({"door": dataclasses.replace(CAMERA, refine=CHANGED, memory_policy="sam2", prompts=plain)})
    assert settings(tracker) == [(None, None), (None, None)]
    assert tracker._refined.of_camera("door") == CHANGED and tracker._guidance.of("door").memory_policy == "sam2"


def test_nothing_is_kept_of_a_camera_that_is_gone() -> None:
    tracker = Tracker(pocket_engine())
    orders = Orders(tracker, max_objects=4)
    orders.set_cameras({"door": CAMERA})
    orders.follow(picture())
    orders.set_cameras({})
    assert not tracker._refined._cameras and not tracker.object_ids("door")


def test_an_object_that_took_a_configured_id_keeps_its_own_settings() -> None:
    tracker = Tracker(pocket_engine())
    orders = Orders(tracker, max_objects=4)
    orders.set_cameras({"door": CAMERA})
    orders.follow(picture())
    tracker.rename(1, 7, camera="door")
    tracker.add(1, points=[(3, 3, 1)], camera="door")
    orders._rosters["door"].moved.add(1)
    orders.set_cameras({"door": dataclasses.replace(CAMERA, refine=CHANGED)})
    known = dict(zip(tracker.object_ids("door"), settings(tracker), strict=True))
    assert known == {7: (OWN, "motion"), 2: (None, None), 1: (None, None)}
