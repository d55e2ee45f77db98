"""The socket that messages leave by: one XPUB on every endpoint.

Owns: the ZeroMQ context and socket, the last state and info for late joiners, and who subscribed to frames. Thread:
whoever made it, alone (`pub`, or the `replay` command). Never: waits for a subscriber; one whose queue is full
loses messages, and sees it in `serial`.

A subscriber that joins gets the last message of every `kept` topic that it asks for. XPUB can send only to all, so
a topic is sent again at most once in 100 ms, and clients drop what they know. A subscriber that stays silent for
`HEARTBEAT_TIMEOUT_MS` (stopped, unplugged) is disconnected, and with it goes its queue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import zmq

from stream.doors import BindError, Doors, check_endpoint
from stream.keys import KeyRing

__all__ = ["BindError", "Outlet", "check_endpoint"]

RESEND_NS = 100_000_000
MIN_QUEUED = 1000  # messages per subscriber
TOPICS_PER_CAMERA = 3
MAX_INBOUND_BYTES = 1024  # a subscription is a short topic
MAX_INBOUND_A_TURN = 1000
MAX_FRAME_PREFIXES = 4096
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS = 1000, 3000, 4000
LINGER_MS = 500
HANDSHAKE_MS = 3000  # a client that says nothing is cut off
REOPEN_MS = 10.0  # how often guarded endpoints are tried that are being opened again
FRAMES = b"frames/"


class Outlet:
    """Written by the thread that made it, alone.

    `has_reader` may be asked from any thread: its tuple is replaced, never changed.
    """

    def __init__(self, bind: Sequence[str], *, num_cameras: int = 1, keys: KeyRing | None = None) -> None:
        self.num_sent = 0
        self._kept: dict[bytes, bytes] = {}  # topic with NUL -> message
        self._sent_ns: dict[bytes, int] = {}
        self._due_ns: dict[bytes, int] = {}
        self._frame_prefixes: tuple[bytes, ...] = ()
        self._context = zmq.Context()
        self._context.set(zmq.IPV6, any("[" in endpoint for endpoint in bind))
        self._socket = self._context.socket(zmq.XPUB)
        self._doors = Doors(self._socket, "view", keys=keys)
        try:
            self._configure(num_cameras)
            self._doors.open(bind)
        except (zmq.ZMQError, OSError, ValueError):
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._doors.register(self._poller)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it can be reached, with the real ports."""
        return self._doors.endpoints

    def _configure(self, num_cameras: int) -> None:
        options = {
            zmq.SNDHWM: max(MIN_QUEUED, 4 * num_cameras * TOPICS_PER_CAMERA),
            zmq.XPUB_VERBOSE: 1, zmq.LINGER: LINGER_MS, zmq.MAXMSGSIZE: MAX_INBOUND_BYTES, zmq.TCP_KEEPALIVE: 1,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS, zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HEARTBEAT_TTL: HEARTBEAT_TTL_MS, zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        }  # fmt: skip
        for option, value in options.items():
            self._socket.setsockopt(option, value)

    def watch(self, fileno: int) -> None:
        """Let `wait` also end when this file is readable."""
        self._poller.register(fileno, zmq.POLLIN)

    def wait(self, limit_ms: float) -> None:
        """Until a subscription or a watched file is readable, a message is due again, or the limit passes."""
        if self._doors.is_reopening:
            limit_ms = min(limit_ms, REOPEN_MS)
        if self._due_ns:
            limit_ms = min(limit_ms, (min(self._due_ns.values()) - time.monotonic_ns()) / 1e6 + 0.5)
        self._poller.poll(max(0, math.ceil(limit_ms)))

    def send(self, message: bytes, *, kept: bool = False) -> None:
        """Send one message; `kept` = late joiners get it too, until the next one of its topic."""
        topic = message[: message.index(b"\0") + 1]
        if kept:
            self._kept[topic] = message
        self._send(topic, message)

    def _send(self, topic: bytes, message: bytes) -> None:
        if topic in self._kept:
            self._sent_ns[topic] = time.monotonic_ns()
            self._due_ns.pop(topic, None)
        self._socket.send(message, zmq.DONTWAIT)
        self.num_sent += 1

    def forget(self, topic: bytes) -> None:
        """Late joiners no longer get this topic (with its NUL): its camera is gone."""
        for table in (self._kept, self._sent_ns, self._due_ns):
            table.pop(topic, None)

    def serve(self) -> None:
        """Let subscribers in, take what they asked for, and send again what is due."""
        self._doors.serve()
        for _ in range(MAX_INBOUND_A_TURN):
            try:
                request = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            if request[:1] in (b"\0", b"\1"):
                self._note(request[1:], is_join=request[:1] == b"\1")
        now_ns = time.monotonic_ns()
        for topic in [topic for topic, due_ns in self._due_ns.items() if due_ns <= now_ns]:
            self._send(topic, self._kept[topic])

    def _note(self, prefix: bytes, *, is_join: bool) -> None:
        if FRAMES.startswith(prefix[: len(FRAMES)]):
            others = tuple(known for known in self._frame_prefixes if known != prefix)
            self._frame_prefixes = (*others[: MAX_FRAME_PREFIXES - 1], prefix) if is_join else others
        if is_join:
            for topic in self._kept:
                if topic.startswith(prefix):
                    self._due_ns.setdefault(topic, self._sent_ns[topic] + RESEND_NS)

    def has_reader(self, topic: bytes) -> bool:
        """Whether somebody subscribed to this frames topic (with its NUL)."""
        return any(topic.startswith(prefix) for prefix in self._frame_prefixes)

    def close(self) -> None:
        """Give what is queued half a second to leave, then end the socket, its files and its threads."""
        self._doors.close()
        self._socket.close()
        self._context.term()
