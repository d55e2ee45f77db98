"""The command `replay`: publishes a `.masks` file again, in its own time.

Owns: the outlet while it runs. Thread: the main thread of the command. Never: changes a message but for its `run`,
which is new for every pass, so that subscribers do not take a second pass for old news.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stream import wire
from stream.outlet import Outlet
from stream.recording import Record, RecordingError, RecordingReader

NUM_CAMERAS = 32  # for the length of the queues; a recording does not say how many it holds
TURN_MS = 250.0


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What the command line asked for. Between passes of a loop, `wait_s` is not waited again."""

    path: Path
    bind: tuple[str, ...] = ("tcp://127.0.0.1:5560",)
    speed: float = 1.0
    loop: bool = False
    wait_s: float = 1.0  # subscribers need a moment to find the endpoint before the first message


def run_replay(
    request: ReplayRequest,
    stopping: threading.Event | None = None,
    on_bound: Callable[[tuple[str, ...]], None] | None = None,
) -> int:
    """Publish until the end, or until `stopping` is set; the number of messages sent."""
    if not (request.speed > 0 and math.isfinite(request.speed)):
        raise ValueError(f"speed {request.speed}, expected a number above 0")
    stopping = stopping or threading.Event()
    reader = RecordingReader(request.path)
    if next(iter(reader), None) is None:
        raise RecordingError(f"{request.path} holds no message, expected at least one")
    outlet = Outlet(request.bind, num_cameras=NUM_CAMERAS)
    try:
        if on_bound is not None:
            on_bound(outlet.endpoints)
        wait_until(outlet, time.monotonic() + request.wait_s, stopping)
        num_sent = play(outlet, reader, speed=request.speed, stopping=stopping)
        while request.loop and not stopping.is_set():
            num_sent += play(outlet, reader, speed=request.speed, stopping=stopping)
    finally:
        outlet.close()
    return num_sent


def play(outlet: Outlet, reader: RecordingReader, *, speed: float, stopping: threading.Event) -> int:
    """One pass."""
    run, num_sent, due, last = time.time_ns(), 0, time.monotonic(), None
    for record in reader:
        due += pause_s(last, record) / speed
        last = record
        wait_until(outlet, due, stopping)
        if stopping.is_set():
            break
        topic, _ = wire.split(record.payload)
        outlet.send(wire.with_run(record.payload, run), kept=topic == "info" or topic.startswith("state/"))
        num_sent += 1
    return num_sent


def pause_s(last: Record | None, record: Record) -> float:
    """Time between two records; none where the file was continued after a boot."""
    return max(0.0, (record.received_ns - last.received_ns) / 1e9) if last else 0.0


def wait_until(outlet: Outlet, due: float, stopping: threading.Event) -> None:
    """Serve subscribers until then."""
    while not stopping.is_set():
        left_ms = (due - time.monotonic()) * 1000
        outlet.wait(min(TURN_MS, left_ms))
        outlet.serve()
        if left_ms <= 0:
            return
