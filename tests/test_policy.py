"""The rules of the memory policy "motion": choice, cut, jump, claim, memory, anchor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stream.motion import BoxFilter, Place
from stream.parts import cut, place_of, share_out
from stream.policy import (
    ANCHOR_EVERY,
    PATIENCE,
    Motion,
    Proposed,
    Ruling,
    first_motion,
    rule,
)

SIDE = 48
Bits = np.ndarray


def box(x: float, y: float, size: float = 10.0) -> Bits:
    """A square about (x, y)."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return (np.abs(columns - x) <= size / 2) & (np.abs(rows - y) <= size / 2)


def proposed(masks: Sequence[Bits], ious: Sequence[float] = (0.9, 0.8, 0.7), score: float = 5.0) -> Proposed:
    masks = [*masks, *[masks[-1]] * (3 - len(masks))]
    return Proposed(np.stack(masks), np.array(ious, float), score)


def followed(mask: Bits, frames: int = 6) -> Motion:
    """An object that stood there for so long, expected there again."""
    motion = first_motion(mask, 0.9)
    for _ in range(frames):
        assert motion is not None
        [ruling] = rule([proposed([mask])], [motion.predicted(None)])
        motion = ruling.motion
    assert motion is not None
    return motion.predicted(None)


def ruled(one: Proposed, motion: Motion | None) -> Ruling:
    [ruling] = rule([one], [motion])
    return ruling


# ---- measures


def test_a_stray_pixel_hardly_moves_a_place() -> None:
    mask = box(20, 20)
    mask[45, 45] = True
    place = place_of(mask)
    assert place is not None
    assert (place.x, place.y) == pytest.approx((20 / SIDE, 20 / SIDE), abs=0.01) and place.width < 0.3
    assert place_of(np.zeros((4, 4), bool)) is None


def test_a_box_has_the_extent_of_its_moments() -> None:
    place = place_of(box(20, 30, 12))
    assert place is not None
    assert (place.x, place.y, place.width, place.height) == pytest.approx((20 / 48, 30 / 48, 0.25, 0.25))


# ---- choice


def test_a_newcomer_is_what_the_model_says_it_is() -> None:
    ruling = ruled(proposed([box(10, 10), box(30, 30), box(20, 20)], (0.5, 0.9, 0.6)), None)
    assert ruling.choice == 1 and ruling.is_seen and ruling.is_remembered and ruling.cut_hw is None


def test_of_masks_that_all_fit_the_models_estimate_decides() -> None:
    masks = [box(20, 20), box(20, 21), box(21, 20)]
    assert ruled(proposed(masks, (0.80, 0.79, 0.81)), followed(box(20, 20))).choice == 2


def test_a_mask_in_its_place_wins_over_a_slightly_better_estimate_elsewhere() -> None:
    masks = [box(26, 20), box(20, 20), box(26, 21)]
    ruling = ruled(proposed(masks, (0.90, 0.85, 0.80)), followed(box(20, 20)))
    assert ruling.choice == 1


def test_a_negative_score_is_an_absence() -> None:
    motion = followed(box(20, 20))
    ruling = ruled(proposed([box(20, 20)], score=-0.1), motion)
    assert not ruling.is_seen and not ruling.is_remembered
    assert ruling.motion is not None and ruling.motion.num_missed == 1


# ---- jump


def test_a_look_alike_far_away_is_not_the_object_until_patience_ends() -> None:
    motion, there = followed(box(10, 10, 8)), proposed([box(40, 40, 8)])
    for _ in range(5):
        ruling = ruled(there, motion)
        assert not ruling.is_seen and ruling.motion is not None
        motion = ruling.motion.predicted(None)
    for _ in range(PATIENCE):
        ruling = ruled(there, motion)
        assert ruling.motion is not None
        motion = ruling.motion.predicted(None)
    assert ruling.is_seen, "after a while anything may be it"


def test_who_comes_out_where_he_was_expected_is_taken_at_once() -> None:
    motion = followed(box(20, 20))
    for _ in range(4):
        ruling = ruled(proposed([box(20, 20)], score=-1.0), motion)
        assert ruling.motion is not None
        motion = ruling.motion.predicted(None)
    assert ruled(proposed([box(22, 20)]), motion).is_seen


# ---- cut


def test_a_part_that_lies_apart_is_cut_off_and_the_rest_is_remembered() -> None:
    both = box(12, 20) | box(36, 20)
    ruling = ruled(proposed([both]), followed(box(12, 20)))
    assert ruling.is_seen and ruling.cut_hw is not None
    assert np.array_equal(both & ~ruling.cut_hw, box(12, 20))
    assert ruling.is_remembered, "what is left is the object, whole and alone"


