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

A daemon on another machine wants a key: `Subscriber("tcp://robot:5560", keys=ClientKeys.load("alice.key"))`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypedDict, Unpack

import zmq

from stream import wire
from stream.arrivals import Arrivals, Counts
from stream.keys import ClientKeys, KeysError
from stream.knock import why_silent
from stream.wire import FrameMessage, Info, MasksMessage, Message, StateMessage, WireError

__all__ = [
    "ClientKeys", "Counts", "FrameMessage", "Info", "KeysError", "MasksMessage", "Message", "Received", "StateMessage",
    "Subscriber", "SubscriberOptions", "WireError",
]  # fmt: skip

MAX_QUEUED = 4096  # messages, without newest_only
KNOCK_S = 1.0  # a shorter silence is not looked into
REOPEN_S, REOPEN_MAX_S = 5.0, 60.0  # silent with keys: connect anew, for ZeroMQ asks only once when a key is refused
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


class SubscriberOptions(TypedDict, total=False):
    """What a `Subscriber` may be told by name; see there."""

    newest_only: bool
    frames: bool
    timeout_s: float | None
    keys: ClientKeys | None


class Subscriber:
    """Iterate it, with `for` or `async for`: it gives MasksMessages; `messages()` gives everything.

    endpoint     where the daemon publishes: tcp://HOST:PORT or ipc://PATH
    cameras      their names; None = all that the daemon has, also those that it gets later
    newest_only  True (the default): the newest of each topic; False: every message, in order
    frames       True: also the pictures (JPEG), as FrameMessage from `messages()`
    timeout_s    TimeoutError when nothing came for so long (10 s); None = wait for ever. Iterating again goes on.
    keys         ClientKeys for a daemon on another machine

    `info`, `states` and `counts` tell what is known of the daemon and its cameras. A message that does not follow the
    specification raises WireError; iterating again goes on with the next one. Written by the thread that uses it.
    """

    def __init__(
        self, endpoint: str, cameras: Sequence[str] | None = None, **options: Unpack[SubscriberOptions]
    ) -> None:
        for camera in cameras or ():
            check_camera(camera)
        self.endpoint = endpoint
        self.timeout_s = options.get("timeout_s", 10.0)
        self.info: Info | None = None
        self.states: dict[str, StateMessage] = {}
        self._cameras = None if cameras is None else tuple(cameras)
        self._keys = options.get("keys")
        self._newest_only = options.get("newest_only", True)
        self._kinds = ("masks", "state", "frames") if options.get("frames") else ("masks", "state")
        self._arrivals = Arrivals()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}  # by topic, in the order in which they are asked
        self._reopen_after_s = REOPEN_S
        self._heard_s = time.monotonic()  # or connected anew
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
        """What became of the camera's masks since this subscriber joined."""
        return self._arrivals.counts(camera)

    def receive(self) -> Received:
        """The next message; TimeoutError after `timeout_s`."""
        deadline = self._deadline()
        while (received := self._take()) is None:
            poller = zmq.Poller()
            for socket in self._sockets.values():
                poller.register(socket, zmq.POLLIN)
            left_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
            if not poller.poll(left_ms):
                raise self._silence(self._why_silent())
        return received

    async def receive_async(self) -> Received:
        """The next message; TimeoutError after `timeout_s`."""
        deadline = self._deadline()
        while (received := self._take()) is None:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left_s == 0.0 or not await self._wait_async(left_s):
                raise self._silence(await asyncio.to_thread(self._why_silent))
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
            self._heard_s, self._reopen_after_s = time.monotonic(), REOPEN_S
            received = Received(wire.decode(payload), payload, time.monotonic_ns(), time.time_ns())
            if self._arrivals.is_new(received.message):
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

    def _why_silent(self) -> str:
        """Runs beside the loop in asyncio: it touches no socket of this subscriber."""
        is_known = self.info is not None and self._keys is None
        if is_known or self.timeout_s is None or self.timeout_s < KNOCK_S:
            return ""
        return why_silent(self.endpoint, keys=self._keys, socket_type=zmq.SUB)

    def _silence(self, why: str) -> TimeoutError:
        self._connect_anew()
        text = f"no message from {self.endpoint} for {self.timeout_s} s"
        if self.info is None or why:
            return TimeoutError(f"{text}, {why or 'expected a daemon that publishes there'}")
        names = [camera.name for camera in self.info.cameras]
        states = [self.states[name] for name in self._cameras or names if name in self.states]
        told = [f"{name} is not one of its cameras {names}" for name in self._cameras or () if name not in names]
        told += [f"{state.camera} is {state.condition} ({state.reason})" for state in states]
        return TimeoutError("; ".join([text, *told]))

    def _note(self, message: Message) -> None:
        self._arrivals.note(message)
        if isinstance(message, Info):
            self.info = message
            self._follow(message)
        elif isinstance(message, StateMessage):
            self.states[message.camera] = message

    # --- sockets -----------------------------------------------------------------------------------------------------

    def _connect_anew(self) -> None:
        """A key that was refused may be let in by now: try again after 5 s of silence, then 10, up to 60."""
        now_s = time.monotonic()
        if self._keys is not None and now_s - self._heard_s > self._reopen_after_s:
            self._heard_s, self._reopen_after_s = now_s, min(2 * self._reopen_after_s, REOPEN_MAX_S)
            topics = list(self._sockets) if self._newest_only else self._first_topics()
            self.close()
            self._open(topics)

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
        if self._keys is not None:
            self._keys.apply(socket)
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
