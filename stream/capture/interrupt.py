"""Makes PyAV's blocking calls end when a camera's thread is told to stop, or its watch's limit is over.

Owns: the clock that PyAV's timeouts read. Any thread; each binds its own watch.
Never: shortens a timeout of a thread that bound none.

FFmpeg asks PyAV every 100 ms or so whether a blocking network call may go on, and PyAV answers by `time.monotonic`,
against the timeouts given to `av.open`. PyAV has no call to interrupt another thread's read, and reading in short
slices is no way out: a read cut off inside an RTP packet loses the place in the stream. Nor do its timeouts know what
matters, the time since the last picture: any packet, of sound for instance, starts them anew. So PyAV's module gets a
clock that, in a thread whose watch is set or late, leaps ahead at every reading: its next timeout is then over at once.
Should a later PyAV read another clock, stop and stall take as long as the timeout instead, and
tests/test_capture_rtsp.py fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import av.container.core

from stream.capture.watch import Watch

LEAP_S = 1e4  # longer than any timeout


class _LeapingClock:
    """Stands where PyAV's module holds the module `time`. Written by each thread for itself (thread-local).

    What a thread has leapt stays: PyAV takes a clock that goes back for an error, and raises it at some later call.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def bind(self, watch: Watch | None) -> None:
        self._local.watch, self._local.num_leaps = watch, 0

    def monotonic(self) -> float:
        watch: Watch | None = getattr(self._local, "watch", None)
        ahead_s: float = getattr(self._local, "ahead_s", 0.0)
        if watch is not None and (watch.is_set() or watch.is_late()):
            self._local.num_leaps += 1
            ahead_s += LEAP_S
            self._local.ahead_s = ahead_s
        return time.monotonic() + ahead_s

    def has_leapt(self) -> bool:
        """Whether it did for this thread since that was last asked."""
        num_leaps, self._local.num_leaps = self._local.num_leaps, 0
        return bool(num_leaps)


_CLOCK = _LeapingClock()
av.container.core.time = _CLOCK  # type: ignore[attr-defined]


def was_cut() -> bool:
    """Within `interruptible`: whether a call was ended since this was last asked."""
    return _CLOCK.has_leapt()


@contextmanager
def interruptible(watch: Watch) -> Iterator[None]:
    """Within, this thread's PyAV calls that have a timeout end soon after `watch` is set or late, as if timed out."""
    _CLOCK.bind(watch)
    try:
        yield
    finally:
        _CLOCK.bind(None)
