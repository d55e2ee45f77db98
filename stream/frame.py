"""The values that travel through the daemon: `Frame` (in), `Masks` (out), and what is said about a camera.

Owns: the vocabulary shared by capture, ring, tracker, worker, publisher and clients. Runs in every thread; the values
are frozen.
Never: imports torch, opens anything, or holds a lock.

All `*_ns` times are integers in nanoseconds. `*_utc_ns` is Unix time (CLOCK_REALTIME); every other `*_ns` is
CLOCK_MONOTONIC of the daemon's machine and may be compared only with other monotonic times of that machine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ClockSource(enum.StrEnum):
    """Where a frame's acquisition time comes from."""

    ARRIVAL = "arrival"  # our clock when the packet was demultiplexed
    DRIVER = "driver"  # the webcam driver's stamp
    SENDER = "sender"  # stamped by the program that pushed the frame, or by the camera (RTCP)


class ObjectState(enum.StrEnum):
    """What the tracker knows of an object on a frame."""

    TRACKED = "tracked"
    REACQUIRED = "reacquired"  # tracked again, for a second after an absence
    OCCLUDED = "occluded"  # object score <= 0
    LOST = "lost"  # occluded longer than two seconds, still searched for


class CameraCondition(enum.StrEnum):
    """What the daemon knows of a camera."""

    ONLINE = "online"
    OFFLINE = "offline"
    FROZEN = "frozen"  # frames arrive, all of them the same
    PAUSED = "paused"  # closed by a command
    UNPROMPTED = "unprompted"  # frames arrive, but there is no object to track
    LOST = "lost"  # frames arrive, but every object is lost


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identity and times of one picture; it travels unchanged from capture to the subscriber.

    `(epoch, seq)` orders the pictures of a camera: `seq` counts decoded pictures from 0 and never restarts while the
    daemon lives, `epoch` rises whenever the tracker's memory of the camera was dropped.
    """

    camera: str
    epoch: int
    seq: int
    frame_id: str  # name of the camera's optical frame, for robots
    pts_ns: int | None  # presentation time in the stream, if it has one
    arrival_utc_ns: int
    arrival_ns: int
    decoded_ns: int
    clock_source: ClockSource = ClockSource.ARRIVAL


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: `image_hwc` is uint8 BGR of shape (height, width, 3), valid only while its ring slot is leased."""

    stamp: Stamp
    image_hwc: NDArray[np.uint8]

    @property
    def height(self) -> int:
        return int(self.image_hwc.shape[0])

    @property
    def width(self) -> int:
        return int(self.image_hwc.shape[1])


@dataclass(frozen=True, slots=True)
class Masks:
    """All objects of one picture. Arrays share the first axis N with `object_ids`.

    Bits are packed along the width, most significant bit first, rows padded to whole bytes:
    `packed_nhb` has shape (N, height, ceil(width / 8)).
    """

    height: int
    width: int
    object_ids: tuple[int, ...]
    states: tuple[ObjectState, ...]
    scores: NDArray[np.float32]  # (N,) object score, a logit; above 0 = visible
    ious: NDArray[np.float32]  # (N,) the model's own estimate of the mask's IoU, 0 to 1
    boxes_n4: NDArray[np.int32]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros where the mask is empty
    areas: NDArray[np.int64]  # (N,) pixels
    centroids_n2: NDArray[np.float32]  # x, y in pixels; NaN where the mask is empty
    packed_nhb: NDArray[np.uint8]
    unseen_ns: tuple[int, ...] = ()  # for how long each object is hidden, 0 = it is seen; empty = not known

    @property
    def masks_nhw(self) -> NDArray[np.bool_]:
        """The masks as booleans of shape (N, height, width); unpacked anew at each access."""
        bits = np.unpackbits(self.packed_nhb, axis=2, count=self.width)
        return bits.astype(np.bool_)

    @classmethod
    def empty(cls, height: int, width: int) -> Masks:
        """No objects."""
        return cls(
            height=height, width=width, object_ids=(), states=(),
            scores=np.zeros(0, np.float32), ious=np.zeros(0, np.float32),
            boxes_n4=np.zeros((0, 4), np.int32), areas=np.zeros(0, np.int64),
            centroids_n2=np.zeros((0, 2), np.float32),
            packed_nhb=np.zeros((0, height, (width + 7) // 8), np.uint8),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CameraState:
    """A camera's condition, and why; published on `state/<camera>` when it changes.

    `problem` is what the operator must mend in the daemon as a whole, such as a refused configuration; "" = nothing.
    `backend` is how the model is run now; "" = not loaded yet.
    """

    camera: str
    epoch: int
    condition: CameraCondition
    reason: str
    utc_ns: int
    problem: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds that one picture spent in each stage of its way through the daemon."""

    decode_s: float  # arrival to decoded
    wait_s: float  # decoded to the beginning of its turn
    infer_s: float  # to the end of inference
    publish_s: float  # to publication
    total_s: float  # arrival to publication


class TimingSink(Protocol):
    """Where the publisher reports them; the metrics are one."""

    def observe(self, camera: str, times: StageTimes) -> None:
        """Never blocks."""
        ...


class StateSink(Protocol):
    """Where capture threads and the worker report a camera's condition; the publisher is one."""

    def put_state(self, state: CameraState) -> None:
        """Never blocks."""
        ...


class Delivery(Protocol):
    """One processed frame on its way from the worker to the publisher."""

    @property
    def stamp(self) -> Stamp: ...

    @property
    def labels(self) -> dict[int, str]:
        """Object id to label."""
        ...

    @property
    def requests(self) -> tuple[str, ...]:
        """Ids of the commands whose effect first shows on this picture."""
        ...

    @property
    def started_ns(self) -> int:
        """Monotonic; when the turn began that processed this picture."""
        ...

    @property
    def picture_hwc(self) -> NDArray[np.uint8] | None:
        """The very picture that was tracked, while its slot is leased; None unless somebody watches."""
        ...

    def resolve(self) -> tuple[Masks, int]:
        """Wait for the device's copy, some ms at most; the masks, and the monotonic ns at which inference ended."""
        ...

    def release(self) -> None:
        """Give the ring slot and the result block back.

        Called exactly once, also for a delivery that was replaced unread.
        """
        ...
