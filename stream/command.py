"""Commands and their replies, version 1: this text is the specification of the control protocol.

Owns: the types and the bounds of every field; `stream.command_codec` turns them into bytes and back. Runs in any
thread: the values are frozen. Never: touches a socket, a tracker or a camera; imports torch or cv2.

CARRIER. The daemon's socket is a ZeroMQ ROUTER, at `info.control` (see `stream.wire`); a client's is a DEALER. A
request is ONE part, one msgpack map with string keys; so is its reply. A REQ socket may be used too: an empty first
part is accepted and given back. A request has at most 1.1 MiB (the connection ends otherwise). Requests may be sent
without waiting, at most 16 unanswered ones and 50 a second (100 at once) per client; replies may come in another
order: match them by `id`. Every request that is a map with a readable `id` gets exactly one reply while client and
daemon live (a client that leaves 256 unread loses more), others are dropped and counted ("malformed"). A request
without reply may have been obeyed.
`stream.control` is the server, `stream.controller` the reference client.

EVOLUTION. Unknown keys are an error in a request, and ignored in a reply. New keys do not raise `version`.

    request  version    int  1 (may be left out)
             id         str  the sender's own name for the request, at most 64 characters; make it unlike all others:
                             `requests` of masks/<camera> names it where its effect first shows
             op         str  one of:
      add              camera, prompt, object_id int|nil (nil: the daemon chooses), label str
                       a new object, or a known one prompted anew without its memory
      refine           camera, prompt, object_id int         correct an object, starting from its mask on that picture
      remove           camera, object_id int                 forget an object
      rename           camera, object_id int, new_id int|nil, label str|nil   another id or label or both; memory stays
      reset            camera                                forget all objects of the camera
      undo             camera                                take back the last add, refine, remove, rename or reset
      add_camera       camera, source str, rtsp_transport "tcp"|"udp", max_fps float|nil      until the daemon ends
      remove_camera    camera
      pause_camera     camera                                close the source, keep the objects
      resume_camera    camera
      status                                                 the reply holds `status`
      ping                                                   whether somebody is there
    camera   str  a camera's name, [A-Za-z0-9_.-]{1,64}
    prompt   points     array of at most 64 [x, y, label]: pixels of the picture, label 1 = on the object, 0 = beside it
             box        [x0, y0, x1, y1]|nil  pixels, x0 < x1, y0 < y1; alone or together with points
             mask       map|nil, instead of points and box: width int, height int (of the picture), and data bin: one
                        zstd frame that declares its content size, `height` rows of ceil(width / 8) bytes, most
                        significant bit = leftmost pixel, padding 0
             seen       map|nil  the picture that the person saw, from masks/<camera> or frames/<camera>: epoch int,
                        seq int, width int, height int, run int (0 = not told). The prompt is decoded on that very
                        picture if the daemon still has it, else on the newest (`note` says so). nil: on the next one
    label    str  at most 64 characters, no control characters
    source   str  at most 2048 characters, no control characters; a URL with a scheme that the daemon allows
    reply    version    int  1
             id         str  the request's
             ok         bool
             code       str  "" where ok, else what went wrong:
                             refused    wrong in itself: do not repeat it
                             busy       too much waits: try again
                             unknown    no such camera or object
                             stale      `seen` is of another run, epoch or size than the camera's pictures now
                             forbidden  the client's key may not do this
                             limited    too many requests
                             stopping   the daemon ends
             error      str  for people: one line, "" where ok
             note       str  what a person should know although it worked
             run        int  the daemon's life, as in masks/<camera>; 0 = not known yet
             object_id  int|nil  the object concerned
             seen       map|nil  the picture on which a prompt was decoded
             status     map|nil  `stream.status.Status`
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import msgspec
import numpy as np
import zstandard
from msgspec import Meta

from stream.mask_codec import Bools, decompress
from stream.message import CAMERA_NAME
from stream.status import Status

VERSION: Literal[1] = 1
MAX_POINTS = 64
MAX_LABEL = 64
MAX_COORDINATE = 100_000.0
MAX_MASK_BYTES = 1 << 20  # the bits of a picture of 3840 x 2160, also where zstd gains nothing
MAX_REQUEST_BYTES = MAX_MASK_BYTES + 65_536
MAX_REPLY_BYTES = 16 << 20
CODES = ("refused", "busy", "unknown", "stale", "forbidden", "limited", "stopping")

CameraName = Annotated[str, Meta(pattern=CAMERA_NAME.pattern)]
ObjectId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
PRINTABLE = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
Label = Annotated[str, Meta(max_length=MAX_LABEL, pattern=PRINTABLE)]
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
    run: Number = 0  # of the message; 0 = not told


class SentMask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mask of the picture's size: zstd over rows of ceil(width / 8) bytes, most significant bit = leftmost pixel."""

    width: Size
    height: Size
    data: Annotated[bytes, Meta(max_length=MAX_MASK_BYTES)]

    def __post_init__(self) -> None:
        num_bytes = self.height * ((self.width + 7) // 8)
        try:
            declared = zstandard.get_frame_parameters(self.data).content_size
        except zstandard.ZstdError:
            declared = -1
        if declared != num_bytes:
            raise ValueError(f"mask data is not a zstd frame that declares {num_bytes} bytes, expected one")

    @classmethod
    def of(cls, mask_hw: Bools) -> Self:
        """The mask as it is sent."""
        if mask_hw.ndim != 2 or mask_hw.dtype != np.bool_:
            raise ValueError(f"mask of {mask_hw.dtype} and shape {mask_hw.shape}, expected bool, (height, width)")
        height, width = mask_hw.shape
        rows = np.packbits(mask_hw, axis=1).tobytes()
        return cls(width=width, height=height, data=zstandard.ZstdCompressor(level=1).compress(rows))

    def mask_hw(self) -> Bools:
        """The mask as booleans; `WireError` for data that no sound sender makes. Check the size before."""
        rows = decompress(self.data, self.height * ((self.width + 7) // 8))
        rows_hb = np.frombuffer(rows, np.uint8).reshape(self.height, -1)
        return np.unpackbits(rows_hb, axis=1, count=self.width).astype(np.bool_)


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower, forbid_unknown_fields=True):
    """What every request has."""

    version: Literal[1] = VERSION
    id: Annotated[str, Meta(max_length=64, pattern=PRINTABLE)] = ""


class Prompted(Request, frozen=True, kw_only=True):
    """Points (x, y, label) and a box (x0, y0, x1, y1), or a mask, in pixels of the picture `seen`, else of the newest.

    Points and boxes need `seen` only to be exact; a mask must have the picture's size.
    """

    camera: CameraName
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_POINTS)] = ()
    box: Box | None = None
    mask: SentMask | None = None
    seen: Seen | None = None

    def __post_init__(self) -> None:
        box = self.box
        if self.mask is not None and (self.points or box is not None):
            raise ValueError("a mask together with points or a box, expected one or the other")
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box {box}, expected x0 < x1 and y0 < y1")
        if self.mask is None and box is None and not self.points:
            raise ValueError("no points, box or mask, expected at least one")


