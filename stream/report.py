"""`Reporter`: gathers the `Status` from the rooms of a running daemon.

Owns: nothing but references to the rooms. Any thread may ask (http, control); each room's counters are written by their
own threads and only read here. Never: waits, or shows a credential.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream.conditions import ConditionBoard
from stream.config import Config
from stream.feed import Feed
from stream.fleet import Fleet
from stream.frame import CameraCondition, CameraState
from stream.loader import Model
from stream.publish import Publisher, software_version
from stream.sightings import advice
from stream.status import CameraStatus, Status
from stream.worker import GpuWorker

STATM = Path("/proc/self/statm")
_PRODUCING = (CameraCondition.ONLINE, CameraCondition.FROZEN, CameraCondition.UNPROMPTED, CameraCondition.LOST)


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The rooms that a report is about, and functions that are asked anew for every report."""

    publisher: Publisher
    worker: GpuWorker
    fleet: Fleet
    board: ConditionBoard
    model: Callable[[], Model]
    hanging: Callable[[], Sequence[str]]
    num_reloads: Callable[[], Mapping[str, int]]
    num_commands: Callable[[], Mapping[str, int]]
    control: Callable[[], tuple[str, ...]]


class Reporter:
    """Written by nobody after construction."""

    def __init__(self, config: Config, rooms: Witnesses) -> None:
        self._config = config
        self._rooms = rooms
        self._started_ns = time.monotonic_ns()

    def status(self) -> Status:
        """The daemon now."""
        rooms, now_ns = self._rooms, time.monotonic_ns()
        states = rooms.board.states()
        cameras = tuple(self._camera(feed, states.get(feed.config.name), now_ns) for feed in rooms.fleet.feeds)
        is_producing = any(state.condition in _PRODUCING for state in states.values())
        model = rooms.model()
        is_loaded = rooms.worker.ready.is_set() and rooms.worker.error is None and bool(model.device)
        return Status(
            software=software_version(), run=rooms.publisher.run_id, pid=os.getpid(),
            uptime_s=(now_ns - self._started_ns) / 1e9, model=self._config.model,
            backend=model.backend, choice=model.choice, device=model.device, dtype=model.dtype,
            problem=rooms.board.problem, is_live=not rooms.hanging(),
            is_ready=is_loaded and (is_producing or not cameras),
            endpoints=rooms.publisher.endpoints, control=rooms.control(),
            num_watched=sum(rooms.publisher.is_watched(camera.name) for camera in cameras),
            num_published=rooms.publisher.num_published,
            num_commands=dict(rooms.num_commands()), num_reloads=dict(rooms.num_reloads()),
            num_objects=sum(len(camera.objects) for camera in cameras), memory_bytes=_memory_bytes(), cameras=cameras,
        )  # fmt: skip

    def _camera(self, feed: Feed, state: CameraState | None, now_ns: int) -> CameraStatus:
        name, feeder = feed.config.name, self._rooms.fleet.feeders.get(feed.config.name)
        if feeder is None or state is None:
            return CameraStatus(name=name, source=feed.config.source_shown)
        meter = self._rooms.publisher.meter(name)
        width, height = self._rooms.publisher.size(name)
        objects, fps_out = self._rooms.worker.object_status(name), meter.rate(now_ns)
        return CameraStatus(
            name=name, source=feed.config.source_shown, condition=state.condition, reason=state.reason,
            since_s=max(0.0, (time.time_ns() - state.utc_ns) / 1e9), epoch=feeder.epoch,
            seq=feeder.seq, width=width, height=height,
            codec=feeder.codec, decoder=feeder.decoder, clock_source=feeder.clock_source,
            fps_in=feeder.fps_in, fps_out=fps_out,
            last_frame_age_s=None if feeder.last_seen_ns is None else max(0, now_ns - feeder.last_seen_ns) / 1e9,
            num_decoded=feeder.num_seen, num_published=meter.count, num_reconnects=feeder.num_reconnects,
            num_abandoned=feeder.num_abandoned, num_dropped=dict(feeder.num_dropped),
            objects=objects, advice=advice(objects, fps_out),
        )  # fmt: skip


def _memory_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
