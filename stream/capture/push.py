"""PushSource: `push://NAME`, frames that another program already owns (a ROS topic, a RealSense, a simulator).

Owns: a ZeroMQ PULL socket, bound in the camera's thread and closed there. Senders connect a PUSH socket to it.
Never: listens beyond this machine, takes a picture of a size other than announced, or trusts a length it was told.

A message has two parts. Part 1 is a msgpack map; part 2 the pixels:

| key | type | |
|---|---|---|
| version | 1 | |
| encoding | "raw_bgr" or "jpeg" | raw_bgr: part 2 is height x width x 3 bytes, rows from the top, blue first |
| height, width | int | pixels; height x width at most 7680 x 4320 |
| utc_ns | int | when the picture was taken, Unix time in nanoseconds; 0 = not known, its arrival counts |
| frame_id | str | name of the camera's optical frame; "" or absent: the configured one |
| seq | int | the sender's own number, rising by one; jumps are counted as `sender_gap` |

The socket's address is `push://NAME?bind=ADDRESS`, ADDRESS `ipc://PATH` or a loopback `tcp://127.0.0.1:PORT`. Without
`bind` it is `ipc://` in the runtime directory (`default_bind`). Capacity: 2 messages; with pace=live none waits long,
and the ring keeps the newest; with pace=offline the sender's socket fills and the sender waits. tests/push_example.py
is a sender in fifteen lines.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
import zmq
from msgspec import Meta
from numpy.typing import NDArray

from stream.capture.address import Address
from stream.capture.picture import Arrival, Items, Loss, Picture, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig
from stream.frame import ClockSource

log = logging.getLogger(__name__)

MAX_PIXELS = 7680 * 4320
MAX_HEADER_BYTES = 1024
MAX_INT = 2**63 - 1
POLL_MS = 100
NUM_WAITING = 2
MAX_SENDER_GAP = 10_000  # a longer one is another sender, or one that started anew


class PushHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part 1 of a message."""

    version: Literal[1]
    encoding: Literal["raw_bgr", "jpeg"]
    height: Annotated[int, Meta(ge=1, le=65535)]
    width: Annotated[int, Meta(ge=1, le=65535)]
    utc_ns: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    frame_id: Annotated[str, Meta(max_length=128)] = ""
    seq: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0


class PushError(ValueError):
    """What a message has that its format has not."""


