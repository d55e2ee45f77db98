"""What a subscriber was handed so far: what is new, and how much was lost.

Owns: `Arrivals`, the place where each topic stands. Thread: the one that uses the subscriber. Never: keeps a message.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream.message import MasksMessage, Message, Picture


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of one camera's masks since this subscriber joined, over all runs of the daemon."""

    num_received: int = 0
    num_lost: int = 0  # published, but skipped by newest_only or lost on the way
    num_dropped: int = 0  # decoded, but not published, as far as the received messages tell


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a topic stands; `order` rises within a run."""

    run: int
    serial: int
    order: tuple[int, ...]


class Arrivals:
    """Written by the thread that uses the subscriber."""

    def __init__(self) -> None:
        self._last: dict[str, Mark] = {}  # by topic: what was handed out last
        self._counts: dict[str, Counts] = {}

    def is_new(self, message: Message) -> bool:
        """Whether it comes after what was handed out last on its topic."""
        last = self._last.get(message.topic)
        return last is None or last.run != message.run or mark(message).order > last.order

    def note(self, message: Message) -> None:
        """It is handed out."""
        last = self._last.get(message.topic)
        self._last[message.topic] = mark(message)
        if isinstance(message, MasksMessage):
            counts = self.counts(message.camera)
            num_lost = message.serial - last.serial - 1 if last and last.run == message.run else 0
            self._counts[message.camera] = Counts(
                num_received=counts.num_received + 1,
                num_lost=counts.num_lost + num_lost,
                num_dropped=counts.num_dropped + message.num_dropped * (last is not None),
            )

    def counts(self, camera: str) -> Counts:
        return self._counts.get(camera, Counts())


def mark(message: Message) -> Mark:
    order = (message.epoch, message.seq) if isinstance(message, Picture) else (message.serial,)
    return Mark(message.run, message.serial, order)
