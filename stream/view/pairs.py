"""Brings pictures and masks together, and counts how fast they come.

Owns: what waits for its other half. Runs in the view's main thread. Never: joins a picture with another one's masks.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from stream.client import FrameMessage, MasksMessage, Message

NUM_HELD = 64  # pictures and masks that wait for their other half; beyond it the oldest is given up
RATE_WINDOW_S = 2.0
Key = tuple[int, int, int]
Pair = tuple[MasksMessage, FrameMessage]


class Joiner:
    """Brings pictures and masks of one camera and the same (run, epoch, seq) together, in whichever order they come.

    Holds at most `NUM_HELD` of each; beyond that the oldest is given up. Written by the view's thread.
    """

    def __init__(self) -> None:
        self.num_given_up = 0
        self._held: dict[type[Message], OrderedDict[Key, MasksMessage | FrameMessage]] = {
            MasksMessage: OrderedDict(),
            FrameMessage: OrderedDict(),
        }

    def put(self, message: MasksMessage | FrameMessage) -> Pair | None:
        """The pair that this message completes."""
        key = (message.run, message.epoch, message.seq)
        other = self._held[FrameMessage if isinstance(message, MasksMessage) else MasksMessage].pop(key, None)
        if other is None:
            self._hold(key, message)
            return None
        if isinstance(message, MasksMessage) and isinstance(other, FrameMessage):
            return message, other
        assert isinstance(other, MasksMessage) and isinstance(message, FrameMessage), "a pair is one of each"
        return other, message

    def _hold(self, key: Key, message: MasksMessage | FrameMessage) -> None:
        held = self._held[type(message)]
        held[key] = message
        if len(held) > NUM_HELD:
            held.popitem(last=False)
            self.num_given_up += isinstance(message, FrameMessage)


class Rate:
    """Events a second over the last `RATE_WINDOW_S`. Written by the view's thread."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque(maxlen=1000)

    def put(self, time_ns: int) -> float:
        self._times_ns.append(time_ns)
        while time_ns - self._times_ns[0] > RATE_WINDOW_S * 1e9:
            self._times_ns.popleft()
        span_ns = time_ns - self._times_ns[0]
        return (len(self._times_ns) - 1) / (span_ns / 1e9) if span_ns > 0 else 0.0
