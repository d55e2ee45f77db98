"""A TCP relay between the daemon and an RTSP camera that falls silent, loses RTP packets, or bends their time stamps.

It understands RTSP with interleaved RTP just enough to find the packets. Two threads per connection, which end with its
sockets.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from types import TracebackType
from typing import Self

CLOCK_HZ = 90_000
SENDER_REPORT = 200


class Connection:
    """One client and its connection to the camera. `held`, `loss` and `jump_s` are set by the test's thread."""

    def __init__(self, client: socket.socket, camera: socket.socket) -> None:
        self.client, self.camera = client, camera
        self.held = False
        self.loss = 0.0
        self.jump_s = 0.0
        self.num_lost = 0
        self._buffer = b""
        self._random = random.Random(1)

    def start(self) -> None:
        for name, pump in (("up", self._pump_up), ("down", self._pump_down)):
            threading.Thread(target=pump, name=f"relay-{name}", daemon=True).start()

    def close(self) -> None:
        for end in (self.client, self.camera):
            end.close() if end.fileno() < 0 else _shut(end)

    def _pump_up(self) -> None:
        while data := _receive(self.client):
            if not self.held and not _send(self.camera, data):
                break
        self.close()

    def _pump_down(self) -> None:
        while data := _receive(self.camera):
            data = self._through(data)
            if not self.held and not _send(self.client, data):
                break
        if not self.held:  # else the FIN is lost as well
            self.close()

    def _through(self, data: bytes) -> bytes:
        """What goes on: RTSP text as it is, interleaved packets as they are, bent, or not at all."""
        self._buffer += data
        parts: list[bytes] = []
        while (length := _length(self._buffer)) and len(self._buffer) >= length:
            part, self._buffer = self._buffer[:length], self._buffer[length:]
            parts.append(self._packet(part) if part[:1] == b"$" else part)
        return b"".join(parts)

    def _packet(self, part: bytes) -> bytes:
        is_report, packet = part[1] % 2 == 1, bytearray(part[4:])
        if not is_report and self._random.random() < self.loss:
            self.num_lost += 1
            return b""
        at = 4 if not is_report else 16 if len(packet) >= 20 and packet[1] == SENDER_REPORT else None
        if self.jump_s and at is not None:
            stamp = int.from_bytes(packet[at : at + 4], "big") + round(self.jump_s * CLOCK_HZ)
            packet[at : at + 4] = (stamp % 2**32).to_bytes(4, "big")
        return part[:4] + bytes(packet)


class Relay:
    """Listens on `port`; every connection goes on to the camera's port, also when the camera was restarted."""

    def __init__(self, camera_port: int) -> None:
        self.connections: list[Connection] = []
        self.accepted_s: list[float] = []  # monotonic; grows by every try of the daemon
        self._camera_port = camera_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def url(self, path: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}{path}"

    def hold(self) -> None:
        """Present connections fall silent in both directions, and stay open whatever the camera does."""
        for connection in self.connections:
            connection.held = True

    def set(self, *, loss: float = 0.0, jump_s: float = 0.0) -> None:
        """From now on: lose this share of the RTP packets, add this to their time stamps."""
        for connection in self.connections:
            connection.loss, connection.jump_s = loss, jump_s

    @property
    def num_lost(self) -> int:
        return sum(connection.num_lost for connection in self.connections)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.accepted_s.append(time.monotonic())
            try:
                camera = socket.create_connection(("127.0.0.1", self._camera_port), 5)
            except OSError:
                client.close()
                continue
            camera.settimeout(None)
            self.connections.append(Connection(client, camera))
            self.connections[-1].start()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="relay", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        for connection in self.connections:
            connection.close()


def _length(buffer: bytes) -> int:
    """Of the first message in the buffer, 0 while it is not all there."""
    if buffer[:1] == b"$":
        return 4 + int.from_bytes(buffer[2:4], "big") if len(buffer) >= 4 else 0
    head, end, _ = buffer.partition(b"\r\n\r\n")
    if not end:
        return 0
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    return len(head) + 4 + sum(int(value) for name, _, value in fields if name.strip() == b"content-length")


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _shut(end: socket.socket) -> None:
    """Wake whoever reads it, and close it."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        end.close()
        return
    end.close()
