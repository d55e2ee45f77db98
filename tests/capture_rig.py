"""A capture thread with a reader at the other end of its ring, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.synthetic import read_counter
from stream.capture import BackOff, CaptureThread
from stream.config import CameraConfig
from stream.frame import CameraCondition, CameraState, Stamp
from stream.ring import FrameRing


@dataclass(frozen=True, slots=True)
class Seen:
    """What came out of the ring; `number` is the burnt-in counter."""

    stamp: Stamp
    number: int | None
    size: tuple[int, int]
    taken_ns: int
    looked: Any = None  # what the rig's `look` made of the picture


@dataclass
class States:
    """A state sink that remembers."""

    states: list[CameraState] = field(default_factory=list)

    def put_state(self, state: CameraState) -> None:
        self.states.append(state)

    @property
    def conditions(self) -> list[CameraCondition]:
        return [state.condition for state in self.states]

    @property
    def last(self) -> CameraState:
        return self.states[-1]


class Rig:
    """Everything of one camera."""

    def __init__(self, source: str, *, backoff: BackOff | None = None, **settings: Any) -> None:
        self.config = CameraConfig("cam", source, **settings)
        self.ring = FrameRing("cam")
        self.states = States()
        self.look: Callable[[NDArray[np.uint8]], Any] = lambda image_hwc: None
        self.thread = CaptureThread(self.config, ring=self.ring, states=self.states, backoff=backoff)

    def read(self, num: int = 1_000_000, *, seconds: float = 20.0, pause_s: float = 0.0) -> list[Seen]:
        """Pictures until there are `num`, the source has ended, or the time is over."""
        seen: list[Seen] = []
        deadline = time.monotonic() + seconds
        while len(seen) < num and time.monotonic() < deadline:
            if self.thread.finished.is_set() and not self.ring.has_unread:
                break
            self.ring.doorbell.wait(0.02)
            self.ring.doorbell.clear()
            lease = self.ring.take()
            if lease is None:
                continue
            image_hwc = lease.frame.image_hwc
            looked = self.look(image_hwc)
            size = (lease.frame.width, lease.frame.height)
            seen.append(Seen(lease.frame.stamp, read_counter(image_hwc), size, time.monotonic_ns(), looked))
            lease.release()
            time.sleep(pause_s)
        return seen

    def wait(self, condition: CameraCondition, *, seconds: float = 10.0) -> CameraState:
        """The newest state once it has that condition; pictures are thrown away meanwhile."""
        self.until(lambda: bool(self.states.states) and self.states.last.condition is condition, seconds=seconds)
        return self.states.last

    def until(self, is_so: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Throw pictures away until it is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"not so within {seconds} s: {self.states.states}"
            self.read(1, seconds=0.05)

    def stop(self) -> float:
        """Stop and join; how many seconds that took."""
        start = time.monotonic()
        self.thread.stop()
        self.thread.join(10.0)
        assert not self.thread.is_alive()
        return time.monotonic() - start


@contextmanager
def capture(source: str, *, backoff: BackOff | None = None, **settings: Any) -> Iterator[Rig]:
    """A running camera, stopped at the end."""
    rig = Rig(source, backoff=backoff, **settings)
    rig.thread.start()
    try:
        yield rig
    finally:
        rig.stop()