class PushSource:
    """Written by the camera's thread: `_last_seq`, `_last_refusal`."""

    retries = True
    can_freeze = False
    codec = decoder = ""

    def __init__(self, address: Address, config: CameraConfig) -> None:
        address.only("bind")
        self._shown = address.shown
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", address.target):
            raise SourceError(
                f"source '{self._shown}': expected push://NAME of 1 to 64 letters, digits, '_', '.' or '-'"
            )
        self.bind = address.options.get("bind") or default_bind(address.target)
        if not re.fullmatch(r"ipc://.+|tcp://(127(\.\d{1,3}){3}|localhost|\[::1\]):(\d{1,5}|\*)", self.bind):
            raise SourceError(
                f"source '{self._shown}': bind='{self.bind}', expected ipc://PATH or tcp://127.0.0.1:PORT"
            )
        self._last_seq: int | None = None
        self._last_refusal = ""

    def check(self) -> None:
        """Nothing more can be known before the socket is bound."""

    def pictures(self, watch: Watch) -> Items:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            self._bind(socket)
            while not watch.is_set():
                watch.expect()
                if socket.poll(POLL_MS):
                    parts = socket.recv_multipart(copy=False)
                    yield from self._accept([part.buffer for part in parts])

    def _bind(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = 0
        socket.rcvhwm = NUM_WAITING
        socket.maxmsgsize = MAX_PIXELS * 3
        socket.ipv6 = "[" in self.bind
        try:
            socket.bind(self.bind)
        except zmq.ZMQError as error:
            raise SourceError(f"source '{self._shown}': cannot bind {self.bind}: {error.strerror.lower()}") from None
        log.info("%s listens on %s", self._shown, socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _accept(self, parts: Sequence[memoryview]) -> Iterator[Picture | Loss]:
        now = Arrival.now()
        try:
            header, image_hwc = decode_push(parts)
        except PushError as error:
            self._say_once(str(error))
            yield Loss("refused")
            return
        gap = 0 if self._last_seq is None else header.seq - self._last_seq - 1
        self._last_seq = header.seq
        if 0 < gap <= MAX_SENDER_GAP:
            yield Loss("sender_gap", gap)
        arrival = Arrival(header.utc_ns, now.ns, ClockSource.SENDER) if header.utc_ns else now
        yield Picture.of_array(image_hwc, arrival=arrival, frame_id=header.frame_id)

    def _say_once(self, refusal: str) -> None:
        """A sender that is wrong is wrong thirty times a second."""
        if refusal != self._last_refusal:
            log.warning("%s refused a message: %s", self._shown, refusal)
        self._last_refusal = refusal


def default_bind(name: str) -> str:
    """`ipc://` in systemd's or the user's runtime directory, else in a folder that only this user can enter."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        folder = Path(os.environ.get(variable, "").partition(":")[0] or "/nonexistent")
        if folder.is_dir():
            return f"ipc://{folder}/sam2-stream-push-{name}"
    folder = Path(tempfile.gettempdir(), f"sam2-stream-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat(follow_symlinks=False)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise SourceError(f"folder {folder}: expected it to be this user's alone (mode 700); remove it, or give ?bind=")
    return f"ipc://{folder}/push-{name}"


def decode_push(parts: Sequence[memoryview]) -> tuple[PushHeader, NDArray[np.uint8]]:
    """Header and picture of a message; the picture may lie in the message's own memory. Raises `PushError`."""
    if len(parts) != 2:
        raise PushError(f"{len(parts)} parts, expected 2: header and pixels")
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise PushError(f"a header of {len(parts[0])} bytes, expected at most {MAX_HEADER_BYTES}")
    try:
        header = msgspec.msgpack.decode(parts[0], type=PushHeader)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PushError(f"header: {' '.join(str(error).split())}") from None
    if header.height * header.width > MAX_PIXELS:
        raise PushError(f"{header.width}x{header.height} pixels, expected at most {MAX_PIXELS}")
    decode = _decode_raw if header.encoding == "raw_bgr" else _decode_jpeg
    return header, decode(header, np.frombuffer(parts[1], np.uint8))


def _decode_raw(header: PushHeader, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    num_bytes = header.height * header.width * 3
    if data.size != num_bytes:
        raise PushError(f"{data.size} bytes for {header.width}x{header.height} raw_bgr, expected {num_bytes}")
    return data.reshape(header.height, header.width, 3)


def _decode_jpeg(header: PushHeader, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = jpeg_size(data)  # before decoding: a few bytes can claim gigabytes
    if size != (header.height, header.width):
        found = f"a JPEG of {size[1]}x{size[0]}" if size else "no JPEG"
        raise PushError(f"{found}, expected one of {header.width}x{header.height}")
    try:
        image_hwc = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image_hwc = None
    if image_hwc is None or image_hwc.shape[:2] != size:
        raise PushError("a JPEG that cannot be decoded")
    return np.asarray(image_hwc, np.uint8)


def jpeg_size(data: NDArray[np.uint8]) -> tuple[int, int] | None:
    """(height, width) by a JPEG's frame header; None where there is none."""
    view, position = data.tobytes()[: 1 << 20], 2
    if view[:2] != b"\xff\xd8":
        return None
    while position + 9 <= len(view) and view[position] == 0xFF:
        marker, length = view[position + 1], int.from_bytes(view[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(view[position + at : position + at + 2], "big") for at in (5, 7))
            return height, width
        position += 2 + max(length, 2)
    return None
