"""Identities on generated scenarios, with the embedded model: what "motion" is for, and what it must not cost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.identities import WAYS, follow
from engines.spec import Engine
from engines.synthetic.scenarios import SCENARIO_SEEDS, ScenarioClip, ScenarioSpec
from stream.quality import SequenceScore
from stream.tracker import load_engine

Clips = Sequence[tuple[str, int]]
MISTAKABLE: Clips = (("crossing_twins", 0), ("motion_blur", 0))
EASY: Clips = (("easy", 0), ("lighting_change", 1))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine("nano", dtype="fp32")  # the same everywhere


def scores(engine: Engine, way: str, clips: Clips) -> list[SequenceScore]:
    made = [ScenarioClip(ScenarioSpec(name, SCENARIO_SEEDS[number])) for name, number in clips]
    return [follow(engine, clip, WAYS[way])[0] for clip in made]


def switches(found: Sequence[SequenceScore]) -> int:
    return sum(item.num_switches for score in found for item in score.objects)


def quality(found: Sequence[SequenceScore]) -> float:
    values = [item.j_and_f for score in found for item in score.objects]
    return sum(values) / len(values)


def test_motion_at_least_halves_the_switches_of_identity(engine: Engine) -> None:
    plain, moved = (switches(scores(engine, way, MISTAKABLE)) for way in ("sam2", "motion"))
    assert plain >= 2, "these clips are mistakable"
    assert moved <= plain / 2, f"{moved} switches with motion, {plain} with sam2"


def test_motion_does_not_lower_the_quality_of_easy_clips(engine: Engine) -> None:
    plain, moved = (quality(scores(engine, way, EASY)) for way in ("sam2", "motion"))
    assert moved >= plain - 0.01 and plain > 0.8


def test_an_object_that_comes_back_is_found_again(engine: Engine) -> None:
    [score] = scores(engine, "motion", [("exit_and_return", 0)])
    [item] = score.objects
    assert item.returns and all(pictures is not None and pictures <= 10 for pictures in item.returns)
