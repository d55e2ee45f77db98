"""The file of saved objects: what it may hold, how it is written, and everything that is checked when it is read.

Owns: the format. Any thread. Never: trusts what it reads, or leaves half a file.

FILE, version 1: 8 bytes "SAM2OBJ1", 8 bytes length of the payload (little-endian), 32 bytes SHA-256 of the payload, the
payload: msgpack of `State` (typed; nothing in it is code). It is written beside, synced and renamed, with mode 0600.

What is in it: by camera its epoch and, of every object added or changed at run time, id, label and memory. The hash
finds damage; a file made on purpose can at worst say where an object was: only its owner can write it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from engines.whole_file import replaced
from stream.command import CameraName, Label, ObjectId
from stream.memory import NO_TIME, RowMemory

MAGIC = b"SAM2OBJ1"
HEAD_BYTES = len(MAGIC) + 8 + 32
MAX_FILE_BYTES = 1 << 30
MAX_TIME = 2**62
DtypeName = Literal["float32", "float16", "bfloat16"]
_DTYPES: dict[DtypeName, torch.dtype] = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Time = Annotated[int, Meta(ge=0, le=MAX_TIME)]
Length = Annotated[int, Meta(ge=1, le=65_536)]


class StateError(ValueError):
    """A file that cannot be used, or a state that cannot be written; the text says why."""


class SavedRing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Memory frames or pointers of an object: the time of each slot, and the contents of those that have one."""

    times: Annotated[tuple[Annotated[int, Meta(ge=NO_TIME, le=MAX_TIME)], ...], Meta(max_length=64)]
    shape: Annotated[tuple[Length, ...], Meta(min_length=1, max_length=2)]  # of one slot
    dtype: DtypeName
    data: bytes


class SavedObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object; `age` is how many frames it has processed."""

    id: ObjectId
    label: Label
    age: Annotated[int, Meta(ge=1, le=MAX_TIME)]
    memory: SavedRing
    pointers: SavedRing


class SavedCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One camera's objects. `moved`: configured ids whose object has another id now."""

    name: CameraName
    epoch: Time
    utc_ns: Time  # of its last processed picture
    objects: Annotated[tuple[SavedObject, ...], Meta(max_length=1024)]
    moved: Annotated[tuple[ObjectId, ...], Meta(max_length=1024)] = ()


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload."""

    model: Annotated[str, Meta(max_length=256)]
    cameras: Annotated[tuple[SavedCamera, ...], Meta(max_length=1024)] = ()


@dataclass(frozen=True, slots=True)
class LiveObject:
    """An object as the tracker has it."""

    object_id: int
    label: str
    memory: RowMemory


@dataclass(frozen=True, slots=True)
class LiveCamera:
    """A camera's objects as the tracker has them."""

    name: str
    epoch: int
    utc_ns: int
    objects: tuple[LiveObject, ...]
    moved: tuple[int, ...] = ()


def read_state(path: Path) -> State | None:
    """What the file holds; None where there is no file. Raises `StateError`, or OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise StateError(f"{path}: {status.st_size} bytes; expected a file of at most {MAX_FILE_BYTES}")
        head = file.read(HEAD_BYTES)
        payload = file.read(MAX_FILE_BYTES)
    if head[: len(MAGIC)] != MAGIC:
        raise StateError(f"{path}: it begins with {head[:8]!r}; expected {MAGIC!r}")
    length = int.from_bytes(head[8:16], "little")
    if len(head) < HEAD_BYTES or len(payload) != length:
        raise StateError(f"{path}: {len(head) + len(payload)} bytes; expected {HEAD_BYTES + length}")
    if hashlib.sha256(payload).digest() != head[16:]:
        raise StateError(f"{path}: damaged; expected another SHA-256 of its contents")
    try:
        return msgspec.msgpack.decode(payload, type=State)
    except msgspec.MsgspecError as error:
        raise StateError(f"{path}: {error}") from error


def write_state(path: Path, state: State) -> None:
    """Replace the file, or leave it as it was. Raises `StateError`, or OSError."""
    payload = msgspec.msgpack.encode(state)
    if HEAD_BYTES + len(payload) > MAX_FILE_BYTES:
        raise StateError(f"{path}: {len(payload)} bytes of objects; expected at most {MAX_FILE_BYTES}")
    with replaced(path) as file:
        file.write(MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest())
        file.write(payload)


def saved_camera(camera: LiveCamera) -> SavedCamera:
    """As it is written; its memories are on the CPU."""
    objects = tuple(
        SavedObject(
            item.object_id, item.label, item.memory.age,
            _saved_ring(item.memory.memory_times_s, item.memory.memory_snc),
            _saved_ring(item.memory.pointer_times_s, item.memory.pointer_sc),
        )
        for item in camera.objects
    )  # fmt: skip
    return SavedCamera(camera.name, camera.epoch, camera.utc_ns, objects, camera.moved)


def live_camera(camera: SavedCamera) -> LiveCamera:
    """As the tracker takes it, on the CPU. Raises `StateError` for values that no tracker writes."""
    objects = []
    for item in camera.objects:
        memory_times, memory = _live_ring(item, item.memory)
        pointer_times, pointers = _live_ring(item, item.pointers)
        row = RowMemory(memory, pointers, memory_times, pointer_times, item.age)
        objects.append(LiveObject(item.id, item.label, row))
    return LiveCamera(camera.name, camera.epoch, camera.utc_ns, tuple(objects), camera.moved)


def _saved_ring(times: np.ndarray, slots: Tensor) -> SavedRing:
    used = slots[torch.from_numpy(np.flatnonzero(times != NO_TIME))].contiguous()
    data = used.view(torch.uint8).numpy().tobytes() if used.numel() else b""
    return SavedRing(tuple(times.tolist()), tuple(slots.shape[1:]), _NAMES[slots.dtype], data)


def _live_ring(item: SavedObject, ring: SavedRing) -> tuple[np.ndarray, Tensor]:
    times = np.array(ring.times, np.int64)
    used = np.flatnonzero(times != NO_TIME)
    dtype = _DTYPES[ring.dtype]
    num_bytes = len(used) * int(np.prod(ring.shape)) * dtype.itemsize
    if len(ring.data) != num_bytes:
        raise StateError(f"object {item.id} has {len(ring.data)} bytes of memory; expected {num_bytes}")
    if not len(used) or int(times.max()) >= item.age:
        raise StateError(f"object {item.id} of age {item.age} has memories of the times {ring.times}; expected earlier")
    values = torch.frombuffer(bytearray(ring.data), dtype=dtype).view(len(used), *ring.shape)
    if not bool(torch.isfinite(values).all()):
        raise StateError(f"object {item.id} has memories that are not finite; expected numbers")
    slots = torch.zeros(len(times), *ring.shape, dtype=dtype)
    slots[torch.from_numpy(used)] = values
    return times, slots
