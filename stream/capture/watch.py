"""Watch: how a capture thread is told to stop, and how others see that it hangs.

Owns: when the thread will be heard again at the latest, by its own word, and whether it may still speak for its camera.
Any thread reads; see the class.
Never: interrupts anything itself: PyAV's calls look at it (`stream.capture.interrupt`), the feeder acts on it.

All times are monotonic: a step of the system's clock stalls nothing and wakes nobody.
"""

from __future__ import annotations

import threading
import time

DEFAULT_LIMIT_S = 10.0
NUM_LIMITS = 3  # a thread that is silent for so many of its limits hangs


class Watch(threading.Event):
    """Set = stop. Written by the capture thread: `_heard`; by any thread: the event, `is_abandoned` under `tenure`.

    `tenure` is held, for microseconds, by the capture thread while it numbers a picture or reports a state, and by
    `abandon`: so that nothing of a thread that was given up comes after.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tenure = threading.Lock()
        self.is_abandoned = False
        self._heard = (time.monotonic_ns(), DEFAULT_LIMIT_S)

    def expect(self, limit_s: float = DEFAULT_LIMIT_S, since_ns: int | None = None) -> None:
        """The thread is here, and unless something hangs will be heard again within `limit_s` from now or then."""
        self._heard = time.monotonic_ns() if since_ns is None else since_ns, limit_s

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be told to stop; that is no silence."""
        self.expect(DEFAULT_LIMIT_S + (timeout or 0.0))
        is_set = super().wait(timeout)
        self.expect()
        return is_set

    def abandon(self) -> None:
        """Stop, and never speak for the camera again."""
        self.set()
        with self.tenure:
            self.is_abandoned = True

    @property
    def limit_s(self) -> float:
        """The limit that runs now."""
        return self._heard[1]

    def is_late(self) -> bool:
        """Whether the limit is over."""
        heard_ns, limit_s = self._heard
        return time.monotonic_ns() - heard_ns > limit_s * 1e9

    def is_silent(self, now_ns: int, since_ns: int = 0) -> bool:
        """Whether three limits are over, counted from `since_ns` at the earliest."""
        heard_ns, limit_s = self._heard
        return now_ns - max(heard_ns, since_ns) > NUM_LIMITS * limit_s * 1e9
