"""What a source gives: `Picture`, `Loss`, and the error that says in one line why it gives nothing.

Owns: the protocol between the capture thread and the kinds of sources. The values are frozen; made and used in one
camera's thread.
Never: opens anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.capture.watch import Watch
from stream.frame import ClockSource


class SourceError(Exception):
    """Why a source gives no pictures: one line that names the source (never its password) and what was expected."""


class SourceRefused(SourceError):
    """Somebody must mend it: a wrong password, no such stream, a certificate. Told as an error, tried again slowly."""


class SourceFrozen(SourceError):
    """The source sends the same picture again and again, and is opened again once."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a picture reached this machine, by both clocks; `now` is the one place that reads them."""

    utc_ns: int
    ns: int
    clock_source: ClockSource = ClockSource.ARRIVAL

    @classmethod
    def now(cls) -> Arrival:
        return cls(time.time_ns(), time.monotonic_ns())

    @classmethod
    def ago(cls, age_ns: int, clock_source: ClockSource) -> Arrival:
        """An arrival that lies `age_ns` back by both clocks."""
        return cls(time.time_ns() - age_ns, time.monotonic_ns() - age_ns, clock_source)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, not yet in memory of ours: `copy_into` writes it as BGR into a (height, width, 3) array.

    So that pixels are converted straight into a ring slot, and not at all for a picture that is left out.
    """

    height: int
    width: int
    copy_into: Callable[[NDArray[np.uint8]], None]
    arrival: Arrival = field(default_factory=Arrival.now)
    pts_ns: int | None = None
    frame_id: str = ""  # "" = the camera's own
    is_key: bool = True  # whether it was encoded without reference to others

    @classmethod
    def of_array(
        cls, image_hwc: NDArray[np.uint8], *, arrival: Arrival, pts_ns: int | None = None, frame_id: str = ""
    ) -> Picture:
        def copy_into(slot_hwc: NDArray[np.uint8]) -> None:
            np.copyto(slot_hwc, image_hwc)

        height, width = image_hwc.shape[:2]
        return cls(height, width, copy_into, arrival=arrival, pts_ns=pts_ns, frame_id=frame_id)


@dataclass(frozen=True, slots=True)
class Loss:
    """Pictures that never came to be.

    | reason | what happened |
    |---|---|
    | undecodable | the decoder refused a packet, or a picture file cannot be read |
    | corrupt | a picture that is damaged, or follows on a damaged or lost one (`stream.capture.gate`) |
    | before_key | a packet before the first key frame of a connection |
    | refused | a message on a push socket breaks its format |
    | sender_gap | the sender's own numbers jumped: it lost pictures before they came here |
    """

    reason: str
    num: int = 1


Items = Generator[Picture | Loss, None, None]


class Source(Protocol):
    """One kind of source. Constructed and checked in any thread; `pictures` opens, reads and closes in the caller's."""

    @property
    def retries(self) -> bool:
        """Whether a source that ended or failed is opened again (a stream), or has ended for good (a file)."""
        ...

    @property
    def can_freeze(self) -> bool:
        """Whether the same picture for long means that a camera hangs; a generated or pushed one may stand still."""
        ...

    @property
    def codec(self) -> str:
        """What the pictures are encoded in, such as "h264 (High)"; "" = not known, or nothing."""
        ...

    @property
    def decoder(self) -> str:
        """Who decodes them: "ffmpeg" or "nvdec"; "" = not known, or nothing is encoded."""
        ...

    def check(self) -> None:
        """Raise `SourceError` where it can be known beforehand that no picture will ever come."""
        ...

    def pictures(self, watch: Watch) -> Items:
        """Pictures in order until the source ends; returns soon after `watch` is set; raises `SourceError`.

        A call that may take longer than the watch's limit is told to it before (`expect`).
        """
        ...
