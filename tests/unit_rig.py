"""systemd's part, played by a test: the service's own unit file, its command, environment and folders.

What a service manager does between its unit and its process is done here with the unit's own lines, so that a wrong
line shows. It does not play the sandbox.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from notify_rig import FakeSystemd, fake_systemd

ROOT = Path(__file__).resolve().parents[1]
UNIT, EXAMPLE = ROOT / "systemd" / "sam2-stream.service", ROOT / "systemd" / "sam2-stream.toml"
PROGRAM, CONFIG = "/opt/sam2-stream/.venv/bin/sam2-stream", "/etc/sam2-stream/sam2-stream.toml"


def settings() -> dict[str, list[str]]:
    """The unit's lines by key, in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def seconds(value: str) -> float:
    return float(value.removesuffix("min")) * 60 if value.endswith("min") else float(value)


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: subprocess.Popen[str]
    systemd: FakeSystemd
    folder: Path
    log: Path

    @property
    def config(self) -> Path:
        return self.folder / "sam2-stream.toml"

    def wait_for(self, line: str, limit_s: float = 60.0) -> None:
        """Until the service says so; an error when it ends instead."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if any(found.startswith(line) for found in self.systemd.hear(0.1)):
                return
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        raise AssertionError(f"{line} was not said within {limit_s} s, but {self.systemd.said}")

    def reload(self) -> None:
        """ExecReload=, word by word."""
        words = shlex.split(settings()["ExecReload"][0].replace("$MAINPID", str(self.process.pid)))
        subprocess.run(words, check=True)

    def stop(self) -> int:
        """As `systemctl stop`: TERM, and KILL after TimeoutStopSec=; the exit code."""
        self.process.terminate()
        return self.process.wait(seconds(settings()["TimeoutStopSec"][0]))


def environment(folder: Path) -> dict[str, str]:
    """What the unit's lines and systemd set, with folders below `folder`."""
    found = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "LANG")}
    found |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folders = {"State": "state", "Cache": "cache", "Runtime": "run"}  # short: a socket's path has 100 bytes
    for kind, below in folders.items():
        found[f"{kind.upper()}_DIRECTORY"] = str(folder / below / settings()[f"{kind}Directory"][0])
        (folder / below / settings()[f"{kind}Directory"][0]).mkdir(parents=True)
    for line in settings()["Environment"]:
        for word in shlex.split(line):
            name, _, value = word.partition("=")
            found[name] = value.replace("%S", str(folder / "state")).replace("%C", str(folder / "cache"))
    credentials = folder / "credentials"
    credentials.mkdir(mode=0o700)
    for line in settings()["SetCredential"]:
        name, _, value = line.partition(":")
        (credentials / name).write_text(value, encoding="utf-8")
        (credentials / name).chmod(0o400)
    return found | {"CREDENTIALS_DIRECTORY": str(credentials)}


@contextmanager
def service(folder: Path, config: str, *, watchdog_s: float, program: list[str] | None = None) -> Iterator[Service]:
    """ExecStart= on this configuration, in which RUN stands for the runtime directory; `program` is the one to run
    instead of the installed one.
    """
    with fake_systemd(folder, watchdog_s=watchdog_s) as systemd:
        variables = environment(folder)
        file = folder / "sam2-stream.toml"
        file.write_text(config.replace("RUN", variables["RUNTIME_DIRECTORY"]), encoding="utf-8")
        command = shlex.split(settings()["ExecStart"][0])
        assert command[0] == PROGRAM and command[-1] == CONFIG
        words = [*(program or [sys.executable, "-m", "stream.cli"]), *command[1:-1], str(file)]
        log = folder / "journal"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                words, env=variables | systemd.environment, stdout=output, stderr=output, text=True
            )
        try:
            yield Service(process, systemd, folder, log)
        finally:
            process.kill()
            process.wait()
