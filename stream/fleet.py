"""`Fleet`: the daemon's cameras, which may be added, changed, paused and removed while the others go on.

Owns: every camera's feeder (its capture thread), its numbers, and who asked for it: the configuration or a command.
Thread: the main one; others read `feeds` and `feeders`, which are replaced, never changed. Never: waits for a camera
longer than `CLOSE_LIMIT_S`, touches a picture, or says a password.

What becomes of a camera's memory: a new source, credential or list of prompts begins a new epoch; any other change of
its settings keeps it. The numbers of a camera that is gone are never used again: one that comes back starts above.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from stream import command
from stream.capture import CameraFeeder, Numbering, SourceError, check_source
from stream.conditions import ConditionBoard
from stream.config import CameraConfig, Config
from stream.feed import Feed
from stream.frame import CameraCondition, CameraState, StateSink
from stream.inbox import Command, Inbox

log = logging.getLogger(__name__)

CLOSE_LIMIT_S = 2.0
UNTOLD = "no picture comes; the daemon's log says why"
_HARMLESS = ("opening", "end of file")
_NEW_EPOCH = ("source", "credential", "prompts", "loop", "pace")


class _Discreet:
    """The states of a camera that a command added, without why it is offline: that would tell what can be reached."""

    __slots__ = ("_sink",)

    def __init__(self, sink: StateSink) -> None:
        self._sink = sink

    def put_state(self, state: CameraState) -> None:
        if state.condition is CameraCondition.OFFLINE and state.reason not in _HARMLESS:
            state = dataclasses.replace(state, reason=UNTOLD)
        self._sink.put_state(state)


class _Camera:
    """Written by the main thread."""

    __slots__ = ("by_command", "feed", "feeder")

    def __init__(self, feeder: CameraFeeder, feed: Feed, *, by_command: bool) -> None:
        self.feeder, self.feed, self.by_command = feeder, feed, by_command


class Fleet:
    """All fields are written by the main thread. `changed` is told the feeds after every change."""

    def __init__(
        self,
        config: Config,
        *,
        board: ConditionBoard,
        doorbell: threading.Event,
        epochs: Mapping[str, int],
        changed: Callable[[Sequence[Feed]], None],
    ) -> None:
        self.inbox: Inbox[command.CameraRequest] = Inbox(lambda: None)  # looked into at every tick
        self.feeds: tuple[Feed, ...] = ()
        self.feeders: Mapping[str, CameraFeeder] = MappingProxyType({})
        self.num_abandoned_gone = 0
        self._config = config
        self._board, self._doorbell, self._changed = board, doorbell, changed
        self._epochs = dict(epochs)  # where to begin, of cameras whose objects were saved
        self._next_epoch = 0  # above those of every camera that is gone
        self._cameras: dict[str, _Camera] = {}

    def start(self) -> None:
        """Start the configured cameras."""
        for config in self._config.cameras:
            self._add(config)
        self._publish()

    def stop(self) -> None:
        """Every camera ends soon; does not wait for that."""
        for camera in self._cameras.values():
            camera.feeder.stop()
        while (order := self.inbox.take()) is not None:
            order.answer(_refusal("stopping", "the daemon is ending"))

    def join(self, timeout_s: float) -> None:
        """Wait for one camera after the other, together at most so long."""
        for camera in self._cameras.values():
            camera.feeder.join(timeout_s / len(self._cameras))

    def late(self) -> list[str]:
        """Names of the threads that still run."""
        return [f"cam:{name}" for name, camera in self._cameras.items() if camera.feeder.is_alive()]

    def check(self, now_ns: int) -> None:
        """Look after the capture threads, and obey what was asked. Raises `CameraStuck`, or what ended a thread."""
        for camera in self._cameras.values():
            camera.feeder.check(now_ns)
            error = camera.feeder.error
            if error is not None and not isinstance(error, SourceError):
                raise error
        while (order := self.inbox.take()) is not None:
            self._obey(order)

    def overdue(self) -> tuple[str, ...]:
        """Cameras that nobody has looked after for too long; any thread."""
        return tuple(f"cam:{name}" for name, feeder in self.feeders.items() if feeder.is_overdue)

    @property
    def has_ended(self) -> bool:
        """Whether there are cameras, and none will ever give a picture again."""
        return bool(self._cameras) and all(camera.feeder.finished for camera in self._cameras.values())

    @property
    def error(self) -> Exception | None:
        """Why a camera cannot be used."""
        return next((camera.feeder.error for camera in self._cameras.values() if camera.feeder.error), None)

    # --- the configuration -------------------------------------------------------------------------------------------

    def apply(self, config: Config) -> str:
        """Make the cameras what a new configuration says, and tell what changed.

        Cameras that a command added stay. Raises `SourceError`, before anything changed, for a source that can never
        give a picture.
        """
        wanted = {camera.name: camera for camera in config.cameras}
        known = {name: camera.feed.config for name, camera in self._cameras.items()}
        new = [camera for camera in config.cameras if known.get(camera.name) != camera]
        for camera in new:
            check_source(camera)
        gone = [name for name, camera in self._cameras.items() if name not in wanted and not camera.by_command]
        for name in gone:
            self._remove(name)
        for camera in new:
            if camera.name in known:
                self._change(camera)
            else:
                self._add(camera)
        for name in wanted:
            self._cameras[name].by_command = False
        self._config = config
        self._publish()
        told = {"added": [c.name for c in new if c.name not in known],
                "changed": [c.name for c in new if c.name in known], "removed": gone}  # fmt: skip
        return "; ".join(f"{what} {', '.join(names)}" for what, names in told.items() if names) or "nothing changed"

    def _add(self, config: CameraConfig, *, by_command: bool = False) -> None:
        epoch = max(self._epochs.pop(config.name, 0), self._next_epoch)
        feeder = self._feeder(config, Numbering(epoch=epoch), is_discreet=by_command)
        self._cameras[config.name] = _Camera(feeder, Feed(config, feeder), by_command=by_command)
        feeder.start()

    def _feeder(self, config: CameraConfig, numbering: Numbering, *, is_discreet: bool = False) -> CameraFeeder:
        states: StateSink = _Discreet(self._board) if is_discreet else self._board
        return CameraFeeder(config, states=states, doorbell=self._doorbell, numbering=numbering)

    def _change(self, config: CameraConfig) -> None:
        camera = self._cameras[config.name]
        old, feed = camera.feeder, camera.feed
        self._close(config.name, old)
        is_new = any(getattr(feed.config, key) != getattr(config, key) for key in _NEW_EPOCH)
        numbering = Numbering(epoch=old.epoch + is_new, seq=old.numbering.seq)
        camera.feeder = self._feeder(config, numbering)
        if is_new:
            camera.feed = Feed(config, camera.feeder)
        else:
            feed.change(config, camera.feeder)
        camera.feeder.start()

    def _remove(self, name: str) -> None:
        camera = self._cameras.pop(name)
        self._close(name, camera.feeder)
        self._next_epoch = max(self._next_epoch, camera.feeder.epoch + 1)
        self.num_abandoned_gone += camera.feeder.num_abandoned
        self._board.forget(name)

    def _close(self, name: str, feeder: CameraFeeder) -> None:
        feeder.stop()
        feeder.join(CLOSE_LIMIT_S)
        if feeder.is_alive():
            log.warning("cam:%s: its capture thread did not end within %g s and was left behind", name, CLOSE_LIMIT_S)

    def _publish(self) -> None:
        self.feeds = tuple(camera.feed for camera in self._cameras.values())
        self.feeders = MappingProxyType({name: camera.feeder for name, camera in self._cameras.items()})
        self._changed(self.feeds)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _obey(self, order: Command[command.CameraRequest]) -> None:
        request = order.request
        if isinstance(request, command.CameraAdd):
            order.answer(self._add_by_command(request))
            return
        camera = self._cameras.get(request.camera)
        if camera is None:
            names = ", ".join(self._cameras) or "none"
            order.answer(_refusal("unknown", f"there is no camera '{request.camera}'; expected one of: {names}"))
            return
        order.answer(self._treat(request, camera))

    def _treat(self, request: command.CameraRequest, camera: _Camera) -> command.Reply:
        if isinstance(request, command.CameraRemove):
            self._remove(request.camera)
            self._publish()
            is_ours = any(config.name == request.camera for config in self._config.cameras)
            note = "it stands in the configuration: it comes back when that is read again"
            return command.Reply(note=note if is_ours else "")
        is_pause = isinstance(request, command.CameraPause)
        if camera.feeder.is_paused == is_pause:
            return command.Reply(note=f"the camera {'was paused' if is_pause else 'was not paused'} already")
        (camera.feeder.pause if is_pause else camera.feeder.resume)()
        return command.Reply()

    def _add_by_command(self, request: command.CameraAdd) -> command.Reply:
        if request.camera in self._cameras:
            return _refusal("refused", f"there is a camera '{request.camera}' already; expected another name")
        if len(self._cameras) >= self._config.max_cameras:
            limit = self._config.max_cameras
            return _refusal(
                "refused", f"there are {len(self._cameras)} cameras; expected at most {limit} (max_cameras)"
            )
        config = CameraConfig(request.camera, request.source, max_fps=request.max_fps)
        config = dataclasses.replace(config, rtsp_transport=request.rtsp_transport)
        try:
            check_source(config)
        except SourceError as error:
            return _refusal("refused", str(error))
        self._add(config, by_command=True)
        self._publish()
        return command.Reply()


def _refusal(code: str, error: str) -> command.Reply:
    return command.Reply(ok=False, code=code, error=error)
