"""`House`: the rooms of a daemon, built from its configuration and wired together; nothing runs yet.

Owns: who knows whom. Runs in the main thread, once. Never: starts, watches or stops a thread; `stream.daemon` does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engines.weights import checkpoint_name
from stream import wire
from stream.conditions import ConditionBoard
from stream.config import CameraConfig, Config
from stream.control import ControlThread
from stream.control import Rooms as ControlRooms
from stream.feed import Feed
from stream.fleet import Fleet
from stream.health import HealthServer
from stream.keys import KeyRing
from stream.loader import Loader
from stream.metrics import Metrics
from stream.publish import Publisher, PublishOptions
from stream.report import Reporter, Witnesses
from stream.saved import SavedObjects
from stream.worker import GpuWorker, WorkerOptions

Room = Publisher | ControlThread | HealthServer | SavedObjects | GpuWorker


@dataclass(frozen=True, slots=True)
class Duty:
    """What the main thread tells the rooms: reloads by outcome, and what hangs."""

    num_reloads: Callable[[], Mapping[str, int]]
    hanging: Callable[[], Sequence[str]]


class House:
    """Built once by the main thread, which alone writes `_model_told`; the rooms are read by any.

    `threads` are those that have to live as long as the daemon, in the order of their start.
    """

    def __init__(self, config: Config, duty: Duty) -> None:
        self._config = config
        doorbell = threading.Event()
        self.loader = Loader(config)
        self._model_told = self.loader.model
        keys = None if config.keys is None else KeyRing.open(config.keys)
        self.metrics = Metrics(lambda: self.reporter.status(), {"torch": torch.__version__})
        self.publisher = self._make_publisher(keys)
        self.board = ConditionBoard(self.publisher)
        self.saved = _saved_objects(config)
        options = WorkerOptions(config.max_objects, self.board, self.saved, upkeep=self.loader)
        self.worker = GpuWorker(self.loader.load, (), publisher=self.publisher, doorbell=doorbell, options=options)
        epochs = {} if self.saved is None else {name: epoch + 1 for name, epoch in self.saved.epochs().items()}
        self.fleet = Fleet(config, board=self.board, doorbell=doorbell, epochs=epochs, changed=self._on_cameras)
        self.control = self._make_control(keys)
        self.reporter = Reporter(config, self._witnesses(duty))
        self.health = None
        if config.http:
            self.health = HealthServer(
                config.http, status=self.reporter.status, metrics=self.metrics, hanging=duty.hanging
            )

    @property
    def threads(self) -> dict[str, Room]:
        rooms: dict[str, Room | None] = {"pub": self.publisher, "control": self.control, "http": self.health}
        rooms |= {"saver": self.saved, "gpu": self.worker}
        return {name: room for name, room in rooms.items() if room is not None}

    def tell_model(self) -> None:
        """What the worker runs, if that is news: to `info`, and so to masks and states."""
        told, self._model_told = self._model_told, self.loader.model
        if self._model_told.problem != told.problem:
            self.tell_problem("")
        if self._model_told != told:
            self.board.put_backend(self._model_told.backend)
            self._put_info(self.fleet.feeds)

    def tell_problem(self, problem: str) -> None:
        """What the operator must mend, besides what is wrong with the model since the start; "" = nothing else."""
        self.board.put_problem("; ".join(filter(None, (self._model_told.problem, problem))))

    def tell_control(self) -> None:
        """The endpoint for commands is known: let `info` say it."""
        self._put_info(self.fleet.feeds)

    def _make_publisher(self, keys: KeyRing | None) -> Publisher:
        config = self._config
        options = PublishOptions(config.mask_encoding, config.frames_fps, config.jpeg_quality)
        info = self._info(config.cameras, control=None)
        return Publisher(config.bind, info=info, options=options, times=self.metrics, keys=keys)

    def _make_control(self, keys: KeyRing | None) -> ControlThread | None:
        if not self._config.control_endpoints:
            return None
        rooms = ControlRooms(
            objects=self.worker.inbox, cameras=self.fleet.inbox,
            status=lambda: self.reporter.status(), cameras_known=lambda: self.fleet.feeders.keys(),
            wire_schemes=self._config.wire_schemes,
        )  # fmt: skip
        return ControlThread(self._config.control_endpoints, rooms, keys=keys)

    def _witnesses(self, duty: Duty) -> Witnesses:
        control = self.control
        return Witnesses(
            publisher=self.publisher, worker=self.worker, fleet=self.fleet, board=self.board,
            model=lambda: self.loader.model, hanging=duty.hanging, num_reloads=duty.num_reloads,
            num_commands=lambda: {} if control is None else control.num_commands,
            control=lambda: () if control is None else control.endpoints,
        )  # fmt: skip

    def _on_cameras(self, feeds: Sequence[Feed]) -> None:
        self.worker.set_feeds(feeds)
        self._put_info(feeds)

    def _put_info(self, feeds: Sequence[Feed]) -> None:
        control = self.control.endpoints[0] if self.control is not None and self.control.endpoints else None
        self.publisher.put_info(self._info([feed.config for feed in feeds], control=control))

    def _info(self, cameras: Sequence[CameraConfig], *, control: str | None) -> wire.Info:
        named = tuple(wire.CameraInfo(name=camera.name, frame_id=camera.frame_id) for camera in cameras)
        return wire.Info(model=self._config.model, backend=self.loader.model.backend, control=control, cameras=named)


def _saved_objects(config: Config) -> SavedObjects | None:
    """Where the configuration or systemd says; nowhere when neither does."""
    folder = config.state or Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0])
    if folder == Path():
        return None
    return SavedObjects.open(folder, lambda: checkpoint_name(config.model, config.checkpoint))
