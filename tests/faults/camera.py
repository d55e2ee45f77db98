"""A process with fault cameras (rtsp_camera.py) that can be killed, stopped, started again and told to misbehave."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from killing import kill_process

SCRIPT = Path(__file__).with_name("rtsp_camera.py")


class CameraServer:
    """RTSP cameras by path, each with its settings (see rtsp_camera.py); the port stays over restarts."""

    def __init__(
        self,
        scene: Path,
        origin_s: float,
        cameras: dict[str, dict[str, Any]],
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        login: tuple[str, str] = ("", ""),
    ) -> None:
        self.cameras = {path: dict(settings) for path, settings in cameras.items()}
        self.login = login
        self.host, self.port = host, 0
        self._head = [*prefix, "/usr/bin/python3", str(SCRIPT), str(scene), "--origin", repr(origin_s), "--host", host]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Listen, on the same port as before, with the settings as they are now."""
        cameras = [json.dumps({"path": path, **settings}) for path, settings in self.cameras.items()]
        command = [*self._head, "--port", str(self.port), *(part for text in cameras for part in ("--camera", text))]
        command += ["--user", self.login[0], "--password", self.login[1]] if self.login[0] else []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        assert said.isdecimal(), f"the camera said {said!r}, expected its port"
        self.port = int(said)

    def url(self, path: str) -> str:
        return f"rtsp://{self.host}:{self.port}{path}"

    def tell(self, path: str, **settings: Any) -> None:
        """Change a camera in its running stream."""
        self.cameras[path] |= settings
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"path": path, **settings}) + "\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()
        assert said == "ok", f"the camera said {said!r}"

    def pause(self) -> None:
        """Connections stay open, nothing is sent any more."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End at once, as when the power fails."""
        if self._process is None:
            return
        kill_process(self._process)
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the camera must run"
        return self._process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
