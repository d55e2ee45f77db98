"""What the tracker knows of an object, as bytes and back: bit for bit, by the types that `Snapshot` itself declares.

Owns: how tensors and arrays are written. Any thread. Never: runs code that it reads: the file holds numbers and text.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from stream.turn import Snapshot

_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)}


class SnapshotError(ValueError):
    """Bytes that are no snapshot of this program."""


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """All of it, from whatever device."""
    return msgspec.msgpack.encode(snapshot, enc_hook=_plain)


def decode_snapshot(data: bytes) -> Snapshot:
    """The same again, on the CPU. Raises `SnapshotError`."""
    try:
        return msgspec.msgpack.decode(data, type=Snapshot, dec_hook=_rich)
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise SnapshotError(f"it is of another version of this program ({error})") from error


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        host = value.detach().cpu().contiguous()
        data = host.reshape(-1).view(torch.uint8).numpy().tobytes() if host.numel() else b""
        return str(host.dtype), tuple(host.shape), data
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} in a snapshot")


def _rich(kind: Any, value: Any) -> object:
    origin = typing.get_origin(kind) or kind
    name, shape, data = value
    if inspect.isclass(origin) and issubclass(origin, Tensor):
        if not data:
            return torch.zeros(shape, dtype=_DTYPES[name])
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(_DTYPES[name]).reshape(shape)
    if inspect.isclass(origin) and issubclass(origin, np.ndarray):
        return np.frombuffer(data, np.dtype(name)).reshape(shape).copy()
    raise ValueError(f"a {kind} in a snapshot")
