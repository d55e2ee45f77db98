"""Videos, tasks and a tracker for the tests of `segment`; as a program, a run that waits to be killed."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from pocket import pocket_engine

from engines.synthetic import ClipSpec, SyntheticClip
from stream.segment import FORMATS, ClipRun, GivenPrompt, Settings, Summary, Task
from stream.segment.run import Progress
from stream.tracker import Tracker

NUM = 20
CHUNK = 6
SIZE = 96, 112
CLIP = SyntheticClip(ClipSpec(seed=5, num_frames=NUM, height=SIZE[0], width=SIZE[1]))


def write_clip(path: Path, num_frames: int = NUM) -> Path:
    """A generated clip as H.264 with B-frames and a key frame now and then."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "10", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(CLIP.frame(index % NUM), "bgr24")))
        container.mux(stream.encode())
    return path


def click(object_id: int = 1, **more: object) -> GivenPrompt:
    """A point in the middle of an object of the clip on its first picture."""
    rows, columns = np.nonzero(CLIP.masks(0)[(object_id - 1) % CLIP.spec.num_objects])
    return GivenPrompt(object_id, points=((float(columns.mean()), float(rows.mean()), 1),), **more)  # type: ignore[arg-type]


def make_task(source: Path, out: Path, *prompts: GivenPrompt, **settings: object) -> Task:
    """All formats, in short chunks, unless told otherwise."""
    told = {"formats": FORMATS, "chunk": CHUNK, **settings}
    return Task(source.stem, str(source), out, prompts or (click(1), click(2, label="two")), Settings(**told))  # type: ignore[arg-type]


def pocket_tracker() -> Tracker:
    return Tracker(pocket_engine())


@functools.cache
def shared_tracker() -> Tracker:
    """One for all tests: a run begins as with a new one."""
    return pocket_tracker()


def run_task(task: Task, tell: Callable[[Progress], None] | None = None) -> Summary:
    return ClipRun(task, shared_tracker, tell).run()


def contents(folder: Path) -> dict[str, str]:
    """Every file that a user sees, and its hash."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".segment" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def pause_at(num: int) -> Callable[[Progress], None]:
    """Says so, then waits to be killed."""

    def tell(step: Progress) -> None:
        if step.num_done == num:
            print("now", flush=True)
            sys.stdin.readline()

    return tell


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))  # sums of another number of threads may round otherwise
    run_task(make_task(Path(sys.argv[1]), Path(sys.argv[2])), pause_at(int(sys.argv[3])))
