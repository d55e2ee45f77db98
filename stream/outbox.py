"""`Outbox`: answers on their way from the threads that obey back to the control thread, which alone may send them.

Owns: a short queue, and a pipe that wakes the reader. Thread: any thread puts; only `control` opens, takes and closes.
Never: makes a putting thread wait; grows beyond its capacity: what comes then, or after the end, is dropped and counted
in `num_lost`. The control thread hands out no more tickets than there is room, so only a second answer can be lost.
"""

from __future__ import annotations

import collections
import os
import threading

from stream.command import Reply

CAPACITY = 256


class Outbox:
    """Every field is written under `_lock`, held for microseconds only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: collections.deque[tuple[int, Reply]] = collections.deque()
        self._pipe: tuple[int, int] | None = None  # read end, write end
        self._rung = False
        self.num_lost = 0

    def open(self) -> int:
        """From now on the returned file is readable while something waits; for a poller."""
        with self._lock:
            self._pipe = os.pipe()
            self._ring()
            return self._pipe[0]

    def put(self, ticket: int, reply: Reply) -> None:
        """The answer to the request with this number; any thread."""
        with self._lock:
            if self._pipe is None or len(self._answers) >= CAPACITY:
                self.num_lost += 1
                return
            self._answers.append((ticket, reply))
            self._ring()

    def wake(self) -> None:
        """Let the reader look around, also without an answer."""
        with self._lock:
            self._ring()

    def _ring(self) -> None:
        if self._pipe and not self._rung:
            os.write(self._pipe[1], b"!")
            self._rung = True

    def take(self) -> tuple[tuple[int, Reply], ...]:
        """All answers that wait, oldest first."""
        with self._lock:
            if self._pipe and self._rung:
                os.read(self._pipe[0], 1)
                self._rung = False
            answers = tuple(self._answers)
            self._answers.clear()
        return answers

    def close(self) -> None:
        """From now on every answer is dropped."""
        with self._lock:
            for fileno in self._pipe or ():
                os.close(fileno)
            self._pipe = None
            self._answers.clear()
