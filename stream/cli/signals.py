"""INT and TERM as an event, for commands that loop.

Owns: the two signal handlers while `stopping_event` is open. Runs in the main thread. Never: does work in a handler.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_event() -> Iterator[threading.Event]:
    """Set by the first INT or TERM; the second one acts as if nothing had been set up."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handle in before.items():
            signal.signal(number, handle)

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()
        restore()

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        restore()
