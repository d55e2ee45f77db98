"""`Bell`: a pipe that is readable while something waits, so that a poller wakes up.

Owns: the pipe. Thread: whichever holds its owner's lock; it has none of its own. Never: holds more than one byte, or
waits.
"""

from __future__ import annotations

import os


class Bell:
    """Before `open` and after `close`, ringing does nothing. Written under its owner's lock."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None  # read end, write end
        self._rung = False

    @property
    def is_open(self) -> bool:
        return self._pipe is not None

    def open(self) -> int:
        """The file for a poller; it is readable at once."""
        self._pipe = os.pipe()
        self.ring()
        return self._pipe[0]

    def ring(self) -> None:
        if self._pipe and not self._rung:
            os.write(self._pipe[1], b"!")
            self._rung = True

    def quiet(self) -> None:
        """The reader is here."""
        if self._pipe and self._rung:
            os.read(self._pipe[0], 1)
            self._rung = False

    def close(self) -> None:
        for fileno in self._pipe or ():
            os.close(fileno)
        self._pipe = None
