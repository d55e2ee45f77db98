"""`Outbox`: answers on their way from the threads that obey back to the control thread, which alone may send them.

Owns: a short queue, and a pipe that wakes the reader. Thread: any thread puts; only `control` opens, takes and closes.
Never: makes a putting thread wait; grows beyond its capacity: what comes then, or after the end, is dropped and counted
in `num_lost`. The control thread hands out no more tickets than there is room, so only a second answer can be lost.
"""

from __future__ import annotations

import collections
import threading

from stream.bell import Bell
from stream.command import Reply

CAPACITY = 256


class Outbox:
    """Every field is written under `_lock`, held for microseconds only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: collections.deque[tuple[int, Reply]] = collections.deque()
        self._bell = Bell()
        self.num_lost = 0

    def open(self) -> int:
        """From now on the returned file is readable while something waits; for a poller."""
        with self._lock:
            return self._bell.open()

    def put(self, ticket: int, reply: Reply) -> None:
        """The answer to the request with this number; any thread."""
        with self._lock:
            if not self._bell.is_open or len(self._answers) >= CAPACITY:
                self.num_lost += 1
                return
            self._answers.append((ticket, reply))
            self._bell.ring()

    def wake(self) -> None:
        """Let the reader look around, also without an answer."""
        with self._lock:
            self._bell.ring()

    def take(self) -> tuple[tuple[int, Reply], ...]:
        """All answers that wait, oldest first."""
        with self._lock:
            self._bell.quiet()
            answers = tuple(self._answers)
            self._answers.clear()
        return answers

    def close(self) -> None:
        """From now on every answer is dropped."""
        with self._lock:
            self._bell.close()
            self._answers.clear()
