"""`Inbox`: commands on their way from the control thread to the thread that obeys them.

Owns: a short queue. Thread: control puts, one other thread (the worker's, or the main one) takes and answers.
Never: waits; grows beyond its capacity: a full inbox refuses, and the client is told "busy".
"""

from __future__ import annotations

import collections
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
        self._waiting: collections.deque[Command[R]] = collections.deque()

    def put(self, command: Command[R]) -> bool:
        """Called by the control thread alone; False when full."""
        if len(self._waiting) >= CAPACITY:
            return False
        self._waiting.append(command)
        self._ring()
        return True

    def take(self) -> Command[R] | None:
        """The oldest waiting command; called by one thread alone."""
        return self._waiting.popleft() if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)
