"""Pacer: plays something that has no time of its own, a file, at the rate its time stamps say.

Owns: where the source's clock stands against ours. Used by one camera's thread (pace=live).
Never: hurries to catch up, or drops a picture: what comes late comes at once, and the ring keeps the newest.
"""

from __future__ import annotations

import time

from stream.capture.watch import Watch

MAX_JUMP_NS = 5 * 10**9


class Pacer:
    """Written by the camera's thread."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._offset_ns: int | None = None
        self._last_ns = 0

    def wait(self, time_ns: int) -> bool:
        """Wait until `time_ns` of the source's clock is due; False when the thread is told to stop.

        A jump of the source's clock, back or far ahead, starts its count anew instead of stalling.
        """
        jumped = not 0 <= time_ns - self._last_ns <= MAX_JUMP_NS
        self._last_ns = time_ns
        if self._offset_ns is None or jumped:
            self._offset_ns = time.monotonic_ns() - time_ns
        delay_ns = time_ns + self._offset_ns - time.monotonic_ns()
        return not self._watch.wait(max(delay_ns, 0) / 1e9)
