"""What runs out: open files, and room on disks; and files of keys that others can read.

Owns: nothing. Runs in whichever thread calls it. Never: changes a limit or a mode, or leaves a file behind.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stream.config import Config
from stream.doctor.finding import Finding, broken, note, ok
from stream.keys import ClientKeys, KeyRing, KeysError

FILES_OF_DAEMON, FILES_PER_CAMERA = 200, 10  # measured: 23 with six generated cameras; a GPU's libraries open the rest
ENOUGH_FILES = 4096  # a subscriber to the newest of each topic takes one for each
LITTLE_BYTES, TOO_FEW_BYTES = 1 << 30, 64 << 20


def limits(config: Config) -> Iterator[Finding]:
    """All of them."""
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0], num_cameras=len(config.cameras))
    yield room("room for state", state_folder(config))
    yield room("room for cache", cache_folder())
    if config.keys is not None and config.keys.is_dir():
        yield from key_files(config.keys)


def open_files(limit: int, *, num_cameras: int) -> Finding:
    """`limit` as of this process; a service has its own."""
    needed = FILES_OF_DAEMON + FILES_PER_CAMERA * num_cameras
    text = f"at most {limit} at a time; {num_cameras} cameras need about {needed}, each subscriber some more"
    fixes = ("ulimit -n 65536  # in the shell; LimitNOFILE=65536 in a service",)
    if limit != resource.RLIM_INFINITY and limit < needed:
        return broken("open files", text, *fixes)
    if limit != resource.RLIM_INFINITY and limit < ENOUGH_FILES:
        return note("open files", text, *fixes)
    return ok("open files", "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit} at a time")


def room(subject: str, folder: Path | None) -> Finding:
    """Whether something can be written in a folder, or where it will be made, and how much."""
    if folder is None:
        return ok(subject, "nothing is kept")
    nearest = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), Path("/"))
    shown = shlex.quote(str(nearest))
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x" * 4096)
            file.flush()
        num_free = shutil.disk_usage(nearest).free
    except OSError as error:
        return broken(
            subject, f"nothing can be written in {nearest}: {error.strerror}", f"ls -ld {shown}; df -h {shown}"
        )
    text = f"{num_free / 2**20:.0f} MiB free in {nearest}"
    if num_free < TOO_FEW_BYTES:
        return broken(subject, text, f"df -h {shown}", f"du -xh --max-depth=1 {shown} | sort -h | tail")
    if num_free < LITTLE_BYTES:
        return note(subject, text, f"df -h {shown}")
    return ok(subject, text)


def key_files(folder: Path) -> Iterator[Finding]:
    """Clients' keys that still lie beside the daemon's: whether others can read them, and whether they still open."""
    try:
        clients = KeyRing.open(folder).clients()
    except KeysError:
        return  # told by `setup.keys`
    safe = []
    for path in sorted(path for path in folder.glob("*.key") if path.name != "server.key"):
        try:
            keys = ClientKeys.load(path)
        except KeysError as error:
            yield broken("key file", str(error).rpartition(": ")[0], str(error).rpartition(": ")[2])
            continue
        safe.append(path.name)
        if keys.public not in clients:
            yield note("key file", f"{path} lets nobody in: it is not on the list", f"rm {shlex.quote(str(path))}")
    if safe:
        yield ok("key files", f"{', '.join(safe)}: only their owner can read them")


def state_folder(config: Config) -> Path | None:
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return config.state or (Path(given) if given else None)


def cache_folder() -> Path:
    """Where weights and what compilers make are kept."""
    own, shared = os.environ.get("SAM2_STREAM_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    root = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return Path(own).expanduser() if own else root / "sam2-stream"
