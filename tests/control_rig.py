"""A control thread with a real socket, and a small thread in the worker's place that obeys what it is told to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import zmq

from stream.command import Reply, Request
from stream.command_codec import decode_reply
from stream.control import ControlThread, Rooms
from stream.inbox import Command, Inbox
from stream.keys import KeyRing
from stream.status import CameraStatus, Status

RUN = 1_789_999_999_000_000_001


@dataclass
class Obeying:
    """Takes commands from both inboxes while `gate` is open, notes them in `taken`, answers with `answer`."""

    answer: Callable[[Command[Request]], None] = lambda command: command.answer(Reply(object_id=3))
    gate: threading.Event = field(default_factory=threading.Event)
    taken: list[Request] = field(default_factory=list)
    doorbell: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.objects: Inbox[Request] = Inbox(self.doorbell.set)
        self.cameras: Inbox[Request] = Inbox(self.doorbell.set)
        self.thread = threading.Thread(target=self.run, name="obeying", daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.doorbell.wait(0.05)
            self.doorbell.clear()
            while self.gate.is_set() and (command := self.objects.take() or self.cameras.take()) is not None:
                self.taken.append(command.request)
                self.answer(command)

    def stop(self) -> None:
        self.stopping.set()
        self.doorbell.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@dataclass(frozen=True)
class Rig:
    control: ControlThread
    obeying: Obeying

    @property
    def endpoint(self) -> str:
        return self.control.endpoints[0]


@contextlib.contextmanager
def controlling(
    *bind: str,
    cameras: tuple[str, ...] = ("cam1", "cam2"),
    schemes: tuple[str, ...] = ("rtsp", "rtsps", "https"),
    keys: KeyRing | None = None,
    run: int = RUN,
) -> Iterator[Rig]:
    """A control thread that runs, and afterwards has ended without an error."""
    obeying = Obeying()
    status = Status(run=run, cameras=tuple(CameraStatus(name=name, source="testsrc://") for name in cameras))
    rooms = Rooms(obeying.objects, obeying.cameras, lambda: status, lambda: cameras, schemes)  # type: ignore[arg-type]
    control = ControlThread(bind or ("tcp://127.0.0.1:*",), rooms, keys=keys)
    control.start()
    try:
        control.wait_ready()
        yield Rig(control, obeying)
    finally:
        control.stop()
        control.join(10)
        obeying.stop()
        assert not control.is_alive(), "the control thread did not end"
        assert control.error is None, control.error


@contextlib.contextmanager
def raw_client(endpoint: str, kind: int = zmq.DEALER) -> Iterator[zmq.Socket[bytes]]:
    """A socket that sends what the test wants, also what no controller would."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.setsockopt(zmq.SNDTIMEO, 10_000)
        socket.connect(endpoint)
        yield socket


def asked(socket: zmq.Socket[bytes], *parts: bytes) -> Reply:
    """What the control thread answers to this message."""
    socket.send_multipart(parts)
    return decode_reply(socket.recv())


def is_silent(socket: zmq.Socket[bytes], limit_ms: int = 200) -> bool:
    return socket.poll(limit_ms) == 0
