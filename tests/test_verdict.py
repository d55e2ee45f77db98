"""What is said of an object that was away: its states, the time that it was not seen, and the advice about speed."""

from __future__ import annotations

import numpy as np

from stream.frame import Masks, ObjectState
from stream.sightings import MAX_STRIDE, Sighting, Sightings, advice
from stream.status import ObjectStatus
from stream.verdict import AWAY_AFTER_NS, LOST_AFTER_NS, RETURNED_NS, Visibility

MS = 1_000_000


def judged(scores_at: dict[int, float]) -> list[str]:
    """States of one object, by times in milliseconds."""
    visibility = Visibility()
    return [visibility.judge(score, at * MS).value for at, score in scores_at.items()]


def test_who_comes_back_is_reacquired_for_a_second_and_tracked_again() -> None:
    states = judged({0: 1, 50: -1, 250: 1, 1250: 1, 1251: 1, 1300: -1, 1400: 1})
    assert states == ["tracked", "occluded", "reacquired", "reacquired", "tracked", "occluded", "tracked"]
    assert AWAY_AFTER_NS == 200 * MS and RETURNED_NS == 1000 * MS


def test_a_pause_without_pictures_is_no_absence() -> None:
    assert judged({0: 1, 5000: 1, 5050: -1, 5100: 1}) == ["tracked", "tracked", "occluded", "tracked"]


def test_who_vanishes_again_at_once_is_occluded_and_then_lost() -> None:
    states = judged({0: 1, 100: -1, 300: 1, 350: -1, 2300: -1, 2301: -1, 2360: 1})
    assert states == ["tracked", "occluded", "reacquired", "occluded", "occluded", "lost", "reacquired"]
    assert LOST_AFTER_NS == 2000 * MS


def test_the_time_unseen_counts_from_the_last_sight_and_ends_with_the_next() -> None:
    visibility = Visibility()
    unseen = []
    for at, score in ((0, 1.0), (100, -1.0), (400, -1.0), (500, 1.0), (600, 0.0)):
        visibility.judge(score, at * MS)
        unseen.append(visibility.unseen_ns(at * MS) // MS)
    assert unseen == [0, 100, 400, 0, 100]


def masks_at(x: int, *, size: int = 10, object_ids: tuple[int, ...] = (7,)) -> Masks:
    count = len(object_ids)
    return Masks(
        height=100, width=400, object_ids=object_ids, states=(ObjectState.TRACKED,) * count,
        scores=np.ones(count, np.float32), ious=np.ones(count, np.float32),
        boxes_n4=np.array([[x, 20, x + size, 20 + size]] * count, np.int32), areas=np.full(count, size * size),
        centroids_n2=np.zeros((count, 2), np.float32), packed_nhb=np.zeros((count, 100, 50), np.uint8),
    )  # fmt: skip


def status_after(places: list[int], *, size: int = 10) -> tuple[ObjectStatus, ...]:
    sightings = Sightings()
    sightings.set_cameras(["door"])
    for x in places:
        sightings.put("door", Sighting(masks_at(x, size=size), {7: "ball"}, (0,)))
    return sightings.status("door")


def test_status_advises_more_pictures_when_an_object_outruns_its_size() -> None:
    fast, slow = status_after([0, 15, 30]), status_after([0, 9, 18])
    assert fast[0].stride == 1.5 and slow[0].stride == 0.9
    assert "object 7 ball moves 1.5 times its own size" in advice(fast, 10.0)
    assert "(10.0 a second), expected 30 or more a second" in advice(fast, 10.0)
    assert advice(slow, 10.0) == "" and slow[0].stride < MAX_STRIDE


def test_advice_fades_when_the_object_has_come_to_rest() -> None:
    assert advice(status_after([0, 15] + [15] * 20), 10.0) == ""


def test_size_is_the_measure_of_a_stride() -> None:
    assert status_after([0, 15], size=30)[0].stride == 0.5


def test_a_first_sight_and_an_empty_mask_are_no_strides() -> None:
    sightings = Sightings()
    sightings.set_cameras(["door"])
    sightings.put("door", Sighting(masks_at(0), {}, (0,)))
    empty = masks_at(0)
    empty.boxes_n4[:] = 0
    for masks in (empty, masks_at(300), masks_at(300, object_ids=(7, 8))):
        sightings.put("door", Sighting(masks, {}, (0,) * len(masks.object_ids)))
    assert [item.stride for item in sightings.status("door")] == [0.0, 0.0]
