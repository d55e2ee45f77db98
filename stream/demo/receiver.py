"""The receiving side of the demo: masks and pictures as they come, joined by (epoch, seq).

Owns: the subscriber, and what it received. Runs in the demo's main thread. Never: draws or decodes while it receives,
unless a window shows the newest picture.

Loses: pictures beyond `MAX_PICTURE_BYTES`, which the film then lacks; the figures count their masks all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from stream.client import FrameMessage, MasksMessage, Received, Subscriber
from stream.demo.plan import DemoError

TURN_S = 0.2
SILENCE_LIMIT_S = 30.0
MAX_PICTURE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One processed picture: its masks, when they came, and the picture as JPEG if that came too."""

    masks: MasksMessage
    received_ns: int
    jpeg: bytes | None = None


Show = Callable[[Sample], bool]


class Receiver:
    """Written by the thread that calls `run`. `show` gets every joined sample; its result ends the run."""

    def __init__(self, endpoint: str, camera: str, *, seconds: float | None, show: Show | None) -> None:
        self._endpoint, self._camera = endpoint, camera
        self._seconds = seconds
        self._show = show
        self._samples: dict[tuple[int, int], Sample] = {}
        self._num_bytes = 0
        self._is_closed = False

    def run(self, is_alive: Callable[[], bool]) -> list[Sample]:
        """Until `seconds` after the first masks, the end of the daemon, or `show`; the samples in order.

        Masks whose picture was still on its way when time was up are left out.
        """
        with Subscriber(self._endpoint, [self._camera], newest_only=False, frames=True, timeout_s=TURN_S) as subscriber:
            heard_s = time.monotonic()
            while not self._is_over():
                received = _receive(subscriber)
                if received is not None:
                    self._take(received)
                    heard_s = time.monotonic()
                elif not is_alive():
                    break
                elif time.monotonic() - heard_s > SILENCE_LIMIT_S:
                    raise DemoError(f"nothing from the daemon for {SILENCE_LIMIT_S:g} s{_condition(subscriber)}")
        samples = [self._samples[key] for key in sorted(self._samples)]
        return samples[:-1] if self._is_over() and samples and samples[-1].jpeg is None else samples

    def _is_over(self) -> bool:
        if self._is_closed or self._seconds is None or not self._samples:
            return self._is_closed
        first = next(iter(self._samples.values()))
        return time.monotonic_ns() - first.received_ns > self._seconds * 1e9

    def _take(self, received: Received) -> None:
        message = received.message
        if isinstance(message, MasksMessage):
            self._samples[message.epoch, message.seq] = Sample(message, received.received_ns)
        elif isinstance(message, FrameMessage):
            self._join(message)

    def _join(self, frame: FrameMessage) -> None:
        """Masks are sent before their picture, so they are here."""
        key = (frame.epoch, frame.seq)
        if key not in self._samples:
            return
        sample = replace(self._samples[key], jpeg=frame.data)
        if self._num_bytes + len(frame.data) <= MAX_PICTURE_BYTES:
            self._num_bytes += len(frame.data)
            self._samples[key] = sample
        if self._show is not None:
            self._is_closed = self._show(sample)


def _receive(subscriber: Subscriber) -> Received | None:
    try:
        return subscriber.receive()
    except TimeoutError:
        return None


def _condition(subscriber: Subscriber) -> str:
    states = [f"{state.camera} is {state.condition.value} ({state.reason})" for state in subscriber.states.values()]
    return "".join(f"; {state}" for state in states)
