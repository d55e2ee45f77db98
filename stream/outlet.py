"""The socket that messages leave by: one XPUB on every endpoint.

Owns: the ZeroMQ context and socket, the last state and info for late joiners, and who subscribed to frames. Thread:
whoever made it, alone (`pub`, or the `replay` command). Never: waits for a subscriber; one whose queue is full
loses messages, and sees it in `serial`.

A subscriber that joins gets the last message of every `kept` topic that it asks for. XPUB can send only to all, so
a topic is sent again at most once in 100 ms, and clients drop what they know. A subscriber that stays silent for
`HEARTBEAT_TIMEOUT_MS` (stopped, unplugged) is disconnected, and with it goes its queue.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import pathlib
import socket
import time
from collections.abc import Sequence

import zmq

RESEND_NS = 100_000_000
MIN_QUEUED = 1000  # messages per subscriber
TOPICS_PER_CAMERA = 3
MAX_INBOUND_BYTES = 1024  # a subscription is a short topic
MAX_INBOUND_A_TURN = 1000
MAX_FRAME_PREFIXES = 4096
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS = 1000, 3000, 4000
LINGER_MS = 500
MAX_IPC_PATH = 100  # bytes; the kernel's limit is 107
FRAMES = b"frames/"


class BindError(OSError):
    """An endpoint cannot be bound; the text says which, why, and what was expected."""


class Outlet:
    """Written by the thread that made it, alone.

    `has_reader` may be asked from any thread: its tuple is replaced, never changed.
    """

    def __init__(self, bind: Sequence[str], *, num_cameras: int = 1) -> None:
        for endpoint in bind:
            check_endpoint(endpoint)
        self.endpoints: tuple[str, ...] = ()
        self.num_sent = 0
        self._kept: dict[bytes, bytes] = {}  # topic with NUL -> message
        self._sent_ns: dict[bytes, int] = {}
        self._due_ns: dict[bytes, int] = {}
        self._frame_prefixes: tuple[bytes, ...] = ()
        self._context = zmq.Context()
        self._context.set(zmq.IPV6, any("[" in endpoint for endpoint in bind))
        self._socket = self._context.socket(zmq.XPUB)
        try:
            self._configure(num_cameras)
            for endpoint in bind:
                self.endpoints += (self._bind(endpoint),)
        except (zmq.ZMQError, OSError):
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    def _configure(self, num_cameras: int) -> None:
        options = {
            zmq.SNDHWM: max(MIN_QUEUED, 4 * num_cameras * TOPICS_PER_CAMERA),
            zmq.XPUB_VERBOSE: 1, zmq.LINGER: LINGER_MS, zmq.MAXMSGSIZE: MAX_INBOUND_BYTES, zmq.TCP_KEEPALIVE: 1,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS, zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HEARTBEAT_TTL: HEARTBEAT_TTL_MS, zmq.HANDSHAKE_IVL: 5000,
        }  # fmt: skip
        for option, value in options.items():
            self._socket.setsockopt(option, value)

    def _bind(self, endpoint: str) -> str:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as exc:
            raise BindError(f"cannot bind {endpoint}: {exc.strerror}; expected a free port or path") from exc
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def watch(self, fileno: int) -> None:
        """Let `wait` also end when this file is readable."""
        self._poller.register(fileno, zmq.POLLIN)

    def wait(self, limit_ms: float) -> None:
        """Until a subscription or a watched file is readable, a message is due again, or the limit passes."""
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
        """Take what subscribers asked for, and send again what is due."""
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

    @property
    def num_subscriptions(self) -> int:
        """Topics on frames/ that somebody asks for; libzmq tells of each prefix, not of each subscriber."""
        return len(self._frame_prefixes)

    def close(self) -> None:
        """Give what is queued half a second to leave, then end the socket, its files and its threads."""
        for endpoint in self.endpoints:
            if endpoint.startswith("ipc://"):
                pathlib.Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        self._socket.close()
        self._context.term()


def check_endpoint(endpoint: str) -> None:
    """BindError unless this is a loopback tcp:// endpoint, or an ipc:// one that nobody serves."""
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp" and address.rpartition(":")[0]:
        if not is_loopback(address.rpartition(":")[0]):
            raise BindError(
                f"{endpoint} can be reached from other machines; expected tcp://127.0.0.1:PORT or ipc://PATH"
            )
    elif scheme == "ipc" and address:
        _check_socket_file(endpoint, pathlib.Path(address))
    else:
        raise BindError(f"endpoint {endpoint!r}, expected tcp://127.0.0.1:PORT or ipc://PATH")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_socket_file(endpoint: str, path: pathlib.Path) -> None:
    """libzmq removes whatever lies at the path: a file, or the socket of a program that still serves it."""
    num_bytes = len(os.fsencode(path))
    if num_bytes > MAX_IPC_PATH:
        raise BindError(f"{endpoint} has a path of {num_bytes} bytes, expected at most {MAX_IPC_PATH}")
    if not path.parent.is_dir():
        raise BindError(f"{endpoint} lies in {path.parent}, expected a directory that exists")
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        if not path.is_socket() or probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise BindError(f"{endpoint} is in use; expected a path that no other file or program has")
