"""Makes PyAV's blocking calls end when a camera's thread is told to stop.

Owns: the clock that PyAV's timeouts read. Any thread; each binds its own stop event.
Never: shortens a timeout of a thread that bound none.

FFmpeg asks PyAV every 100 ms or so whether a blocking network call may go on, and PyAV answers by `time.monotonic`,
against the timeouts given to `av.open`. PyAV has no call to interrupt another thread's read, and reading in short
slices is no way out: a read cut off inside an RTP packet loses the place in the stream. So PyAV's module gets a clock
that, in a thread whose stop event is set, leaps ahead at every reading: its next timeout is then over at once. Should a
later PyAV read another clock, a stop takes as long as the timeout instead, and tests/test_capture_rtsp.py fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import av.container.core

LEAP_S = 1e6


class _LeapingClock:
    """Stands where PyAV's module holds the module `time`. Written by each thread for itself (thread-local)."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def bind(self, stop: threading.Event | None) -> None:
        self._local.stop, self._local.num_leaps = stop, 0

    def monotonic(self) -> float:
        stop = getattr(self._local, "stop", None)
        if stop is None or not stop.is_set():
            return time.monotonic()
        self._local.num_leaps += 1
        return time.monotonic() + LEAP_S * int(self._local.num_leaps)


_CLOCK = _LeapingClock()
av.container.core.time = _CLOCK  # type: ignore[attr-defined]


@contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Within, this thread's PyAV calls that have a timeout end soon after `stop` is set, as if they had timed out."""
    _CLOCK.bind(stop)
    try:
        yield
    finally:
        _CLOCK.bind(None)
