"""How many cameras does one device serve, how fairly, and how old are their masks? 1 to 32 synthetic cameras.

Each camera is a thread that writes a ready-made picture into its ring at `--fps`, as a capture thread would; the
daemon's own rooms do the rest: worker, tracker, publisher, and one subscriber in another process. One object a camera.
`--model null` is everything but the arithmetic. Aggregate fps: pictures published a second over all cameras. Fairness:
Jain's index of the cameras' own rates (1 = all alike; 1/n = one camera has it all), and the slowest camera's share of
the mean. Age: from the picture's arrival to its publication, and to `recv`. Drops: pictures that a newer one replaced
before the worker took them. The ceiling of a row is what the cameras sent. The last line is one JSON object.

    python benchmarks/cameras.py [--model nano] [--cameras 1 2 4 8 16 32] [--fps 15] [--seconds 15] [--save FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.crowd import Audience, percentiles
from benchmarks.machine import conclude, machine_facts
from benchmarks.null_engine import NullEngine
from engines.synthetic import ClipSpec, SyntheticClip
from stream import wire
from stream.conditions import ConditionBoard
from stream.config import CameraConfig, PromptConfig
from stream.device import limit_cpu_threads
from stream.feed import Feed, FixedRing
from stream.frame import CameraCondition, CameraState, Stamp
from stream.publish import Publisher
from stream.ring import FrameRing
from stream.tracker import Tracker
from stream.worker import GpuWorker, WorkerOptions

HEIGHT, WIDTH, NUM_PICTURES = 480, 640, 24
WARM_UP_S, LIMIT_S = 3.0, 120.0


class SyntheticCamera:
    """A thread that puts ready-made pictures into a ring, each at its time; one that is late is not made up for.

    `num_sent` is written by that thread.
    """

    def __init__(self, name: str, pictures: list[NDArray[np.uint8]], *, fps: float, doorbell: threading.Event) -> None:
        self.name, self.num_sent = name, 0
        self.ring = FrameRing(name, doorbell=doorbell)
        self._pictures, self._period_s = pictures, 1 / fps
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"cam:{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self) -> None:
        self._thread.join(5)

    def _run(self) -> None:
        due_s = time.monotonic() + zlib.crc32(self.name.encode()) / 2**32 * self._period_s  # not all in one instant
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            number, now_ns = self.num_sent, time.monotonic_ns()
            stamp = Stamp(self.name, 0, number, f"{self.name}_optical_frame", None, time.time_ns(), now_ns, now_ns)
            index = number % (2 * len(self._pictures))  # to and fro, so that nothing jumps
            self.ring.write(self._pictures[min(index, 2 * len(self._pictures) - 1 - index)], stamp)
            self.num_sent += 1
            due_s = max(due_s + self._period_s, time.monotonic())


class Site:
    """The daemon's rooms behind some cameras."""

    def __init__(self, tracker: Tracker, count: int, *, fps: float, clips: list[SyntheticClip]) -> None:
        doorbell = threading.Event()
        pictures = [[clip.frame(index) for index in range(NUM_PICTURES)] for clip in clips]
        names = [f"cam{number:02}" for number in range(count)]
        self.cameras = [
            SyntheticCamera(name, pictures[number % len(clips)], fps=fps, doorbell=doorbell)
            for number, name in enumerate(names)
        ]
        infos = tuple(wire.CameraInfo(name=name) for name in names)
        self.publisher = Publisher(["tcp://127.0.0.1:*"], info=wire.Info(cameras=infos))
        board = ConditionBoard(self.publisher)
        feeds = []
        for number, camera in enumerate(self.cameras):
            board.put_state(CameraState(camera.name, 0, CameraCondition.ONLINE, "", 0))
            x, y = clips[number % len(clips)].click(0)
            prompts = (PromptConfig(1, "thing", points=((float(x), float(y), 1),)),)
            feeds.append(Feed(CameraConfig(camera.name, "testsrc://", prompts=prompts), FixedRing(camera.ring)))
        self.worker = GpuWorker(
            lambda: tracker, feeds, publisher=self.publisher, doorbell=doorbell, options=WorkerOptions(board=board)
        )

    def start(self) -> None:
        self.publisher.start()
        self.publisher.wait_ready()
        self.worker.start()
        self.worker.ready.wait(LIMIT_S)

    def stop(self) -> None:
        for camera in self.cameras:
            camera.stop()
        for camera in self.cameras:
            camera.join()
        for room in (self.worker, self.publisher):
            room.stop()
            room.join(10)

    def counts(self) -> dict[str, NDArray[np.int64]]:
        names = [camera.name for camera in self.cameras]
        return {
            "sent": np.array([camera.num_sent for camera in self.cameras]),
            "published": np.array([self.publisher.meter(name).count for name in names]),
            "replaced": np.array([camera.ring.num_dropped.get("replaced", 0) for camera in self.cameras]),
            "turns": np.array([self.worker.num_turns]),
        }


