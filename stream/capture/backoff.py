"""BackOff: how long a camera waits before it tries again.

Owns: the ladder 1 s x 5, 5 s x 5, 10 s x 10, then 60 s, each with jitter, so that thirty cameras behind one switch do
not all come back in the same instant. What somebody must mend first, such as a wrong password, waits 60 s at once. One
per camera, used by that camera's thread.
Never: waits itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

LADDER: tuple[tuple[int, float], ...] = ((5, 1.0), (5, 5.0), (10, 10.0))
LAST_S = 60.0
JITTER = 0.2


class BackOff:
    """Written by the camera's thread: `num_tries` since the last success."""

    def __init__(self, ladder: Sequence[tuple[int, float]] = LADDER, last_s: float = LAST_S) -> None:
        self.num_tries = 0
        self._delays_s = [delay_s for times, delay_s in ladder for _ in range(times)]
        self._last_s = last_s

    def next_s(self, *, is_slow: bool = False) -> float:
        """The next delay, up to a fifth shorter or longer; the last step at once where soon is of no use."""
        if is_slow:
            return self._last_s * random.uniform(1 - JITTER, 1 + JITTER)
        delay_s = self._delays_s[self.num_tries] if self.num_tries < len(self._delays_s) else self._last_s
        self.num_tries += 1
        return delay_s * random.uniform(1 - JITTER, 1 + JITTER)

    def reset(self) -> None:
        """A picture came: the next failure starts at the bottom of the ladder."""
        self.num_tries = 0
