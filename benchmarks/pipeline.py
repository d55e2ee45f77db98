"""What does everything but the model cost? Capture -> ring -> worker -> publish -> subscriber, at 1080p, a null engine.

A camera plays an H.264 file at `--fps`; the daemon's own rooms take it from there; subscribers (1 to 100) sit in one
other process and do nothing but `recv`. Added latency: from the picture's slot being filled to `recv` returning, over
all subscribers, less the time within `Tracker.launch` (on a CPU the resize, the null engine and the read-out of the
masks), which stands beside it. The baseline is what this machine adds by itself, in the same minute: a timer thread, an
event, a second thread, a pipe, a third thread with a ZeroMQ XPUB socket, the same number of bytes to as many
subscribers; no work. CPU is by thread, of the daemon's process. The row with pace=offline tells the most that passes.
The last line is one JSON object.

    python benchmarks/pipeline.py [--subscribers 1 10 100] [--objects 1] [--seconds 20] [--save FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import zmq
from daemon_rig import write_clip

from benchmarks.crowd import Audience, percentiles
from benchmarks.machine import conclude, machine_facts
from benchmarks.null_engine import NullEngine, TimedTracker
from engines.synthetic import ClipSpec
from stream import wire
from stream.bell import Bell
from stream.capture import CameraFeeder
from stream.conditions import ConditionBoard
from stream.config import CameraConfig, PromptConfig
from stream.device import limit_cpu_threads
from stream.feed import Feed
from stream.publish import Publisher
from stream.worker import GpuWorker, WorkerOptions

HEIGHT, WIDTH, NUM_FRAMES = 1080, 1920, 90
WARM_UP_S, LIMIT_S = 2.0, 60.0
TOPIC = b"masks/cam1\0"


class Line:
    """The daemon's rooms from one camera to the socket."""

    def __init__(self, clip: Path, *, num_objects: int, pace: str) -> None:
        prompts = tuple(
            PromptConfig(i + 1, f"thing {i}", points=((WIDTH / 2, HEIGHT / 2, 1),)) for i in range(num_objects)
        )
        config = CameraConfig("cam1", str(clip), pace=pace, loop=True, prompts=prompts)  # type: ignore[arg-type]
        doorbell = threading.Event()
        self.tracker = TimedTracker(NullEngine())
        self.publisher = Publisher(["tcp://127.0.0.1:*"], info=wire.Info(cameras=(wire.CameraInfo(name="cam1"),)))
        board = ConditionBoard(self.publisher)
        self.feeder = CameraFeeder(config, states=board, doorbell=doorbell)
        feeds, options = [Feed(config, self.feeder)], WorkerOptions(board=board)
        self.worker = GpuWorker(
            lambda: self.tracker, feeds, publisher=self.publisher, doorbell=doorbell, options=options
        )  # fmt: skip

    def start(self) -> None:
        limit_cpu_threads(self.tracker.engine.device, self.tracker.image_size)
        self.publisher.start()
        self.publisher.wait_ready()
        self.worker.start()
        self.worker.ready.wait(LIMIT_S)

    def stop(self) -> None:
        self.feeder.stop()
        self.feeder.join(5)
        for room in (self.worker, self.publisher):
            room.stop()
            room.join(5)


