"""What the service sees of the machine's devices, and the command that looks with its eyes.

Owns: the reading of the installed unit. Runs in whichever thread calls it. Never: writes to a device, or changes the
unit.
"""

from __future__ import annotations

import errno
import glob
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from stream.config import Config
from stream.doctor.finding import Finding, broken, note, ok

UNIT_FOLDERS = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/usr/lib/systemd/system"),
    Path("/lib/systemd/system"),
)
UNIT = "sam2-stream.service"
# What a command that only looks must not take over: when it ends, and folders that end with it.
NOT_TAKEN = ("Exec", "Type", "NotifyAccess", "WatchdogSec", "Timeout", "Restart", "Runtime", "StandardOutput")
NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia[0-9]*", "/dev/dxg")


def sandbox(config: Config, file: str) -> Iterator[Finding]:
    """The nodes of GPUs and webcams as this process sees them; outside the service, how to look from inside."""
    yield from nodes(config)
    if "INVOCATION_ID" in os.environ and "CREDENTIALS_DIRECTORY" in os.environ:
        yield ok("sandbox", "this is what the service sees")
        return
    unit = next((folder / UNIT for folder in UNIT_FOLDERS if (folder / UNIT).is_file()), None)
    if unit is None:
        yield ok("sandbox", f"{UNIT} is not installed; this is what your user sees")
        return
    command = command_inside(unit.read_text(encoding="utf-8"), file)
    yield note("sandbox", f"{unit} may see other devices, files and secrets than you; look as it does", command)


def nodes(config: Config) -> Iterator[Finding]:
    """Whether each device can be opened."""
    sources = [camera.source.partition("?")[0] for camera in config.cameras]
    webcams = [f"/dev/video{source}" for source in sources if source.isdecimal()]
    webcams += [source for source in sources if source.startswith("/dev/")]
    gpus = sorted(path for pattern in NODES for path in glob.glob(pattern))
    found = [(path, _open_error(path)) for path in (*gpus, *webcams)]
    refused = [(path, error) for path, error in found if error]
    for path, error in refused:
        yield broken("device", f"{path}: {_told(error)}", *_fixes(path, error))
    if found and not refused:
        yield ok("devices", "can be opened: " + ", ".join(path for path, _ in found))
    elif not found:
        yield ok("devices", "no node of a GPU is here, and no webcam is configured")


def _open_error(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _told(error: int) -> str:
    known: Mapping[int, str] = {
        errno.EPERM: "the service's device list refuses it",
        errno.EACCES: "this user may not open it",
        errno.ENOENT: "there is no such device",
        errno.ENODEV: "its driver is gone",
        errno.ENXIO: "its driver is gone",
        errno.EBUSY: "another program has it",
    }
    return known.get(error, os.strerror(error).lower())


def _fixes(path: str, error: int) -> tuple[str, ...]:
    if error == errno.EPERM:
        return (f"sudo systemctl edit sam2-stream  # add: [Service], DeviceAllow={path} rw",)
    if error == errno.EACCES:
        return (
            f"ls -l {path}",
            "sudo usermod -aG video,render $USER  # then log in again; a service: SupplementaryGroups=",
        )
    return ("ls -l /dev/video* /dev/nvidia*",)


def command_inside(unit: str, file: str) -> str:
    """A command line that runs `doctor` in the sandbox of the service with this unit file, by its own program.

    On the configuration `file`, or the service's own where that is "".
    """
    words = ["sudo", "systemd-run", "--pipe", "--wait", "--collect", "--quiet"]
    section, program = "", ["sam2-stream", ""]
    for line in unit.splitlines():
        section = line.strip() if line.startswith("[") else section
        key, is_setting, value = line.partition("=")
        if not is_setting or section != "[Service]" or line.startswith("#"):
            continue
        if key == "ExecStart":
            program = shlex.split(value)
        if not key.startswith(NOT_TAKEN):
            words.append(f"--property={line}")
    return shlex.join([*words, "--", program[0], "doctor", os.path.abspath(file) if file else program[-1]])
