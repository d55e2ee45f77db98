"""The fault laboratory: one daemon that lives through many faults, its cameras, its witness, and what it costs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from faults import scene
from faults.witness import SMEARED, Witness
from stream.controller import Controller

HEALTHY = "healthy"
OTHERS_LIMIT_S = 2.5  # the healthy camera has a picture each 0.2 s; a busy machine gets ten times that,
NUM_READY = 4.0  # and one with more programs than these ready to run gets more
MIN_IOU = 0.7
SLACK = 0.2  # a mask of a picture some pictures away is 0.35 worse on its own; nano's own errors are below 0.1


class Lab:
    """A daemon on `cameras` (TOML by name). `folder` must be short: it holds ipc sockets."""

    def __init__(self, folder: Path, origin_s: float, *, head: str = "", has_ports: bool = False) -> None:
        self.folder, self.origin_s = folder, origin_s
        self.endpoint = f"ipc://{folder}/d.sock"
        self.control_endpoint = f"{self.endpoint}-control"
        self._tcp = ', "tcp://127.0.0.1:*"' if has_ports else ""
        self.log = folder / "daemon.log"
        self.cameras: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        self.witness = Witness(self.endpoint)
        self._head = head
        self._process: subprocess.Popen[str] | None = None

    # --- the process -------------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> None:
        self.write()
        with self.log.open("a", encoding="utf-8") as output:
            command = [sys.executable, "-m", "stream.cli", "run", str(self.folder / "daemon.toml"), *arguments]
            self._process = subprocess.Popen(command, stdout=output, stderr=output, text=True)

    def write(self) -> None:
        """The configuration file, as a careful operator writes it: at once."""
        text = f'bind = ["{self.endpoint}"{self._tcp}]\ncontrol = ["{self.control_endpoint}"{self._tcp}]\n'
        text += f"allow_cpu = true\nframes_fps = 120\njpeg_quality = 90\n{self._head}"
        new = self.folder / "daemon.toml.new"
        new.write_text(text + "".join(self.cameras.values()), encoding="utf-8")
        new.rename(self.folder / "daemon.toml")

    def ports(self) -> tuple[int, int]:
        """Of its tcp:// endpoints, for messages and for commands."""
        with Controller(self.control_endpoint, timeout_s=20) as controller:
            status = controller.status()
        messages, commands = (int(ends[-1].rpartition(":")[2]) for ends in (status.endpoints, status.control))
        return messages, commands

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the daemon must be started"
        return self._process

    def memory_mb(self) -> float:
        """Resident set."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    def num_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def __enter__(self) -> Self:
        self.witness.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.witness.stop()
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)

    # --- cameras -----------------------------------------------------------------------------------------------------

    def describe(
        self, name: str, source: str, *, offset: int = 0, objects: tuple[int, ...] = (2,), **settings: Any
    ) -> None:
        """Add or change a camera in the configuration; `reload` makes the daemon read it."""
        lines = [f"{key} = {value!r}" for key, value in settings.items()]
        head = ["[[camera]]", f'name = "{name}"', f'source = "{source}"', *lines]
        self.cameras[name] = "\n".join(head) + "\n" + scene.prompt(*objects)
        self.offsets[name] = offset

    def put(self, name: str, source: str, **settings: Any) -> None:
        self.describe(name, source, **settings)
        self.reload()

    def drop(self, *names: str) -> None:
        for name in names:
            self.cameras.pop(name, None)
        self.reload()

    def reload(self) -> None:
        if self._process is None:
            return
        self.write()
        self.signal(signal.SIGHUP)

    def exposed_s(self, camera: str, number: int) -> float:
        """When the camera took that picture (monotonic)."""
        return self.origin_s + (number - self.offsets[camera]) / scene.RATE

    # --- promises ----------------------------------------------------------------------------------------------------

    def check(self, camera: str, since_s: float, until_s: float = float("inf"), *, is_frozen: bool = False) -> None:
        """No mask carries another frame's seq: order and time of every picture, and the fit of every mask."""
        self.witness.check_order(
            camera, since_s, until_s, exposed_s=lambda number: self.exposed_s(camera, number), is_frozen=is_frozen
        )
        found = self.witness.judge(camera, since_s, until_s)
        assert found.num_judged >= 0.9 * found.num - 2, found
        assert found.damage < SMEARED, found
        assert found.iou >= MIN_IOU and found.worst_lead > -SLACK, found
        assert found.iou > found.iou_of_next or found.num_judged < 10, found
        assert not self.witness.errors, self.witness.errors

    def check_others(self, since_s: float, camera: str = HEALTHY) -> str:
        """The healthy camera noticed nothing since that moment; says how it went."""
        self.witness.next(camera, since_s, num=10)
        self.witness.next(camera, time.monotonic())
        arrivals_s = [item.masks.arrival_ns / 1e9 for item in self.witness.seen(camera, since_s)]
        gap_s = max((b - a for a, b in zip([since_s, *arrivals_s], arrivals_s, strict=False)), default=float("inf"))
        assert gap_s < OTHERS_LIMIT_S * max(1.0, os.getloadavg()[0] / NUM_READY), (
            f"{camera} had no picture for {gap_s:.1f} s"
        )
        news = [state for when_s, state in self.witness.states[camera] if when_s >= since_s]
        epochs = {item.masks.epoch for item in self.witness.seen(camera, since_s)}
        assert not [state for state in news if state.condition != "online"] and len(epochs) == 1, (news, epochs)
        self.check(camera, since_s)
        return f"healthy camera: longest gap {gap_s:.1f} s"

    def num_lost(self, camera: str, since_s: float, *, step: int = 1) -> int:
        """Pictures that the camera took between the last one published before that moment and the first after it."""
        before = [item.number for item in self.witness.seen(camera, 0, since_s) if item.number is not None]
        after = [item.number for item in self.witness.seen(camera, since_s) if item.number is not None]
        return max(0, (after[0] - before[-1]) // step - 1)
