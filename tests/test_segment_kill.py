"""`segment` goes on after a kill: what it leaves is what an undisturbed run would have left, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killing import kill_process
from segment_rig import CHUNK, NUM, click, contents, make_task, run_task, write_clip

from stream.config import RefineOptions
from stream.segment import SegmentError
from stream.segment.run import Progress

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def undisturbed(clip: Path) -> dict[str, str]:
    out = clip.parent / "undisturbed"
    assert run_task(make_task(clip, out)).num_pictures == NUM
    return contents(out)


class Stopped(Exception):
    """Stands for the end of the process."""


def stop_at(num: int) -> Callable[[Progress], None]:
    def tell(step: Progress) -> None:
        if step.num_done == num:
            raise Stopped

    return tell


def test_a_killed_run_ends_with_the_same_bytes(clip: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    program = [sys.executable, str(HERE / "segment_rig.py"), str(clip), str(tmp_path / "out"), str(2 * CHUNK + 3)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    kill_process(process)
    assert contents(tmp_path / "out").keys() != undisturbed.keys()
    done: list[int] = []
    assert run_task(make_task(clip, tmp_path / "out"), lambda step: done.append(step.num_done)).num_pictures == NUM
    assert done[0] == 2 * CHUNK, "it went on from the last chunk and did not begin anew"
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("num", [1, CHUNK, 2 * CHUNK + 1])
def test_wherever_it_stops_the_bytes_are_the_same(
    clip: Path, undisturbed: dict[str, str], tmp_path: Path, num: int
) -> None:
    task = make_task(clip, tmp_path)
    with pytest.raises(Stopped):
        run_task(task, stop_at(num))
    run_task(task)
    assert contents(tmp_path) == undisturbed


def test_a_run_that_is_done_is_not_repeated(clip: Path, tmp_path: Path) -> None:
    task = make_task(clip, tmp_path, formats=("rle",))
    first = run_task(task)
    assert run_task(task, stop_at(0)) == first


def test_other_prompts_or_options_are_refused_until_told_to_overwrite(clip: Path, tmp_path: Path) -> None:
    task = make_task(clip, tmp_path, formats=("davis",))
    run_task(task)
    for other in (make_task(clip, tmp_path, click(2), formats=("davis",)), make_task(clip, tmp_path, formats=("rle",))):
        with pytest.raises(SegmentError, match="expected the same ones, another folder, or --overwrite"):
            run_task(other)
    again = replace(task, prompts=(click(2),), settings=replace(task.settings, overwrite=True, every=2))
    assert run_task(again).num_pictures == (NUM + 1) // 2
    assert len(contents(tmp_path)) == (NUM + 1) // 2, "pictures of the earlier run are gone"


def test_a_damaged_state_is_refused_in_one_line(clip: Path, tmp_path: Path) -> None:
    task = make_task(clip, tmp_path, formats=("davis",))
    with pytest.raises(Stopped):
        run_task(task, stop_at(CHUNK + 1))
    state = task.work / "state"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(SegmentError, match="damaged or of another version"):
        run_task(task)


@pytest.mark.parametrize(
    "settings",
    [{"memory_policy": "motion", "camera_motion": True}, {"refine": RefineOptions(8, 8, 0.8, "guided", True)}],
    ids=["motion", "refined"],
)
def test_motion_and_smoothed_masks_go_on_as_they_were(clip: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    plain = make_task(clip, tmp_path / "plain", formats=("rle",))
    tasks = [make_task(clip, tmp_path / name, formats=("rle",), **settings) for name in ("one", "other")]
    for task in (plain, tasks[0]):
        run_task(task)
    with pytest.raises(Stopped):
        run_task(tasks[1], stop_at(CHUNK + 1))
    run_task(tasks[1])
    assert contents(tmp_path / "other") == contents(tmp_path / "one") != contents(tmp_path / "plain")
