"""Commands and their replies as typed values: what travels on the control socket, and to the thread that obeys.

Owns: the types, and the bounds of every field. Runs in any thread: the values are frozen. Never: touches a socket, a
tracker or a camera; imports torch or cv2.

A request is one msgpack map with `version`, `id` (the sender's own, given back in the reply) and `op`, which names
the type below in lower case; a reply is one msgpack map with the same `id`. `stream.control` is the server,
`stream.controller` the reference client. Unknown keys are an error in a request and ignored in a reply.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream.message import CAMERA_NAME
from stream.status import Status

VERSION: Literal[1] = 1
MAX_POINTS = 64
MAX_LABEL = 64
MAX_COORDINATE = 100_000.0
MAX_MASK_BYTES = 4 << 20
MAX_REQUEST_BYTES = MAX_MASK_BYTES + 65_536

CameraName = Annotated[str, Meta(pattern=CAMERA_NAME.pattern)]
ObjectId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Label = Annotated[str, Meta(max_length=MAX_LABEL, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Coordinate = Annotated[float, Meta(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Size = Annotated[int, Meta(ge=1, le=16384)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Point = tuple[Coordinate, Coordinate, Literal[0, 1]]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The picture that the person saw: what `masks/<camera>` and `frames/<camera>` call it."""

    epoch: Number
    seq: Number
    width: Size
    height: Size


class SentMask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mask of the picture's size: zstd over rows of ceil(width / 8) bytes, most significant bit = leftmost pixel."""

    width: Size
    height: Size
    data: Annotated[bytes, Meta(max_length=MAX_MASK_BYTES)]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower, forbid_unknown_fields=True):
    """What every request has."""

    version: Literal[1] = VERSION
    id: Annotated[str, Meta(max_length=64)] = ""


class Prompted(Request, frozen=True, kw_only=True):
    """Points (x, y, label) and a box (x0, y0, x1, y1), or a mask, in pixels of the picture `seen`, else of the newest.

    Points and boxes need `seen` only to be exact; a mask must have the picture's size.
    """

    camera: CameraName
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_POINTS)] = ()
    box: Box | None = None
    mask: SentMask | None = None
    seen: Seen | None = None


class Add(Prompted, frozen=True, kw_only=True):
    """A new object, or a known one prompted anew without its memory. The daemon chooses the id unless given."""

    object_id: ObjectId | None = None
    label: Label = ""


class Refine(Prompted, frozen=True, kw_only=True):
    """Correct an object, starting from its mask on that picture."""

    object_id: ObjectId


class Remove(Request, frozen=True, kw_only=True):
    """Forget an object."""

    camera: CameraName
    object_id: ObjectId


class Rename(Request, frozen=True, kw_only=True):
    """Give an object another id, another label, or both; its memory stays."""

    camera: CameraName
    object_id: ObjectId
    new_id: ObjectId | None = None
    label: Label | None = None


class Reset(Request, frozen=True, kw_only=True):
    """Forget all objects of a camera."""

    camera: CameraName


class Undo(Request, frozen=True, kw_only=True):
    """Take back the last add, refine, remove, rename or reset of a camera."""

    camera: CameraName


class CameraAdd(Request, frozen=True, kw_only=True):
    """A new camera, until the daemon ends; its scheme must be one that the configuration allows."""

    camera: CameraName
    source: Annotated[str, Meta(min_length=1, max_length=2048)]
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    max_fps: Annotated[float, Meta(ge=0.01, le=1000)] | None = None


class CameraRemove(Request, frozen=True, kw_only=True):
    camera: CameraName


class CameraPause(Request, frozen=True, kw_only=True):
    """Close the camera's source, keep its objects."""

    camera: CameraName


class CameraResume(Request, frozen=True, kw_only=True):
    camera: CameraName


class GetStatus(Request, frozen=True, kw_only=True):
    """The whole `Status`."""


class Ping(Request, frozen=True, kw_only=True):
    """Whether somebody is there."""


ObjectRequest = Add | Refine | Remove | Rename | Reset | Undo  # obeyed by the worker's thread
CameraRequest = CameraAdd | CameraRemove | CameraPause | CameraResume  # obeyed by the main thread
AnyRequest = ObjectRequest | CameraRequest | GetStatus | Ping


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request.

    `code`: "" where `ok`; else "refused" (wrong in itself: do not repeat it), "busy" (try again), "unknown" (no such
    camera or object), "stale" (another epoch or size than the picture's), "forbidden" (this key may not), "limited"
    (too many requests), "stopping".
    `note` says what a person should know although it worked, such as that the newest picture was taken instead.
    `object_id` of the object concerned; `seen` the picture on which a prompt was decoded.
    """

    version: int = VERSION
    id: str = ""
    ok: bool = True
    code: str = ""
    error: str = ""
    note: str = ""
    run: int = 0
    object_id: int | None = None
    seen: Seen | None = None
    status: Status | None = None
