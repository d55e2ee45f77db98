"""Files that hold keys: read only if nobody else could have read or changed them, written whole or not at all.

Owns: `KeysError`, and what a safe file is. Runs in whichever thread calls it. Never: widens a file's mode, follows a
file that is no regular file, or shows what a private file holds.
"""

from __future__ import annotations

import os
import shlex
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["private", "public", "credential"]
MAX_BYTES = 1 << 20
MODES = {"private": 0o600, "public": 0o644}


class KeysError(ValueError):
    """Keys that are missing, unsafe or wrong; the text says what was expected and the command that mends it."""


def is_there(path: Path) -> bool:
    """KeysError where it cannot be told, such as in a folder that this user may not enter."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        folder = shlex.quote(str(path.parent))
        raise KeysError(
            f"{path}: {error.strerror}; expected a folder that this user may enter: ls -ld {folder}"
        ) from error
    return True


def read_toml(path: Path, kind: Kind) -> dict[str, Any]:
    """The file's content. KeysError unless it is a regular file of this user or root, and its mode is safe:

    private: nobody else may read or write it; public: nobody else may write it; credential (below systemd's
    $CREDENTIALS_DIRECTORY, where the group's bits may be the mask of an access list): no others may read or write it.
    """
    try:
        fileno = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}; expected a readable key file") from error
    try:
        _check(path, os.fstat(fileno), kind)
        content = os.read(fileno, MAX_BYTES + 1)
    finally:
        os.close(fileno)
    if len(content) > MAX_BYTES:
        raise KeysError(f"{path} has more than {MAX_BYTES} bytes; expected a key file")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = error if kind == "public" else "not TOML"  # the parser's text could quote a secret
        raise KeysError(f"{path}: {where}; expected a file that `sam2-stream keys` wrote") from None


def _check(path: Path, status: os.stat_result, kind: Kind) -> None:
    shown = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        raise KeysError(f"{path} is not a regular file; expected a key file")
    if status.st_uid not in (0, os.geteuid()):
        raise KeysError(
            f"{path} belongs to user {status.st_uid}, who could change it; expected this user ({os.geteuid()}) or "
            f"root: sudo chown {os.geteuid()} {shown}"
        )
    forbidden = {"private": 0o077, "public": 0o022, "credential": 0o007}[kind]
    if status.st_mode & forbidden:
        what = "written" if kind == "public" else "read"
        mode, right = stat.S_IMODE(status.st_mode), MODES.get(kind, 0o400)
        raise KeysError(
            f"{path} can be {what} by others (mode {mode:04o}); expected {right:04o}: chmod {right:o} {shown}"
        )


def write_file(path: Path, text: str, kind: Literal["private", "public"]) -> None:
    """Replace or make the file at once; a private one never exists with a wider mode than 0600."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    fileno = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fileno, "w", encoding="utf-8") as file:
            file.write(text)
            if kind == "public":  # whatever the umask: a service under its own user reads it
                os.fchmod(fileno, MODES[kind])
            file.flush()
            os.fsync(fileno)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fileno = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fileno)
    finally:
        os.close(fileno)


def to_toml(comment: str, fields: Mapping[str, str]) -> str:
    """Texts without quotes and backslashes: names, roles, keys in Z85."""
    lines = [f'{name} = "{value}"' for name, value in fields.items()]
    return "\n".join([*(f"# {line}" for line in comment.splitlines()), *lines, ""])
