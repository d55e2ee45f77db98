"""What the other threads leave for the pub thread.

Owns: one place per camera for masks, a short queue of states per camera, the newest info, and a pipe that wakes the
reader. Thread: any thread puts; only `pub` opens, takes and closes. Never: waits for the reader, or keeps what it
cannot bound.

Loses: a delivery that is replaced before it was taken (released at once, counted in `num_replaced`), and of a
camera's states all but the newest eight (counted in `num_states_lost`).
"""

from __future__ import annotations

import collections
import threading
from dataclasses import dataclass

from stream.bell import Bell
from stream.frame import CameraState, Delivery
from stream.message import Info

MAX_STATES_PER_CAMERA = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """What was waiting: the newest info or None, states in order per camera, one delivery per camera, oldest first."""

    info: Info | None
    states: tuple[CameraState, ...]
    deliveries: tuple[Delivery, ...]


class Mailbox:
    """Every field is written under `_lock`, held for microseconds only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._deliveries: dict[str, Delivery] = {}
        self._states: dict[str, collections.deque[CameraState]] = {}
        self._info: Info | None = None
        self._closed = False
        self._bell = Bell()
        self.num_replaced = 0
        self.num_states_lost = 0

    def open(self) -> int:
        """From now on the returned file is readable while something waits; for a poller."""
        with self._lock:
            return self._bell.open()

    def put_masks(self, delivery: Delivery) -> None:
        camera = delivery.stamp.camera
        with self._lock:
            unwanted = delivery if self._closed else self._deliveries.pop(camera, None)
            self.num_replaced += unwanted is not None
            if not self._closed:
                self._deliveries[camera] = delivery
                self._bell.ring()
        if unwanted is not None:
            unwanted.release()

    def put_state(self, state: CameraState) -> None:
        with self._lock:
            queue = self._states.setdefault(state.camera, collections.deque(maxlen=MAX_STATES_PER_CAMERA))
            self.num_states_lost += len(queue) == MAX_STATES_PER_CAMERA
            queue.append(state)
            self._bell.ring()

    def put_info(self, info: Info) -> None:
        with self._lock:
            self._info = info
            self._bell.ring()

    def wake(self) -> None:
        """Let the reader look around, also without mail."""
        with self._lock:
            self._bell.ring()

    def take(self) -> Batch:
        """Everything that waits; the pub thread now owns the deliveries and releases each one."""
        with self._lock:
            self._bell.quiet()
            states = tuple(state for queue in self._states.values() for state in queue)
            batch = Batch(info=self._info, states=states, deliveries=tuple(self._deliveries.values()))
            self._info = None
            self._states = {}
            self._deliveries = {}
            self._emptied.notify_all()
        return batch

    def wait_taken(self, timeout_s: float) -> bool:
        """Wait until no delivery is left to take; False after `timeout_s`."""
        with self._emptied:
            return self._emptied.wait_for(lambda: not self._deliveries, timeout_s)

    def close(self) -> None:
        """Release what is left, and from now on every delivery that still comes."""
        with self._lock:
            self._closed = True
            left = tuple(self._deliveries.values())
            self._deliveries = {}
            self._bell.close()
            self._emptied.notify_all()
        for delivery in left:
            delivery.release()
