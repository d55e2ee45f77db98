"""The reference client: masks, states and pictures from a daemon, typed, in order, each once.

Owns: the SUB sockets of one `Subscriber`. Thread: the one that uses the subscriber; one subscriber is not shared.
Never: imports torch, cv2 or av, decodes a JPEG, or hands out a message twice or one older than what it already
handed out.

    from stream.client import Subscriber

    with Subscriber("tcp://127.0.0.1:5560") as subscriber:
        for message in subscriber:
            for item in message.objects:
                mask = message.mask(item.id)  # bool, (height, width)
                print(message.camera, message.seq, item.id, item.label, item.box, mask.sum(), message.age_ms())

Newest-only (the default) keeps the newest message of each topic while you work: what you get is never stale, and
what you were too slow for is skipped. With `newest_only=False` everything is queued, up to `MAX_QUEUED` messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import zmq

from stream import wire
from stream.wire import FrameMessage, Info, MasksMessage, Message, StateMessage, WireError

__all__ = [
    "Counts", "FrameMessage", "Info", "MasksMessage", "Message", "Received", "StateMessage", "Subscriber", "WireError",
]  # fmt: skip

MAX_QUEUED = 4096  # messages, without newest_only
OPTIONS = {
    zmq.LINGER: 0, zmq.MAXMSGSIZE: wire.MAX_MESSAGE_BYTES, zmq.TCP_KEEPALIVE: 1,
    zmq.RECONNECT_IVL: 100, zmq.RECONNECT_IVL_MAX: 400,
    zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000, zmq.HEARTBEAT_TTL: 4000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    """A message with the bytes it came in and the moment it was handed out."""

    message: Message
    payload: bytes
    received_ns: int
    received_utc_ns: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of one camera's masks since this subscriber joined, over all runs of the daemon."""

    num_received: int = 0
    num_lost: int = 0  # published, but skipped by newest_only or lost on the way
    num_dropped: int = 0  # decoded, but not published, as far as the received messages tell


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a topic stands; `order` rises within a run."""

    run: int
    serial: int
    order: tuple[int, ...]


class Subscriber:
    """Iterate it, with `for` or `async for`: it gives MasksMessages; `messages()` gives everything.

    endpoint     where the daemon publishes: tcp://HOST:PORT or ipc://PATH
    cameras      their names; None = all that the daemon has, also those that it gets later
    newest_only  True: the newest of each topic; False: every message, in order
    frames       True: also the pictures (JPEG), as FrameMessage from `messages()`
    timeout_s    TimeoutError when nothing came for so long; None = wait for ever. Iterating again goes on.

    `info`, `states` and `counts` tell what is known of the daemon and its cameras. A message that does not follow the
    specification raises WireError; iterating again goes on with the next one. Written by the thread that uses it.
    """

    def __init__(
        self,
        endpoint: str,
        cameras: Sequence[str] | None = None,
        *,
        newest_only: bool = True,
        frames: bool = False,
        timeout_s: float | None = 10.0,
    ) -> None:
        for camera in cameras or ():
            check_camera(camera)
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.info: Info | None = None
        self.states: dict[str, StateMessage] = {}
        self._cameras = None if cameras is None else tuple(cameras)
        self._newest_only = newest_only
        self._kinds = ("masks", "state", "frames") if frames else ("masks", "state")
        self._last: dict[str, Mark] = {}  # by topic: what was handed out last
        self._counts: dict[str, Counts] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}  # by topic, in the order in which they are asked
        self._open(self._first_topics())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket; idempotent. The process's shared ZeroMQ context stays."""
        for topic in tuple(self._sockets):
            self._sockets.pop(topic).close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[MasksMessage]:
        return (message for message in self.messages() if isinstance(message, MasksMessage))

    async def __aiter__(self) -> AsyncIterator[MasksMessage]:
        async for message in self.messages_async():
            if isinstance(message, MasksMessage):
                yield message

    def messages(self) -> Iterator[Message]:
        """Masks, states, info, and pictures if asked for, as they come."""
        while True:
            yield self.receive().message

    async def messages_async(self) -> AsyncIterator[Message]:
        """The same for asyncio; waits without blocking the loop."""
        while True:
            yield (await self.receive_async()).message

    def counts(self, camera: str) -> Counts:
        return self._counts.get(camera, Counts())

    def receive(self) -> Received:
        """The next message; TimeoutError after `timeout_s`."""
        deadline = self._deadline()
        while (received := self._take()) is None:
            poller = zmq.Poller()
            for socket in self._sockets.values():
                poller.register(socket, zmq.POLLIN)
            left_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
            if not poller.poll(left_ms):
                raise self._silence()
        return received

    async def receive_async(self) -> Received:
        """The next message; TimeoutError after `timeout_s`."""
        deadline = self._deadline()
        while (received := self._take()) is None:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left_s == 0.0 or not await self._wait_async(left_s):
                raise self._silence()
        return received

    def _deadline(self) -> float | None:
        return None if self.timeout_s is None else time.monotonic() + self.timeout_s

    def _take(self) -> Received | None:
        """The next message that is new, the longest unserved topic first; None when every socket is empty."""
        for topic, socket in tuple(self._sockets.items()):
            received = self._take_from(socket)
            if received is not None:
                if topic in self._sockets:
                    self._sockets[topic] = self._sockets.pop(topic)
                return received
        return None

    def _take_from(self, socket: zmq.Socket[bytes]) -> Received | None:
        while True:
            try:
                payload = socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return None
            received = Received(wire.decode(payload), payload, time.monotonic_ns(), time.time_ns())
            if self._is_new(received.message):
                self._note(received.message)
                return received

    async def _wait_async(self, limit_s: float | None) -> bool:
        """Whether a socket woke up in time. The files stay readable until `_take` has emptied the sockets."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        files = [int(socket.getsockopt(zmq.FD)) for socket in self._sockets.values()]
        for fileno in files:
            loop.add_reader(fileno, woken.set)
        try:
            await asyncio.wait_for(woken.wait(), limit_s)
        except TimeoutError:
            return False
        finally:
            for fileno in files:
                loop.remove_reader(fileno)
        return True

    def _silence(self) -> TimeoutError:
        text = f"no message from {self.endpoint} for {self.timeout_s} s"
        if self.info is None:
            return TimeoutError(f"{text}, expected a daemon that publishes there")
        names = [camera.name for camera in self.info.cameras]
        states = [self.states[name] for name in self._cameras or names if name in self.states]
        told = [f"{name} is not one of its cameras {names}" for name in self._cameras or () if name not in names]
        told += [f"{state.camera} is {state.condition} ({state.reason})" for state in states]
        return TimeoutError("; ".join([text, *told]))

    # --- order -------------------------------------------------------------------------------------------------------

    def _is_new(self, message: Message) -> bool:
        last = self._last.get(message.topic)
        return last is None or last.run != message.run or mark(message).order > last.order

    def _note(self, message: Message) -> None:
        last = self._last.get(message.topic)
        self._last[message.topic] = mark(message)
        if isinstance(message, Info):
            self.info = message
            self._follow(message)
        elif isinstance(message, StateMessage):
            self.states[message.camera] = message
        elif isinstance(message, MasksMessage):
            counts = self.counts(message.camera)
            num_lost = message.serial - last.serial - 1 if last and last.run == message.run else 0
            self._counts[message.camera] = Counts(
                num_received=counts.num_received + 1,
                num_lost=counts.num_lost + num_lost,
                num_dropped=counts.num_dropped + message.num_dropped * (last is not None),
            )

    # --- sockets -----------------------------------------------------------------------------------------------------

    def _first_topics(self) -> list[str]:
        cameras = self._cameras or ()
        return ["info", *(f"{kind}/{camera}" for camera in cameras for kind in self._kinds)]

    def _follow(self, info: Info) -> None:
        """Newest-only needs a socket per topic: open those of new cameras, close those of cameras that are gone."""
        if self._cameras is not None or not self._newest_only:
            return
        wanted = ["info", *(f"{kind}/{camera.name}" for camera in info.cameras for kind in self._kinds)]
        for topic in self._sockets.keys() - set(wanted):
            self._sockets.pop(topic).close()
        self._open([topic for topic in wanted if topic not in self._sockets])

    def _open(self, topics: list[str]) -> None:
        prefixes = [wire.prefix(topic) for topic in topics]
        if self._newest_only:
            for topic, prefix in zip(topics, prefixes, strict=True):
                self._sockets[topic] = self._connect([prefix])
        else:
            everything = [f"{kind}/".encode() for kind in self._kinds] if self._cameras is None else []
            self._sockets["everything"] = self._connect(prefixes + everything)

    def _connect(self, prefixes: list[bytes]) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.SUB)
        for option, value in OPTIONS.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.CONFLATE if self._newest_only else zmq.RCVHWM, 1 if self._newest_only else MAX_QUEUED)
        for prefix in prefixes:
            socket.setsockopt(zmq.SUBSCRIBE, prefix)
        try:
            socket.connect(self.endpoint)
        except zmq.ZMQError as exc:
            socket.close()
            self.close()
            raise ValueError(f"endpoint {self.endpoint!r}, expected tcp://HOST:PORT or ipc://PATH") from exc
        return socket


def check_camera(name: str) -> None:
    if not wire.CAMERA_NAME.search(name):
        raise ValueError(f"camera {name!r}, expected a name of 1 to 64 of A-Z a-z 0-9 _ . -")


def mark(message: Message) -> Mark:
    order = (message.epoch, message.seq) if isinstance(message, wire.Picture) else (message.serial,)
    return Mark(message.run, message.serial, order)
