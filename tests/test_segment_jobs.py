"""Several videos at once: each has a process and a tracker, and a bad one costs the others nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from segment_rig import contents, make_task, pocket_tracker, run_task, write_clip

from engines.weights import WeightsError
from stream.segment import Outcome, segment_clips
from stream.segment.run import Progress
from stream.tracker import Tracker


def refuse() -> Tracker:
    raise WeightsError("no such model")


def die() -> Tracker:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")


def test_jobs_leave_the_bytes_that_one_after_another_leave_and_name_the_bad_one(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{name}.mp4", 9) for name in ("one", "two")]
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    tasks = [make_task(path, tmp_path / "many", formats=("davis", "rle")) for path in (clips[0], bad, clips[1])]
    seen: list[Progress | Outcome] = []
    outcomes = segment_clips(tasks, pocket_tracker, jobs=2, tell=seen.append)
    assert [outcome.name for outcome in outcomes] == ["one", "bad", "two"]
    assert outcomes[1].summary is None and "this is not a video" in outcomes[1].error
    assert {event.name for event in seen if isinstance(event, Progress) and event.num_done == 9} == {"one", "two"}
    for path in clips:
        run_task(make_task(path, tmp_path / "single", formats=("davis", "rle")))
    assert contents(tmp_path / "many") == contents(tmp_path / "single")


@pytest.mark.parametrize(
    ("opening", "words"),
    [pytest.param(refuse, "no such model", marks=pytest.mark.slow), (die, "the same command goes on")],
)
def test_a_process_that_cannot_work_is_told_for_each_of_its_videos(tmp_path: Path, opening: object, words: str) -> None:
    tasks = [make_task(write_clip(tmp_path / f"{name}.mp4", 2), tmp_path) for name in ("one", "two")]
    outcomes = segment_clips(tasks, opening, jobs=2, tell=lambda _: None)  # type: ignore[arg-type]
    assert [(outcome.name, outcome.summary) for outcome in outcomes] == [("one", None), ("two", None)]
    assert all(words in outcome.error for outcome in outcomes)
