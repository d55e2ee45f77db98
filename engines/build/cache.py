"""`EngineCache`: built plans in files that are whole, private, and from this very recipe - or not there at all.

Owns: the folder `engines` of the cache: one file a plan, `refused` with the plans that the gate refused, the lock of
the one who builds. Any thread and any number of processes. Never: unpickles, follows a link, or hands out a byte that
it has not checked.

A file is a line of magic, a line with the SHA-256 of all that follows, a line of JSON (the label), and the plan. It is
written beside its place and renamed, so that a reader finds a whole file or none. A file that is damaged, cut off,
not ours, open to others, or made from another recipe is thrown away and built anew.

Loses: the files used least recently, beyond `max_bytes`, at each `store` and `prune`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from engines.build.recipe import Recipe
from engines.build.verdict import Verdict
from engines.weights import cache_folder
from engines.whole_file import replaced

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 30
_MAGIC = b"sam2-stream plan 1\n"
_MAX_LABEL_BYTES = 1 << 20
_STALE_PART_S = 3600.0  # after which a half-written file belongs to a builder that died
_BLOCK_BYTES = 1 << 20


class PlanUnusable(Exception):
    """A file is not to be loaded; the text says why."""


class CacheError(Exception):
    """The cache's folder cannot be used; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says of itself."""

    recipe: Recipe
    verdict: Verdict | None  # None: nobody has run it yet, as it was built for another machine

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Label:
        content = json.loads(text)
        verdict = content["verdict"]
        return cls(Recipe(**content["recipe"]), None if verdict is None else Verdict.from_dict(verdict))


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the cache, as its label tells it; the plan itself is not looked at."""

    path: Path
    label: Label
    num_bytes: int
    used_s: float  # time of the last use, seconds since 1970


class _Head(NamedTuple):
    label: Label
    digest: str
    text: bytes  # the label as it stands in the file


class EngineCache:
    """Nothing is kept in memory; the folder is the state."""

    def __init__(self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = cache_folder("engines") if folder is None else folder
        self.refused_folder = self.folder / "refused"
        self._max_bytes = max_bytes

    def path_of(self, recipe: Recipe, *, refused: bool = False) -> Path:
        """Where this recipe's plan is, or would be."""
        return (self.refused_folder if refused else self.folder) / f"{recipe.file_stem}.plan"

    def find(self, recipe: Recipe, *, refused: bool = False) -> Entry | None:
        """This recipe's file; what stands in its place without being it is thrown away."""
        path = self.path_of(recipe, refused=refused)
        if not os.path.lexists(path):
            return None
        try:
            entry = self._entry(path)
            if entry.label.recipe != recipe:
                raise PlanUnusable("made from another recipe")
            return entry
        except PlanUnusable as error:
            self._discard(path, str(error))
            return None

    def read(self, entry: Entry) -> bytes:
        """The plan, checked to the last byte, and marked as used. Raises `PlanUnusable`; the file is gone then."""
        try:
            with _opened(entry.path) as file:
                head = _head(file)
                plan = file.read()
            if head.label != entry.label or _digest(head.text, plan) != head.digest:
                raise PlanUnusable("its checksum is wrong: damaged, cut off, or changed")
        except PlanUnusable as error:
            self._discard(entry.path, str(error))
            raise
        with contextlib.suppress(OSError):
            os.utime(entry.path)
        return plan

    def store(self, label: Label, plan: bytes, *, refused: bool = False) -> Path:
        """Put a plan in its place, whole or not at all."""
        path = self.path_of(label.recipe, refused=refused)
        self._make_folder(path.parent)
        head = label.to_json() + b"\n"
        try:
            with replaced(path) as file:
                for piece in (_MAGIC, _digest(head, plan).encode() + b"\n", head, plan):
                    file.write(piece)
        except OSError as error:
            raise CacheError(f"{path}: cannot be written: {error.strerror}") from error
        self.prune(keep=path)
        return path

    def set_aside(self, entry: Entry, verdict: Verdict) -> None:
        """Keep a plan that was refused after all, for a report, where nobody loads it."""
        try:
            self.store(Label(entry.label.recipe, verdict), self.read(entry), refused=True)
        except (PlanUnusable, CacheError) as error:
            log.warning("%s: not kept for a report: %s", entry.path, error)
        self._discard(entry.path, verdict.reason)

    def entries(self, *, refused: bool = False) -> list[Entry]:
        """All usable files, the one used last first."""
        found = []
        for path in sorted((self.refused_folder if refused else self.folder).glob("*.plan")):
            try:
                found.append(self._entry(path))
            except PlanUnusable as error:
                self._discard(path, str(error))
        return sorted(found, key=lambda entry: entry.used_s, reverse=True)

    def discard(self, entry: Entry) -> None:
        entry.path.unlink(missing_ok=True)

    def prune(self, max_bytes: int | None = None, *, keep: Path | None = None) -> list[Path]:
        """Remove the refused ones, then those used least recently, until the rest fits; says which."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        self._sweep()
        victims = [*self.entries(refused=True)[::-1], *self.entries()[::-1]]
        total, gone = sum(entry.num_bytes for entry in victims), []
        for entry in (victim for victim in victims if victim.path != keep):
            if total <= limit:
                break
            entry.path.unlink(missing_ok=True)
            total -= entry.num_bytes
            gone.append(entry.path)
        return gone

    @contextlib.contextmanager
    def building(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Inside, no other process builds for this cache; `waiting` is called once if another one is at it. One at a
        time also because builders time what they try. The lock ends with the process that holds it.
        """
        self._make_folder(self.folder)
        with open(self.folder / "builder.lock", "ab", opener=_private) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _entry(self, path: Path) -> Entry:
        with _opened(path) as file:
            label = _head(file).label
            about = os.fstat(file.fileno())
        return Entry(path, label, about.st_size, about.st_mtime)

    def _sweep(self) -> None:
        """Half-written files of builders that died."""
        for part in [*self.folder.glob(".*.part"), *self.refused_folder.glob(".*.part")]:
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > _STALE_PART_S:
                    part.unlink()

    def _discard(self, path: Path, reason: str) -> None:
        log.warning("%s: thrown away: %s", path, reason)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def make_folders(self) -> None:
        """The cache's own, private; raises `CacheError`."""
        self._make_folder(self.folder)

    def _make_folder(self, folder: Path) -> None:
        """Private: others may neither look nor write."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = os.stat(folder)
            if about.st_uid != os.geteuid():
                raise CacheError(f"{folder}: belongs to user {about.st_uid}, expected a folder of your own")
            if stat.S_IMODE(about.st_mode) != 0o700:
                os.chmod(folder, 0o700)
        except OSError as error:
            raise CacheError(f"{folder}: cannot be used: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _opened(path: Path) -> BinaryIO:
    """A file of ours that nobody else can have written."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise PlanUnusable(f"cannot be opened: {error.strerror}") from error
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        file.close()
        raise PlanUnusable("foreign: expected a plain file of our own that is closed to others")
    return file


def _head(file: BinaryIO) -> _Head:
    """The plan comes next in the file."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise PlanUnusable("not a plan of this program")
    digest, text = file.readline(100), file.readline(_MAX_LABEL_BYTES)
    try:
        return _Head(Label.from_json(text), digest.decode("ascii").strip(), text)
    except (ValueError, TypeError, KeyError) as error:
        raise PlanUnusable(f"its label cannot be read: {type(error).__name__}") from error


def _digest(head: bytes, plan: bytes) -> str:
    found = hashlib.sha256(head)
    found.update(plan)
    return found.hexdigest()