def cpu_by_thread() -> Counter[str]:
    """Nanoseconds on a core so far, by the names of our threads; ZeroMQ's and torch's own together."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    spent: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        name = names.get(int(task.name), "libraries")
        spent[name.partition(":")[0]] += int((task / "schedstat").read_text().split()[0])
    return spent


def run_line(clip: Path, count: int, *, num_objects: int, seconds: float, pace: str) -> dict[str, Any]:
    """One row: `count` subscribers for `seconds`."""
    line = Line(clip, num_objects=num_objects, pace=pace)
    line.start()
    with tempfile.TemporaryDirectory() as folder:
        audience = Audience(line.publisher.endpoints[0], count, Path(folder, "arrivals.npz"))
        line.feeder.start()
        time.sleep(WARM_UP_S)
        cpu, started_ns, first = cpu_by_thread(), time.monotonic_ns(), line.publisher.num_published
        time.sleep(seconds)
        cpu, ended_ns, last = cpu_by_thread() - cpu, time.monotonic_ns(), line.publisher.num_published
        line.stop()
        numbers, received_ns, payloads = audience.leave()
    row: dict[str, Any] = {"subscribers": count, "objects": num_objects, "pace": pace}
    row |= {"fps": round((last - first) / (ended_ns - started_ns) * 1e9, 1)}
    row |= latencies(line.tracker, numbers, received_ns, payloads=payloads, span_ns=(started_ns, ended_ns))
    row["cpu_ms_per_frame"] = {name: round(ns / 1e6 / max(1, last - first), 3) for name, ns in cpu.most_common(6)}
    row["cpu_ms_per_frame"]["all"] = round(sum(cpu.values()) / 1e6 / max(1, last - first), 3)
    row["dropped"] = dict(line.feeder.num_dropped)
    return row


def latencies(
    tracker: TimedTracker,
    numbers: NDArray[np.int64],
    received_ns: NDArray[np.int64],
    *,
    payloads: list[bytes],
    span_ns: tuple[int, int],
) -> dict[str, Any]:
    messages = [message for message in map(wire.decode, payloads) if isinstance(message, wire.MasksMessage)]
    spans = np.array([tracker.launches[message.camera, message.arrival_ns] for message in messages])
    filled, published = (np.array([getattr(m, name) for m in messages]) for name in ("decoded_ns", "published_ns"))
    is_within = (received_ns >= span_ns[0]) & (received_ns < span_ns[1])
    chosen, received = numbers[is_within], received_ns[is_within]
    used = np.unique(chosen)
    sizes = np.array([len(payload) for payload in payloads])
    launch = spans[:, 1] - spans[:, 0]
    return {
        "messages_per_s": round(len(chosen) / (span_ns[1] - span_ns[0]) * 1e9, 1),
        "added_ms": percentiles(received - filled[chosen] - launch[chosen]),
        "added_by_stage_ms": {
            "filled_to_launch": percentiles((spans[:, 0] - filled)[used]),
            "launched_to_published": percentiles((published - spans[:, 1])[used]),
            "published_to_recv": percentiles(received - published[chosen]),
        },
        "launch_ms": percentiles(launch[used]),
        "bytes_per_message": int(np.median(sizes[used])),
        "bytes_per_object": int(np.median(sizes[used]) / max(1, len(messages[0].objects))),
    }


class Chain:
    """Three threads that hand a number on and do nothing else: timer -> event -> relay -> pipe -> sender -> socket."""

    def __init__(self, fps: float, num_bytes: int) -> None:
        self.sent_ns: list[int] = []
        self.endpoint = ""
        self.bound = threading.Event()
        self.stopping = threading.Event()
        self._fps, self._padding = fps, bytes(max(0, num_bytes - len(TOPIC) - 8))
        self._event, self._bell, self._lock = threading.Event(), Bell(), threading.Lock()
        loops = (self._time, self._relay, self._send)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]

    def start(self) -> None:
        self._bell_file = self._bell.open()
        for thread in reversed(self._threads):
            thread.start()
        self.bound.wait(LIMIT_S)

    def join(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(5)
        self._bell.close()

    def _time(self) -> None:
        due_s = time.monotonic()
        while not self.stopping.wait(max(0.0, due_s - time.monotonic())):
            self.sent_ns.append(time.monotonic_ns())
            self._event.set()
            due_s += 1 / self._fps

    def _relay(self) -> None:
        while not self.stopping.is_set():
            if self._event.wait(0.25):
                self._event.clear()
                with self._lock:
                    self._bell.ring()

    def _send(self) -> None:
        with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            socket.setsockopt(zmq.LINGER, 500)
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            self.endpoint = f"tcp://127.0.0.1:{port}"
            self.bound.set()
            poller, num_sent = zmq.Poller(), 0
            poller.register(socket, zmq.POLLIN)
            poller.register(self._bell_file, zmq.POLLIN)
            while not self.stopping.is_set():
                ready = dict(poller.poll(250))
                if socket in ready and socket.recv().startswith(b"\1info"):
                    socket.send(b"info\0")
                if self._bell_file in ready:
                    with self._lock:
                        self._bell.quiet()
                    while num_sent < len(self.sent_ns):
                        socket.send(TOPIC + num_sent.to_bytes(8, "little") + self._padding)
                        num_sent += 1


def run_baseline(count: int, *, fps: float, num_bytes: int, seconds: float) -> dict[str, float]:
    chain = Chain(fps, num_bytes)
    chain.start()
    with tempfile.TemporaryDirectory() as folder:
        audience = Audience(chain.endpoint, count, Path(folder, "arrivals.npz"))
        time.sleep(seconds)
        chain.join()
        numbers, received_ns, payloads = audience.leave()
    serials = np.array([int.from_bytes(payload[len(TOPIC) : len(TOPIC) + 8], "little") for payload in payloads])
    late = serials[numbers] > fps  # the first second is a warm-up
    return percentiles((received_ns - np.array(chain.sent_ns)[serials[numbers]])[late])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subscribers", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    facts, rows = machine_facts(), []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        write_clip(clip, ClipSpec(seed=5, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH), fps=options.fps)
        for pace, count in [*(("live", count) for count in options.subscribers), ("offline", 10)]:
            row = run_line(clip, count, num_objects=options.objects, seconds=options.seconds, pace=pace)
            if pace == "live":
                size, seconds = row["bytes_per_message"], options.seconds / 2
                row["baseline_ms"] = run_baseline(count, fps=options.fps, num_bytes=size, seconds=seconds)
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {
        "benchmark": "pipeline", **facts, "zmq": zmq.zmq_version(), "frame": [WIDTH, HEIGHT],
        "fps": options.fps, "rows": rows,
    }  # fmt: skip
    conclude(result, options.save)


if __name__ == "__main__":
    main()
