"""Valid requests, and how a hostile client makes them wrong."""

from __future__ import annotations

import pathlib
import random

import msgspec

from stream.command import Ping
from stream.command_codec import encode_request

GOLDEN = pathlib.Path(__file__).parent / "golden" / "commands"
VALID = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin")) if not path.stem.startswith("reply")]
PING = encode_request(Ping(id="p"))
KEYS = ["id", "op", "version", "camera", "points", "box", "mask", "seen", "object_id", "label", "source"]
ODD_VALUES: list[object] = [
    None, True, -1, 2**64 - 1, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\x00\n\x1b", b"", b"\xff" * 5000,
    [], [[]] * 1000, {}, {"": {}}, [[1.0, 2.0, 1]] * 70, {"width": 16384, "height": 16384, "data": b"x"},
]  # fmt: skip


def mutated(payload: bytes, draw: random.Random) -> bytes:
    """A valid request made wrong: cut, bytes changed, keys changed, or wrapped deep."""
    kind = draw.randrange(5)
    if kind == 0:
        return payload[: draw.randrange(len(payload))]
    if kind == 1:
        changed = bytearray(payload)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)
    if kind == 2:
        return draw.randbytes(draw.randrange(400))
    if kind == 3:
        return b"\x81\xa2op" + b"\x91" * draw.randint(1, 2000) + payload
    body = msgspec.msgpack.decode(payload)
    body[draw.choice([*body, "q", "id", "camera"])] = draw.choice(ODD_VALUES)
    return msgspec.msgpack.encode(body)
