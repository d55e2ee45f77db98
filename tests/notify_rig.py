"""systemd's end of the notification socket, for tests."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FakeSystemd:
    """Receives what a service says; `environment` is what systemd would have set for it."""

    def __init__(self, address: str, *, watchdog_s: float | None = None) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        if watchdog_s is not None:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.said: list[str] = []  # every line, in order
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, limit_s: float = 0.0) -> list[str]:
        """The lines of the next message; none when nothing came."""
        self._socket.settimeout(max(limit_s, 0.001))
        try:
            lines = self._socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return []
        self.said += lines
        return lines

    def wait_for(self, line: str, limit_s: float = 60.0) -> None:
        """Until a message has a line that begins so."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if any(found.startswith(line) for found in self.hear(0.2)):
                return
        raise AssertionError(f"nobody said {line} within {limit_s} s, but {self.said}")

    def silent_for(self, line: str, seconds: float, limit_s: float = 60.0) -> bool:
        """Whether this line stops coming: once not heard for so long, before the limit."""
        deadline, last = time.monotonic() + limit_s, time.monotonic()
        while time.monotonic() < deadline:
            if any(found.startswith(line) for found in self.hear(0.05)):
                last = time.monotonic()
            if time.monotonic() - last >= seconds:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@contextmanager
def fake_systemd(folder: Path | None, *, watchdog_s: float | None = None) -> Iterator[FakeSystemd]:
    """On a path in the folder, or on an abstract name."""
    address = f"{folder}/notify" if folder else f"@sam2-stream-test-{os.getpid()}"
    fake = FakeSystemd(address, watchdog_s=watchdog_s)
    try:
        yield fake
    finally:
        fake.close()
