"""`Inbox`: commands on their way from the control thread to the thread that obeys them.

Owns: a short queue. Thread: control puts, one other thread (the worker's, or the main one) takes and answers.
Never: waits; grows beyond its capacity: a full inbox refuses, and the client is told "busy". What nobody took in time
the control thread takes back, so that nothing is obeyed long after its sender gave up.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from stream.command import Reply, Request

CAPACITY = 64
R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class Command(Generic[R]):
    """A valid request and who wants the answer; `answer` is called exactly once, from any thread, and never blocks."""

    request: R
    answer: Callable[[Reply], None]


class Inbox(Generic[R]):
    """Holds at most `CAPACITY` commands; refuses more (`put` is False). `ring` wakes the thread that takes."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[int, Command[R]]] = collections.deque()  # since when, what

    def put(self, command: Command[R]) -> bool:
        """Called by the control thread alone; False when full."""
        with self._lock:
            if len(self._waiting) >= CAPACITY:
                return False
            self._waiting.append((time.monotonic_ns(), command))
        self._ring()
        return True

    def take(self) -> Command[R] | None:
        """The oldest waiting command; called by one thread alone, which then answers it."""
        with self._lock:
            return self._waiting.popleft()[1] if self._waiting else None

    def take_late(self, limit_ns: int) -> tuple[Command[R], ...]:
        """Those that nobody took for so long; called by the control thread alone, which then answers them."""
        before_ns, late = time.monotonic_ns() - limit_ns, []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= before_ns:
                late.append(self._waiting.popleft()[1])
        return tuple(late)

    def __len__(self) -> int:
        return len(self._waiting)
