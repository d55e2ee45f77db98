"""Numbering: a camera's numbers, `epoch` and `seq`, which outlive the capture threads that give them to pictures.

Owns: what comes next, and when the last picture came. Written by the camera's current capture thread alone.
Never: goes back: `seq` counts decoded pictures and never restarts while the daemon lives, `epoch` never falls.

`epoch` rises when what was tracked is to be forgotten: a file starts over, or nothing came for longer than the
camera's `memory_gap_s`.
"""

from __future__ import annotations


class Numbering:
    """`seq` is the number of the next picture; `last_ns` (monotonic) is when the last one was done with."""

    __slots__ = ("epoch", "last_ns", "seq")

    def __init__(self, epoch: int = 0, seq: int = 0) -> None:
        self.epoch = epoch
        self.seq = seq
        self.last_ns: int | None = None

    def start_over(self) -> None:
        """The source begins again at its first picture."""
        self.epoch += 1
        self.last_ns = None

    def take(self, now_ns: int, max_gap_s: float) -> tuple[int, int]:
        """(epoch, seq) of the picture that is here now, in a new epoch if the gap before it is longer than that."""
        if self.last_ns is not None and now_ns - self.last_ns > max_gap_s * 1e9:
            self.epoch += 1
        self.last_ns = now_ns
        seq, self.seq = self.seq, self.seq + 1
        return self.epoch, seq
