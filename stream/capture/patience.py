"""Patience: how long a stream may be silent before it counts as stalled.

Owns: the measured frame period of one camera. Used by that camera's thread, over all its connections.
Never: trusts the rate that a stream announces.

The deadline is `stall_s` or ten measured frame periods, whichever is longer, and 60 s at most. A camera so slow that
its connections end before a period could be measured is given twice the time on each next one.
"""

from __future__ import annotations

import collections

NUM_PERIODS = 10
NUM_MEASURED = 4  # intervals that make a measurement
MAX_DEADLINE_S = 60.0
MAX_DOUBLINGS = 5


class Patience:
    """Written by the camera's thread."""

    def __init__(self, stall_s: float) -> None:
        self.floor_s = stall_s
        self._num_doublings = 0
        self._times_ns: collections.deque[int] = collections.deque(maxlen=4 * NUM_MEASURED)

    def begin(self, floor_s: float) -> None:
        """A new connection, silent for at least `floor_s` before it is stalled."""
        if self.period_s is not None:
            self._num_doublings = 0
        elif self._times_ns:
            self._num_doublings = min(self._num_doublings + 1, MAX_DOUBLINGS)
        self.floor_s = floor_s
        self._times_ns.clear()

    def note(self, now_ns: int) -> None:
        """A picture's packet is here."""
        self._times_ns.append(now_ns)

    @property
    def period_s(self) -> float | None:
        """Count over span of the last pictures; None = not measured on this connection."""
        num = len(self._times_ns) - 1
        return (self._times_ns[-1] - self._times_ns[0]) / num / 1e9 if num >= NUM_MEASURED else None

    @property
    def deadline_s(self) -> float:
        period_s = self.period_s
        wanted_s = self.floor_s * 2**self._num_doublings if period_s is None else NUM_PERIODS * period_s
        return min(max(self.floor_s, wanted_s), max(MAX_DEADLINE_S, self.floor_s))
