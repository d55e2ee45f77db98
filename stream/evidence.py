"""`Evidence`: what an engine made of the clip of `stream.verify`, and the file that keeps the reference's for the next
start.

Owns: the values and the file's format. Any thread. Never: trusts what it reads, or leaves half a file.

FILE, version 1: 8 bytes "SAM2REF1", 8 bytes length of the payload (little-endian), 32 bytes SHA-256 of the payload, the
payload: msgpack of `_Saved` (typed; nothing in it is code). It is written beside and renamed, with mode 0600, in a
folder of mode 0700. `key` names all that the results depend on; a file with another key is of no use.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from engines.whole_file import replaced

MAGIC = b"SAM2REF1"
HEAD_BYTES = len(MAGIC) + 8 + 32
MAX_FILE_BYTES = 256 << 20
MAX_FILES = 16  # in the folder: the least recently written go first
SUFFIX = ".reference"

Length = Annotated[int, Meta(ge=1, le=65_536)]


class EvidenceError(ValueError):
    """A file that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Frames t, objects n; `seconds_t` tells how long each step took."""

    logits_tnhw: NDArray[np.float32]  # low resolution
    scores_tn: NDArray[np.float32]
    packed_tnhb: NDArray[np.uint8]  # masks in full resolution, as in `Masks`
    seconds_t: NDArray[np.float64]

    @property
    def num_frames(self) -> int:
        return len(self.seconds_t)


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload."""

    key: Annotated[str, Meta(max_length=4096)]
    logits_shape: tuple[Length, Length, Length, Length]
    packed_shape: tuple[Length, Length, Length, Length]
    logits: bytes
    scores: bytes
    packed: bytes
    seconds: bytes


def file_of(folder: Path, key: str) -> Path:
    """Where evidence with this key is kept."""
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{SUFFIX}"


def read_evidence(path: Path, key: str) -> Evidence | None:
    """What the file holds; None where there is no file. Raises `EvidenceError`, or OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        _check_owner(path, os.fstat(descriptor))
        head, payload = file.read(HEAD_BYTES), file.read(MAX_FILE_BYTES)
    if head[: len(MAGIC)] != MAGIC or len(payload) != int.from_bytes(head[8:16], "little"):
        raise EvidenceError(
            f"{path}: {len(head) + len(payload)} bytes; expected a whole file that begins with {MAGIC!r}"
        )
    if hashlib.sha256(payload).digest() != head[16:]:
        raise EvidenceError(f"{path}: damaged; expected another SHA-256 of its contents")
    try:
        return _evidence(msgspec.msgpack.decode(payload, type=_Saved), key)
    except ValueError as error:  # msgspec's errors, and an array of another size
        raise EvidenceError(f"{path}: {error}") from error


def write_evidence(path: Path, key: str, evidence: Evidence) -> None:
    """Replace the file, or leave it as it was; old ones beside it are removed. Raises OSError."""
    arrays = evidence.logits_tnhw, evidence.scores_tn, evidence.packed_tnhb, evidence.seconds_t
    logits, scores, packed, seconds = (np.ascontiguousarray(array).tobytes() for array in arrays)
    shapes = evidence.logits_tnhw.shape, evidence.packed_tnhb.shape
    payload = msgspec.msgpack.encode(_Saved(key, *shapes, logits, scores, packed, seconds))
    with replaced(path) as file:
        file.write(MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest() + payload)
    kept = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda old: old.stat().st_mtime_ns, reverse=True)
    for old in kept[MAX_FILES:]:
        old.unlink(missing_ok=True)


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Whoever can write it decides what passes for right."""
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        raise EvidenceError(f"{path}: {status.st_size} bytes; expected a file of at most {MAX_FILE_BYTES}")
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise EvidenceError(f"{path}: mode {status.st_mode & 0o777:o}; expected a file that only this user may touch")


def _evidence(saved: _Saved, key: str) -> Evidence:
    """Raises ValueError."""
    if saved.key != key:
        raise ValueError("made of something else; expected the same weights, device and programs")
    frames, objects = saved.logits_shape[:2]
    if saved.packed_shape[:2] != (frames, objects):
        raise ValueError(f"masks of shape {saved.packed_shape}; expected {frames} frames of {objects} objects")
    return Evidence(
        np.frombuffer(saved.logits, np.float32).reshape(saved.logits_shape),
        np.frombuffer(saved.scores, np.float32).reshape(frames, objects),
        np.frombuffer(saved.packed, np.uint8).reshape(saved.packed_shape),
        np.frombuffer(saved.seconds, np.float64).reshape(frames),
    )
