"""`segment` goes on after a kill: what it leaves is what an undisturbed run would have left, byte for byte."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import kill_process
from segment_rig import CHUNK, CLIP, NUM, click, contents, make_task, pocket_tracker, run_task, write_clip

from stream.config import EnhanceOptions, RefineOptions
from stream.footage import open_footage
from stream.segment import SegmentError
from stream.segment.run import Progress
from stream.segment.snapshots import decode_snapshot, encode_snapshot

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
    given = clip, tmp_path / "out", 2 * CHUNK + 3, torch.get_num_threads()
    program = [sys.executable, str(HERE / "segment_rig.py"), *map(str, given)]
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


def test_a_run_killed_at_once_is_not_taken_for_another(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_task(make_task(clip, tmp_path, formats=("davis",)), stop_at(3))
    with pytest.raises(SegmentError, match="begun with another file, prompts or options"):
        run_task(make_task(clip, tmp_path, formats=("davis",), every=2))


def test_masks_that_somebody_else_made_are_not_written_over(clip: Path, tmp_path: Path) -> None:
    truth = tmp_path / "Annotations" / "clip" / "00000.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by hand")
    with pytest.raises(SegmentError, match="not of this run"):
        run_task(make_task(clip, tmp_path, formats=("davis",)))
    assert truth.read_bytes() == b"drawn by hand" and len(contents(tmp_path)) == 1


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
    [
        {"memory_policy": "motion", "camera_motion": True},
        {"refine": RefineOptions(8, 8, 0.8, "guided", True)},
        {"enhance": EnhanceOptions(denoise=1.0, low_light=1.0)},
    ],
    ids=["motion", "refined", "enhanced"],
)
def test_whatever_is_done_to_masks_and_pictures_goes_on_as_it_was(
    clip: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    plain = make_task(clip, tmp_path / "plain", formats=("rle",))
    tasks = [make_task(clip, tmp_path / name, formats=("rle",), **settings) for name in ("one", "other")]
    for task in (plain, tasks[0]):
        run_task(task)
    with pytest.raises(Stopped):
        run_task(tasks[1], stop_at(CHUNK + 1))
    run_task(tasks[1])
    assert contents(tmp_path / "other") == contents(tmp_path / "one") != contents(tmp_path / "plain")


def test_all_that_the_tracker_knows_comes_back_from_bytes(clip: Path) -> None:
    tracker = pocket_tracker()
    tracker.set_camera_policy("", "motion", camera_motion=True)
    tracker.refine_masks(RefineOptions(smooth=0.5))
    for picture in itertools.islice(open_footage(clip).pictures(), 9):
        if not picture.index:
            tracker.add(1, points=click(1).points)
        tracker.step(picture.image_hwc, time_ns=picture.time_ns)
    tracker.add(1, mask=CLIP.masks(3)[0])
    snapshot = tracker.snapshot(1)
    again = decode_snapshot(encode_snapshot(snapshot))
    assert plain(again) == plain(snapshot)
    known = [
        name for name in ("memory", "added", "motion", "finish", "view", "seen") if getattr(snapshot, name) is None
    ]
    assert not known, f"the test has nothing of {known} to lose"


def plain(value: object) -> object:
    """Something that can be compared: arrays and tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.float().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return [type(value).__name__, *(plain(getattr(value, field.name)) for field in fields(value))]
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
