"""The typed messages: what `stream.wire` encodes, what `stream.client` hands out.

Owns: the message types and how their masks become arrays; `stream.wire` says what every field means. Runs in any
thread: the values are frozen. Never: looks into mask data before a mask is asked for, or touches a socket.
"""

from __future__ import annotations

import functools
import math
import pathlib
import re
import time
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from stream.frame import CameraCondition, ClockSource, Masks, ObjectState
from stream.mask_codec import Bools, MaskEncoding, Patch, Pixels, WireError

VERSION = 1
MAX_OBJECTS = 1024
BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")

CAMERA_NAME = re.compile(r"\A[A-Za-z0-9_.-]{1,64}\Z")
CameraName = Annotated[str, Meta(pattern=CAMERA_NAME.pattern)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


@functools.cache
def local_clock_id() -> str:
    """The name of this machine's monotonic clock: it changes at every boot; "" where the system does not tell."""
    return BOOT_ID.read_text(encoding="ascii")[:8] if BOOT_ID.exists() else ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The head of every message."""

    version: int = VERSION
    run: Count = 0
    serial: Count = 0

    @property
    def topic(self) -> str:
        """The topic, without its NUL."""
        raise NotImplementedError


class ObjectMask(msgspec.Struct, frozen=True, kw_only=True):
    """One object on one picture."""

    id: Count
    label: Text
    state: ObjectState
    score: float
    predicted_iou: float
    box: tuple[Pixels, Pixels, Pixels, Pixels]
    area: Count
    centroid: tuple[float, float] | None
    unseen_ns: Time = 0
    patch: Patch | None = msgspec.field(name="mask")

    def __post_init__(self) -> None:
        numbers = (self.score, self.predicted_iou, *(self.centroid or ()))
        if not all(map(math.isfinite, numbers)):
            raise WireError(f"object {self.id}: score, predicted_iou, centroid are {numbers}, expected finite numbers")
        x0, y0, x1, y1 = self.box
        if x0 > x1 or y0 > y1:
            raise WireError(f"object {self.id} has box {self.box}, expected x0 <= x1 and y0 <= y1")

    def crop(self) -> Bools:
        """The mask within `box`, as booleans of shape (y1 - y0, x1 - x0)."""
        patch, (x0, y0, x1, y1) = self.sent_patch(), self.box
        return patch.bits_hw()[y0 - patch.y0 : y1 - patch.y0, x0 - patch.x0 : x1 - patch.x0]

    def sent_patch(self) -> Patch:
        if self.patch is None:
            raise WireError(f"the mask of object {self.id} was not sent: encoding none, expected bits or coco_rle")
        return self.patch


class Picture(Message, frozen=True, kw_only=True):
    """What `masks/` and `frames/` say of the picture they are about."""

    camera: CameraName
    epoch: Count
    seq: Count
    frame_id: Text
    width: Pixels
    height: Pixels
    pts_ns: Time | None
    clock_source: ClockSource
    clock_id: Text
    arrival_ns: Time
    decoded_ns: Time
    inferred_ns: Time
    published_ns: Time
    arrival_utc_ns: Time
    decoded_utc_ns: Time
    inferred_utc_ns: Time
    published_utc_ns: Time

    def age_ms(self) -> float:
        """Milliseconds from the picture's arrival until now; from another machine as exact as the two clocks agree."""
        if self.clock_id and self.clock_id == local_clock_id():
            return (time.monotonic_ns() - self.arrival_ns) / 1e6
        return (time.time_ns() - self.arrival_utc_ns) / 1e6


class MasksMessage(Picture, frozen=True, kw_only=True):
    """All objects of one picture (`masks/<camera>`)."""

    num_dropped: Count
    model: Text
    backend: Text
    objects: Annotated[tuple[ObjectMask, ...], Meta(max_length=MAX_OBJECTS)]
    requests: Annotated[tuple[Text, ...], Meta(max_length=MAX_OBJECTS)] = ()

    def __post_init__(self) -> None:
        ids = [item.id for item in self.objects]
        if len(set(ids)) != len(ids):
            raise WireError(f"object ids {ids}, expected each one once")
        for item in self.objects:
            self._check_inside(item)

    def _check_inside(self, item: ObjectMask) -> None:
        x0, y0, x1, y1 = item.box
        if x1 > self.width or y1 > self.height:
            raise WireError(f"object {item.id} has box {item.box}, expected it inside {self.width} x {self.height}")
        patch = item.patch
        if patch is None:
            return
        right, bottom = patch.x0 + patch.width, patch.y0 + patch.height
        if right > self.width or bottom > self.height:
            raise WireError(
                f"object {item.id} has a mask to {right, bottom}, expected at most {self.width, self.height}"
            )
        if x1 > x0 and not (patch.x0 <= x0 and patch.y0 <= y0 and x1 <= right and y1 <= bottom):
            raise WireError(f"object {item.id} has box {item.box}, expected its mask to cover it")
        if patch.encoding == "coco_rle" and (right, bottom) != (self.width, self.height):
            raise WireError(f"object {item.id} has a coco_rle of {right, bottom}, expected {self.width, self.height}")

    @property
    def topic(self) -> str:
        return f"masks/{self.camera}"

    def find(self, object_id: int) -> ObjectMask:
        for item in self.objects:
            if item.id == object_id:
                return item
        ids = [item.id for item in self.objects]
        raise KeyError(f"object {object_id} is not on {self.camera}, seq {self.seq}; expected one of {ids}")

    def mask(self, object_id: int) -> Bools:
        """The object's mask as booleans of the picture's shape (height, width); decoded anew at each call."""
        mask_hw = np.zeros((self.height, self.width), np.bool_)
        patch = self.find(object_id).sent_patch()
        mask_hw[patch.y0 : patch.y0 + patch.height, patch.x0 : patch.x0 + patch.width] = patch.bits_hw()
        return mask_hw

    def masks(self) -> Masks:
        """All objects as the value that `stream.overlay` draws; masks that were not sent are empty there."""
        items = self.objects
        packed_nhb = np.zeros((len(items), self.height, (self.width + 7) // 8), np.uint8)
        for row_hb, patch in zip(packed_nhb, (item.patch for item in items), strict=True):
            if patch is not None:
                first, num_bytes = patch.x0 // 8, (patch.width + 7) // 8
                row_hb[patch.y0 : patch.y0 + patch.height, first : first + num_bytes] = patch.rows_hb()
        return Masks(
            height=self.height, width=self.width, packed_nhb=packed_nhb,
            object_ids=tuple(item.id for item in items), states=tuple(item.state for item in items),
            scores=np.array([item.score for item in items], np.float32),
            ious=np.array([item.predicted_iou for item in items], np.float32),
            boxes_n4=np.array([item.box for item in items], np.int32).reshape(-1, 4),
            areas=np.array([item.area for item in items], np.int64),
            centroids_n2=np.array([item.centroid or (np.nan, np.nan) for item in items], np.float32).reshape(-1, 2),
            unseen_ns=tuple(item.unseen_ns for item in items),
        )  # fmt: skip


class FrameMessage(Picture, frozen=True, kw_only=True):
    """The very picture that was tracked, as JPEG (`frames/<camera>`)."""

    encoding: Literal["jpeg"]
    data: bytes

    @property
    def topic(self) -> str:
        return f"frames/{self.camera}"


class StateMessage(Message, frozen=True, kw_only=True):
    """A camera's condition, and why (`state/<camera>`)."""

    camera: CameraName
    epoch: Count
    condition: CameraCondition
    reason: Text
    utc_ns: Time
    problem: Text = ""
    backend: Text = ""

    @property
    def topic(self) -> str:
        return f"state/{self.camera}"


class CameraInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A camera as `info` lists it; width and height are 0 until its first masks."""

    name: CameraName
    frame_id: Text = ""
    width: Pixels = 0
    height: Pixels = 0


class Info(Message, frozen=True, kw_only=True):
    """What the sender is and which cameras it has (`info`)."""

    software: Text = ""
    model: Text = ""
    backend: Text = ""
    mask_encoding: MaskEncoding = "bits"
    frames_fps: float = 0.0
    control: Text | None = None
    clock_id: Text = ""
    cameras: Annotated[tuple[CameraInfo, ...], Meta(max_length=1024)] = ()

    @property
    def topic(self) -> str:
        return "info"
