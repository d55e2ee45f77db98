"""Steadiness and identities: what is counted as jitter, as a switch, and as an object that was found again."""

from __future__ import annotations

import numpy as np
import pytest
from test_quality import NOTHING, box, video

from stream.quality import ObjectScore, Scene, Scoring, SequenceScorer, score_sequence, summarise
from stream.sequence import LabelledFrame

BY_ID = Scoring(match="ids")
ONE, TWO = box(2, 2), box(14, 18)


def objects(found: list[dict[int, np.ndarray]], truth: list[dict[int, np.ndarray]]) -> dict[int, ObjectScore]:
    score = score_sequence(video(truth[0], *found, truth[-1]), video(truth[0], *truth, truth[-1]), BY_ID)
    return {item.id: item for item in score.objects}


def test_a_mask_that_goes_with_its_object_is_steady_and_one_that_shakes_is_not() -> None:
    truth = [{1: box(2, 2 + index)} for index in range(12)]
    steady = objects(truth, truth)[1]
    assert (steady.jitter, steady.jitter_truth, steady.instability) == (0.0, 0.0, 0.0)
    shaken = objects([{1: box(2 + index % 2, 2 + index)} for index in range(12)], truth)[1]
    assert shaken.jitter == pytest.approx(1 - 7 / 9)  # a row of eight in, another out
    assert shaken.jitter_truth == 0.0


def test_what_truth_itself_changes_is_no_instability() -> None:
    growing = [{1: box(8, 8, 4 + 2 * (index // 2), 4)} for index in range(6)]
    item = objects(growing, growing)[1]
    assert item.jitter == item.jitter_truth and item.jitter is not None and item.jitter > 0
    assert item.instability == 0.0


def test_steadiness_is_unknown_where_no_two_pictures_can_be_compared() -> None:
    truth = [{1: ONE}, {1: NOTHING}, {1: ONE}, {}]
    item = objects(truth, truth)[1]
    assert (item.jitter, item.jitter_truth, item.instability) == (None, None, None)


def test_twins_that_are_exchanged_are_two_switches_and_coming_home_is_none() -> None:
    right, wrong = {1: ONE, 2: TWO}, {1: TWO, 2: ONE}
    found = [right, wrong, wrong, {}, wrong, right, right]
    assert [item.num_switches for item in objects(found, [right] * 7).values()] == [1, 1]
    again = [right, wrong, right, wrong]
    assert [item.num_switches for item in objects(again, [right] * 4).values()] == [2, 2]


def test_a_prediction_on_another_object_is_a_switch_also_where_its_own_is_hidden() -> None:
    truth = [{1: ONE, 2: TWO}, {1: NOTHING, 2: TWO}, {1: NOTHING, 2: TWO}, {1: ONE, 2: TWO}]
    found = [{1: ONE, 2: TWO}, {1: TWO, 2: TWO}, {1: TWO, 2: TWO}, {1: TWO, 2: TWO}]
    assert [item.num_switches for item in objects(found, truth).values()] == [1, 0]


def test_a_mask_on_nothing_is_lost_and_no_switch() -> None:
    right, gone = {1: ONE, 2: TWO}, {1: box(2, 20), 2: TWO}
    item = objects([right, gone, {2: TWO}, right], [right] * 4)[1]
    assert (item.num_switches, item.region.mean) == (0, 0.5)


@pytest.mark.parametrize("late, returns", [(0, (0,)), (3, (3,)), (5, (None,))])
def test_pictures_to_reacquire_count_from_the_one_that_shows_it_again(late: int, returns: tuple[int | None]) -> None:
    truth = [{1: ONE}] * 2 + [{1: NOTHING}] * 3 + [{1: ONE}] * 5
    found = [{1: ONE}] * 2 + [{}] * (3 + late) + [{1: ONE}] * (5 - late)
    item = objects(found, truth)[1]
    assert item.returns == returns


def test_an_object_that_is_hidden_again_before_it_is_found_was_not_reacquired() -> None:
    here, hidden = {1: ONE}, {1: NOTHING}
    truth = [here, hidden, here, hidden, here, here]
    found = [here, {}, {}, {}, {}, here]
    summary = summarise([score_sequence(video(here, *found, here), video(here, *truth, here))])
    assert summary is not None
    assert (summary.num_returns, summary.num_reacquired, summary.pictures_to_reacquire) == (2, 1, 1.0)


def test_a_tracker_in_the_loop_is_scored_as_its_masks_on_disk_are() -> None:
    truth, found = [{1: ONE, 2: TWO}] * 5, [{1: box(3, 3), 2: TWO}] * 5
    scorer = SequenceScorer(Scene("clip", ONE.shape))
    for index, (theirs, ours) in enumerate(zip(truth[:-1], found[:-1], strict=True)):
        scorer.put(LabelledFrame(index, theirs), LabelledFrame(index, ours) if index else None, is_scored=index > 0)
    assert scorer.score() == score_sequence(video(*found), video(*truth))


def test_nothing_to_judge_has_no_summary() -> None:
    empty = video({}, {}, {})
    assert summarise([score_sequence(empty, empty)]) is None
    assert summarise([]) is None
