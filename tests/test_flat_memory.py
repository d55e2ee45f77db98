"""The tracker does not grow: 2,000 frames, all kept for late prompts, with an object added, refined, refined late, put
back as it was and removed every 20, in a process of its own, so that other tests neither disturb it nor are blamed.
Measured: 15 to 25 bytes a frame, 45 s of one core.

Called as a program this file is that process; it prints one JSON object per sample.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

NUM_FRAMES, WARM_UP, SAMPLE_EVERY = 2000, 500, 50
MAX_BYTES_PER_FRAME = 200
pytestmark = pytest.mark.timeout(900)  # on a busy machine; the run is shared by the tests


def measure(frame: int) -> dict[str, int]:
    """What lives in this process, after everything that can go has gone."""
    import torch

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "frame": frame,
        "tensors": sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()),
        "threads": len(os.listdir("/proc/self/task")) + threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def main() -> None:
    import torch
    from pocket import clip_frames, pocket_engine

    from stream.prompt import checked_prompt
    from stream.tracker import Tracker

    torch.set_num_threads(1)
    tracker, frames = Tracker(pocket_engine()), clip_frames(1, 20)
    tracker.add(1, points=[(50, 40, 1)])
    for frame in range(NUM_FRAMES + 1):
        if frame % 20 == 0:
            tracker.add(2 + frame, box=(20, 20, 60, 70))
        if frame % 20 == 9:
            tracker.refine(2 + frame - 9, points=[(40, 40, 1), (3, 3, 0)])
            tracker.refine(1, points=[(50, 42, 1)])
        if frame % 20 == 11:
            before = tracker.snapshot(1)
            click = checked_prompt(points=[(50, 40, 1)], box=None, mask=None)
            assert tracker.prompt_past(1, click, frame - 5, camera="", refine=True)
        if frame % 20 == 13:
            tracker.restore(1, before)
        if frame % 20 == 15:
            tracker.remove(2 + frame - 15)
        tracker.launch({"": frames[frame % 20]}, {"": frame}, marks={"": frame})[""].resolve()
        if frame >= WARM_UP and frame % SAMPLE_EVERY == 0:
            print(json.dumps(measure(frame)), flush=True)


@pytest.fixture(scope="module")
def samples() -> list[dict[str, int]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc, which only Linux has")
    here = Path(__file__).resolve()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here.parent}"}
    done = subprocess.run([sys.executable, str(here)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_nothing_is_left_behind_after_2000_frames(samples: list[dict[str, int]]) -> None:
    first, last = samples[0], samples[-1]
    assert (first["frame"], last["frame"]) == (WARM_UP, NUM_FRAMES)
    for kind in ("tensors", "threads", "descriptors"):
        assert first[kind] == last[kind], f"{kind}: {first[kind]} at frame {WARM_UP}, {last[kind]} at {NUM_FRAMES}"


def test_resident_memory_does_not_grow_with_frames(samples: list[dict[str, int]]) -> None:
    """The median slope of all pairs of samples (Theil-Sen): one late page or one freed block says nothing."""
    frames, rss = (np.array([sample[key] for sample in samples]) for key in ("frame", "rss"))
    one, other = np.triu_indices(len(frames), k=1)
    slope = float(np.median((rss[other] - rss[one]) / (frames[other] - frames[one])))
    print(f"RSS: {rss[-1] / 1e6:.0f} MB, slope {slope:.1f} bytes a frame")
    assert slope < MAX_BYTES_PER_FRAME


if __name__ == "__main__":
    main()
