"""Starts tests/rtsp_server.py, a real RTSP server, in a process of its own; any end-to-end test may use it.

needs_apt(*APT_PACKAGES)
with RtspServer(clip, loop=True) as server:
    ... server.url ... server.kill(); server.start() serves the same address again
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from killing import kill_process

APT_PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0",
    "python3-gi",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-ugly",
    "gstreamer1.0-libav",
    "gstreamer1.0-rtsp",
)
SCRIPT = Path(__file__).with_name("rtsp_server.py")


class RtspServer:
    """`clip` is any video file; with `loop` it is one endless programme, else every client gets it once.

    With a `certificate` (a file with its secret key as well) it speaks rtsps, and needs a user.
    """

    def __init__(
        self, clip: Path, *, loop: bool = False, user: str = "", password: str = "", gop: int = 30,
        certificate: Path | None = None,
    ) -> None:  # fmt: skip
        self._command = ["/usr/bin/python3", str(SCRIPT), str(clip), "--gop", str(gop)]
        self._command += ["--loop"] if loop else []
        self._command += ["--user", user, "--password", password] if user else []
        self._command += ["--certificate", str(certificate)] if certificate else []
        self._login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None
        self.url = ""  # with user and password, percent-encoded
        self.bare_url = ""

    def start(self) -> str:
        """Listen, on the same port as before if it ran before; returns the address."""
        pipe = subprocess.PIPE
        command = [*self._command, "--port", self._port]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        self.bare_url = self._process.stdout.readline().strip()
        assert self.bare_url.startswith("rtsp://"), f"the server said {self.bare_url!r}"
        self._port = self.bare_url.rpartition(":")[2].partition("/")[0]
        self.url = self.bare_url.replace("rtsp://", f"rtsp://{self._login}")
        return self.url

    def pause(self) -> None:
        """Freeze: connections stay open, nothing is sent any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End at once, as when the power fails."""
        if self._process is None:
            return
        kill_process(self._process)
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