def run_row(tracker: Tracker, count: int, *, fps: float, seconds: float, clips: list[SyntheticClip]) -> dict[str, Any]:
    tracker.reset()
    site = Site(tracker, count, fps=fps, clips=clips)
    site.start()
    with tempfile.TemporaryDirectory() as folder:
        audience = Audience(site.publisher.endpoints[0], 1, Path(folder, "arrivals.npz"))
        for camera in site.cameras:
            camera.start()
        time.sleep(WARM_UP_S)
        before, started_ns = site.counts(), time.monotonic_ns()
        time.sleep(seconds)
        found, ended_ns = site.counts(), time.monotonic_ns()
        site.stop()
        if site.worker.error is not None:
            raise site.worker.error
        numbers, received_ns, payloads = audience.leave()
    delta = {name: found[name] - before[name] for name in found}
    span_s = (ended_ns - started_ns) / 1e9
    rates = delta["published"] / span_s
    row: dict[str, Any] = {
        "cameras": count, "sent_fps": round(float(delta["sent"].sum()) / span_s, 1),
        "aggregate_fps": round(float(rates.sum()), 1),
        "fairness": round(float(rates.sum() ** 2 / (count * (rates**2).sum())), 4) if rates.any() else 0.0,
        "slowest_of_mean": round(float(rates.min() / rates.mean()), 3) if rates.any() else 0.0,
        "frames_per_turn": round(float(delta["published"].sum() / max(1, delta["turns"][0])), 2),
        "dropped_share": round(float(delta["replaced"].sum() / max(1, delta["sent"].sum())), 4),
    }  # fmt: skip
    messages = [message for message in map(wire.decode, payloads) if isinstance(message, wire.MasksMessage)]
    is_within = (received_ns >= started_ns) & (received_ns < ended_ns)
    chosen = numbers[is_within]
    arrival, published = (np.array([getattr(m, name) for m in messages]) for name in ("arrival_ns", "published_ns"))
    row["capture_to_publish_ms"] = percentiles((published - arrival)[chosen])
    row["capture_to_recv_ms"] = percentiles(received_ns[is_within] - arrival[chosen])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    facts, rows = machine_facts(), []
    clips = [SyntheticClip(ClipSpec(seed=seed, height=HEIGHT, width=WIDTH)) for seed in range(4)]
    if options.model == "null":
        tracker = Tracker(NullEngine())
    else:
        tracker = Tracker.load(options.model, options.checkpoint, backend=options.backend)
    engine = tracker.engine
    limit_cpu_threads(engine.device, engine.spec.image_size)
    for count in options.cameras:
        rows.append(run_row(tracker, count, fps=options.fps, seconds=options.seconds, clips=clips))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "benchmark": "cameras", **facts, "model": options.model, "backend": engine.backend,
        "dtype": str(engine.dtype).removeprefix("torch."), "frame": [WIDTH, HEIGHT], "fps": options.fps, "rows": rows,
    }  # fmt: skip
    conclude(result, options.save)


if __name__ == "__main__":
    main()
