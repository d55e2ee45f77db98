"""A file that is replaced as a whole: a reader sees the old one or the new one, never a part.

Owns: how that is done, for everything in `stream` and `engines` that keeps a file. `replaced` is for what is private
and must last: any thread, any number of processes. `moved_in` is for results: one writer at a time.
Never: follows a link at the file's place.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # ends the names of files being written; a killed writer leaves one


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside `path`, mode 0600; it takes the place of `path` when the block ends, and is on the disk then.

    Makes the folder, mode 0700, where there is none. After an error in the block `path` is what it was, and nothing is
    left behind. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)  # still there only after an error
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def moved_in(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; the file there takes the place of `path` when the block ends.

    It is not synced, and its mode is the usual one. After an error `path` is what it was, and the part stays until the
    next writer, who writes over it. Raises OSError.
    """
    beside = path.with_name(f".{path.name}{PART}")
    yield beside
    os.replace(beside, path)
