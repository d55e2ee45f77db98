"""`Meter`: how often something happens: how many times in all, and how often a second of late.

Owns: the times of the last events. Written by one thread; any thread may read. Never: grows, or looks at a clock.
"""

from __future__ import annotations

import collections

NUM_KEPT = 256


class Meter:
    """`count` events in all; `rate` over those of the last `window_s`, at most `NUM_KEPT`."""

    __slots__ = ("_times_ns", "_window_ns", "count")

    def __init__(self, window_s: float = 5.0) -> None:
        self.count = 0
        self._window_ns = int(window_s * 1e9)
        self._times_ns: collections.deque[int] = collections.deque(maxlen=NUM_KEPT)

    def put(self, now_ns: int) -> None:
        """One event, at a monotonic time."""
        self.count += 1
        self._times_ns.append(now_ns)
        while now_ns - self._times_ns[0] > self._window_ns:
            self._times_ns.popleft()

    def rate(self, now_ns: int) -> float:
        """Events a second; it falls to 0 when they cease."""
        times_ns = tuple(self._times_ns)
        if len(times_ns) < 2 or now_ns - times_ns[-1] > self._window_ns:
            return 0.0
        period_ns = (times_ns[-1] - times_ns[0]) / (len(times_ns) - 1)
        silence_ns = now_ns - times_ns[-1]
        return 1e9 / max(period_ns, silence_ns, 1.0)
