"""What does it cost to keep pictures for late clicks: per picture, and when such a click comes?

The nano model on one thread of a CPU. Two trackers with the same objects take the same pictures in turn, one keeps
them: the ceiling is a ratio of 1. Times are of the thread, so that a busy machine does not count. The last line is
one JSON object.

    python benchmarks/history.py [--frames 150] [--save FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.machine import conclude, machine_facts
from engines.synthetic import ClipSpec, SyntheticClip
from stream.prompt import checked_prompt
from stream.tracker import Tracker

CAMERA, WARM_UP, LATE = "cam", 20, 9


def measure(clip: SyntheticClip, num_objects: int, num_frames: int) -> dict[str, Any]:
    plain, keeping = (Tracker.load("nano", device="cpu", dtype="fp32") for _ in range(2))
    for tracker in (plain, keeping):
        for number in range(num_objects):
            x, y = clip.click(number % clip.spec.num_objects)
            tracker.add(number + 1, points=[(x, y, 1)], camera=CAMERA)
    times_s: dict[Tracker, list[float]] = {plain: [], keeping: []}
    for index in range(num_frames):
        frame = clip.frame(index % clip.spec.num_frames)
        for tracker in (plain, keeping) if index % 2 else (keeping, plain):
            marks = {CAMERA: index} if tracker is keeping else None
            start = time.thread_time()
            tracker.launch({CAMERA: frame}, {CAMERA: index}, marks=marks)[CAMERA].resolve()
            times_s[tracker].append(time.thread_time() - start)
    without, kept = (statistics.median(times_s[tracker][WARM_UP:]) for tracker in (plain, keeping))
    num_bytes = keeping._history.num_bytes()
    click = checked_prompt(points=[(*clip.click(0), 1)], box=None, mask=None)
    start = time.thread_time()
    assert keeping.prompt_past(99, click, num_frames - LATE, camera=CAMERA, refine=False)
    late_ms = (time.thread_time() - start) * 1e3
    return {
        "objects": num_objects, "without_ms": round(without * 1e3, 2), "kept_ms": round(kept * 1e3, 2),
        "ratio": round(kept / without, 3) if num_objects else None, "kept_mb": round(num_bytes / 1e6, 1),
        "click_late_frames": LATE, "click_ms": round(late_ms, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clip = SyntheticClip(ClipSpec(seed=5, num_frames=60, height=480, width=640))
    rows = [measure(clip, num_objects, arguments.frames) for num_objects in (0, 1, 4)]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    result = {
        "benchmark": "history", "model": "nano", "frame": [640, 480], "rows": rows, **machine_facts(),
    }  # fmt: skip
    conclude(result, arguments.save)


if __name__ == "__main__":
    main()
