"""`ControlSocket`: the socket that commands come by: one ROUTER on every control endpoint.

Owns: the ZeroMQ context and socket. Thread: whoever made it, alone (`control`). Never: waits for a client; a reply
to one that does not read (`MAX_QUEUED`), or that is gone, is dropped.

A client that sends a message beyond `MAX_REQUEST_BYTES`, does not finish the handshake in three seconds, or stays
silent for `HEARTBEAT_TIMEOUT_MS` is disconnected. One that sends faster than it is served waits in its own buffers.
Not bounded by libzmq: the parts of one message (it gathers all before it shows the first), and clients that only
stay connected; keys, and the limits of memory and files in the service file, are what stands against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from stream.command import MAX_REQUEST_BYTES
from stream.doors import Doors, metadata
from stream.keys import KeyRing

MAX_QUEUED = 256  # replies per client; more than it may ask for at once
MAX_UNREAD = 16  # requests per client
MAX_PARTS = 3  # client, empty part of a REQ socket, request
HANDSHAKE_MS = 3000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS = 1000, 3000, 4000
LINGER_MS = 200
REOPEN_MS = 10.0  # how often guarded endpoints are tried that are being opened again
OPTIONS = {
    zmq.MAXMSGSIZE: MAX_REQUEST_BYTES, zmq.SNDHWM: MAX_QUEUED, zmq.RCVHWM: MAX_UNREAD, zmq.LINGER: LINGER_MS,
    zmq.HANDSHAKE_IVL: HANDSHAKE_MS, zmq.TCP_KEEPALIVE: 1, zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
    zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS, zmq.HEARTBEAT_TTL: HEARTBEAT_TTL_MS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """One message: `client` names its sender, `parts` stand before every reply; a wrong shape has no payload."""

    client: bytes
    parts: tuple[bytes, ...]
    payload: bytes
    peer: str  # the sender's address, for the log


class ControlSocket:
    """Used by the thread that made it, alone."""

    def __init__(self, bind: Sequence[str], *, fileno: int, keys: KeyRing | None = None) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.IPV6, any("[" in endpoint for endpoint in bind))
        self._socket = self._context.socket(zmq.ROUTER)
        self._doors = Doors(self._socket, "control", keys=keys)
        try:
            for option, value in OPTIONS.items():
                self._socket.setsockopt(option, value)
            self._doors.open(bind)
        except (zmq.ZMQError, OSError, ValueError):
            self.close()
            raise
        self._answers, self._everything = zmq.Poller(), zmq.Poller()
        for poller in (self._answers, self._everything):
            poller.register(fileno, zmq.POLLIN)  # readable when answers wait
            self._doors.register(poller)
        self._everything.register(self._socket, zmq.POLLIN)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it can be reached, with the real ports."""
        return self._doors.endpoints

    def wait(self, limit_ms: float, *, read: bool) -> None:
        """Until an answer waits, a message is there (if asked to `read`), or the limit passes; then let clients in."""
        limit_ms = min(limit_ms, REOPEN_MS) if self._doors.is_reopening else limit_ms
        (self._everything if read else self._answers).poll(max(0, math.ceil(limit_ms)))
        self._doors.serve()

    def take(self) -> Letter | None:
        """The next message, clients in turn; None when there is none. What a revoked client sent before is dropped."""
        try:
            frames, num_parts = self._receive()
            while not self._doors.admits(frames[-1]):
                frames, num_parts = self._receive()
        except zmq.Again:
            return None
        client, parts = frames[0].bytes, tuple(frame.bytes for frame in frames[1:])
        has_delimiter = num_parts == MAX_PARTS and not parts[0]  # a REQ socket
        payload = parts[-1] if num_parts == 2 or has_delimiter else b""
        peer = metadata(frames[-1], "Peer-Address") or "this machine"  # an ipc client has none
        return Letter(client, (client, b"") if has_delimiter else (client,), payload, peer)

    def _receive(self) -> tuple[list[zmq.Frame], int]:
        frames = [self._socket.recv(zmq.DONTWAIT, copy=False)]
        num_parts = 1
        while frames[-1].more:
            frames[min(num_parts, MAX_PARTS) :] = [self._socket.recv(copy=False)]
            num_parts += 1
        return frames, num_parts

    def send(self, parts: tuple[bytes, ...], payload: bytes) -> None:
        """Send, or drop what the client does not read."""
        self._socket.send_multipart((*parts, payload), zmq.DONTWAIT)

    def close(self) -> None:
        """Give what is queued a moment to leave, then end the socket, its files and its threads."""
        self._doors.close()
        self._socket.close()
        self._context.term()
