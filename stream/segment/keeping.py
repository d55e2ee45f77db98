"""What survives a kill: the point where one video's run can go on, and the note that it is done.

Owns: the files in a task's folder `.segment/NAME`, and the fingerprint of what was asked. Runs in the thread that runs
the video. Never: goes on with results of another video, other prompts or other options.

`state` holds where the run stands after a whole chunk of pictures, with all that the tracker remembers; it is replaced
as a whole. What was written after it is written again, the same. `begun` says whose results these are from the first
picture on, and `done` holds the summary.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from engines.whole_file import replaced
from stream.segment.request import SegmentError, Task

VERSION = 1
Kind = TypeVar("Kind")


class KeptObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object in the tracker's order."""

    id: int
    snapshot: bytes


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After a chunk. `parts` are, by format, the parts of its film: file name and when the part begins."""

    fingerprint: str
    first_index: int
    last_index: int  # processed
    last_time_ns: int
    num_pictures: int
    seconds: float
    size: tuple[int, int]  # of the first picture
    objects: tuple[KeptObject, ...]
    parts: dict[str, tuple[tuple[str, int], ...]] = {}
    engine: str = ""


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a video went."""

    name: str
    source: str
    num_pictures: int
    first_index: int
    last_index: int
    seconds: float  # from the first picture to the last, also of the runs that were killed
    num_objects: int
    files: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    engine: str = ""

    @property
    def fps(self) -> float:
        return self.num_pictures / self.seconds if self.seconds > 0 else 0.0


class _Begun(msgspec.Struct, frozen=True):
    fingerprint: str


class _Done(msgspec.Struct, frozen=True):
    fingerprint: str
    summary: Summary


class Keeper:
    """One task's folder. Holds no state but its names."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.fingerprint = fingerprint_of(task)
        self.folder = task.work
        self._begun, self._state, self._done = (task.work / name for name in ("begun", "state", "done"))

    def done(self) -> Summary | None:
        """The summary of a run that has ended; None where there is none. Raises `SegmentError` for another run's."""
        found = self._read(self._done, _Done)
        return None if found is None else self._same(found.fingerprint, found.summary)

    def state(self) -> State | None:
        """Where a run was killed. Raises `SegmentError` for another run's."""
        found = self._read(self._state, State)
        return None if found is None else self._same(found.fingerprint, found)

    def begin(self) -> None:
        """Say that these results are this task's, before the first of them. Raises `SegmentError` for other ones."""
        found = self._read(self._begun, _Begun)
        if found is not None:
            self._same(found.fingerprint, found)
            return
        for path in map(self._task.path, self._task.settings.formats):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise SegmentError(
                    f"{path}: this is there already and not of this run, expected an empty place; another folder, or "
                    "--overwrite to remove it"
                )
        self._write(self._begun, msgspec.msgpack.encode(_Begun(self.fingerprint)))

    def keep(self, state: State) -> None:
        self._write(self._state, msgspec.msgpack.encode(state))

    def finish(self, summary: Summary) -> None:
        """The parts of films are not needed any more, nor what the tracker knew."""
        self._write(self._done, msgspec.msgpack.encode(_Done(self.fingerprint, summary)))
        for path in self.folder.iterdir():
            if path.is_file() and path != self._done:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget this task, and remove what it wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in self._task.settings.formats:
            path = self._task.path(name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _same(self, fingerprint: str, found: Kind) -> Kind:
        if fingerprint == self.fingerprint:
            return found
        raise SegmentError(
            f"{self._task.out}: the results of {self._task.name} were begun with another file, prompts or options, "
            "expected the same ones, another folder, or --overwrite"
        )

    def _write(self, path: Path, data: bytes) -> None:
        with replaced(path) as file:
            file.write(VERSION.to_bytes(4, "little") + hashlib.sha256(data).digest() + data)

    def _read(self, path: Path, kind: type[Kind]) -> Kind | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        payload = data[36:]
        if data[:4] != VERSION.to_bytes(4, "little") or hashlib.sha256(payload).digest() != data[4:36]:
            raise SegmentError(
                f"{path}: damaged or of another version, expected this program's; --overwrite begins anew"
            )
        try:
            return msgspec.msgpack.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            raise SegmentError(f"{path}: {error}, expected this program's; --overwrite begins anew") from error


def backend_begun(tasks: Iterable[Task]) -> str:
    """The backend that killed runs used, so that they go on with the same; "" where there is none, or several."""
    states = [Keeper(task).state() for task in tasks if not task.settings.overwrite]
    backends = {state.engine.rpartition(", ")[2] for state in states if state is not None}
    return backends.pop() if len(backends) == 1 else ""


def fingerprint_of(task: Task) -> str:
    """All that decides on the bytes of the results: what was asked, and which video (name, size and time of change)."""
    paths = [Path(task.source), *(prompt.mask for prompt in task.prompts if prompt.mask is not None)]
    files = [(str(place.resolve()), *_identity(place)) for place in paths]
    asked = (VERSION, task.name, files, task.prompts, replace(task.settings, overwrite=False))
    return hashlib.sha256(msgspec.json.encode(asked, enc_hook=str)).hexdigest()


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)  # a pattern of names
    return (status.st_size, status.st_mtime_ns)