def test_a_mask_that_spreads_over_a_look_alike_is_cut_to_the_expected_place_and_not_remembered() -> None:
    alone, spread = box(15, 20), box(15, 20) | box(25, 20)
    [near] = rule([proposed([alone, spread, spread], (0.9, 0.5, 0.5))], [followed(alone)])
    assert near.motion is not None and near.motion.is_rivalled
    ruling = ruled(proposed([spread]), near.motion.predicted(None))
    assert ruling.is_seen and not ruling.is_remembered and ruling.cut_hw is not None
    left = place_of(spread & ~ruling.cut_hw)
    assert left is not None and left.width < 0.3


def test_what_grows_where_no_look_alike_is_near_is_not_cut() -> None:
    ruling = ruled(proposed([box(20, 20, 14)]), followed(box(20, 20)))
    assert ruling.is_seen and ruling.cut_hw is None


def test_two_halves_of_one_object_stay_together() -> None:
    halves = box(16, 20, 10) | box(27, 20, 10)
    halves[:, 21] = False
    known = BoxFilter.start(Place(21.5 / 48, 20 / 48, 21 / 48, 10 / 48))
    left = cut(halves, known, is_rivalled=True)
    assert np.array_equal(left.mask_hw, halves) and left.is_sure


# ---- claim


def test_contested_pixels_go_to_the_nearer_object() -> None:
    both = box(18, 20) | box(28, 20)
    left, right = share_out([both, both], [Place(18 / 48, 20 / 48, 0.2, 0.2), Place(28 / 48, 20 / 48, 0.2, 0.2)])
    assert not (left & right).any() and np.array_equal(left | right, both)
    assert left[:, :18].any() and not left[:, 28:].any() and not right[:, :18].any()


def test_of_two_that_claim_one_mask_the_other_is_hidden() -> None:
    motions = [followed(box(20, 20)), followed(box(29, 20))]
    rulings = rule([proposed([box(20, 20)]), proposed([box(20, 20)])], motions)
    assert [ruling.is_seen for ruling in rulings] == [True, False]


def test_two_that_claim_both_get_their_own_and_neither_is_remembered() -> None:
    both = box(18, 20) | box(28, 20)
    rulings = rule([proposed([both])] * 2, [followed(box(18, 20)), followed(box(28, 20))])
    kept = [both & ~ruling.cut_hw for ruling in rulings if ruling.cut_hw is not None]
    assert len(kept) == 2 and all(ruling.is_seen and not ruling.is_remembered for ruling in rulings)
    assert [round(float(np.nonzero(mask)[1].mean())) for mask in kept] == pytest.approx([17, 27], abs=2)


def test_newcomers_do_not_claim() -> None:
    rulings = rule([proposed([box(20, 20)])] * 2, [None, None])
    assert all(ruling.is_seen and ruling.cut_hw is None for ruling in rulings)


# ---- memory


def test_a_low_estimate_does_not_enter_memory() -> None:
    motion = followed(box(20, 20))
    assert ruled(proposed([box(20, 20)], (0.9, 0.1, 0.1)), motion).is_remembered
    low = ruled(proposed([box(20, 20)], (0.5, 0.1, 0.1)), motion)
    assert low.is_seen and not low.is_remembered, "0.5 is low for an object whose usual estimate is 0.9"


def test_a_sliver_is_shown_but_not_remembered() -> None:
    sliver = box(20, 20) & (np.arange(SIDE) < 17)
    ruling = ruled(proposed([sliver]), followed(box(20, 20)))
    assert ruling.is_seen and not ruling.is_remembered


# ---- anchor


def test_a_frame_with_a_look_alike_beside_a_sure_mask_becomes_an_anchor_now_and_then() -> None:
    motion, both = followed(box(12, 20), ANCHOR_EVERY + 1), box(12, 20) | box(36, 20)
    ruling = ruled(proposed([box(12, 20), both, both], (0.9, 0.5, 0.5)), motion)
    assert ruling.is_anchor and ruling.motion is not None
    again = ruled(proposed([box(12, 20), both, both], (0.9, 0.5, 0.5)), ruling.motion.predicted(None))
    assert again.is_remembered and not again.is_anchor


def test_a_frame_without_a_rival_is_no_anchor() -> None:
    motion = followed(box(12, 20), ANCHOR_EVERY + 1)
    assert not ruled(proposed([box(12, 20)]), motion).is_anchor