class Add(Prompted, frozen=True, kw_only=True):
    """A new object, or a known one prompted anew without its memory. The daemon chooses the id unless given."""

    object_id: ObjectId | None = None
    label: Label = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is None and self.box is None and not any(label for _, _, label in self.points):
            raise ValueError("only points with label 0, expected one with label 1, a box or a mask")


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

    def __post_init__(self) -> None:
        if self.new_id is None and self.label is None:
            raise ValueError("neither new_id nor label, expected one or both")


class Reset(Request, frozen=True, kw_only=True):
    """Forget all objects of a camera."""

    camera: CameraName


class Undo(Request, frozen=True, kw_only=True):
    """Take back the last add, refine, remove, rename or reset of a camera."""

    camera: CameraName


class CameraAdd(Request, frozen=True, kw_only=True, tag="add_camera"):
    """A new camera, until the daemon ends; its scheme must be one that the configuration allows."""

    camera: CameraName
    source: Annotated[str, Meta(min_length=1, max_length=2048, pattern=PRINTABLE)]
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    max_fps: Annotated[float, Meta(ge=0.01, le=1000)] | None = None


class CameraRemove(Request, frozen=True, kw_only=True, tag="remove_camera"):
    camera: CameraName


class CameraPause(Request, frozen=True, kw_only=True, tag="pause_camera"):
    """Close the camera's source, keep its objects."""

    camera: CameraName


class CameraResume(Request, frozen=True, kw_only=True, tag="resume_camera"):
    camera: CameraName


class GetStatus(Request, frozen=True, kw_only=True, tag="status"):
    """The whole `Status`."""


class Ping(Request, frozen=True, kw_only=True):
    """Whether somebody is there."""


ObjectRequest = Add | Refine | Remove | Rename | Reset | Undo  # obeyed by the worker's thread
CameraRequest = CameraAdd | CameraRemove | CameraPause | CameraResume  # obeyed by the main thread
AnyRequest = ObjectRequest | CameraRequest | GetStatus | Ping


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request; the table above tells its fields.

    Whoever answers a command fills in the rest; `stream.control` sets `id` and `run`.
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
