"""`Lane`: the copy stream of a device beside the stream that computes, and events by which they wait for each other.

Owns: the copy stream; the compute stream is whichever is current in the thread that uses the lane: the worker's, alone.
Never: makes the host wait; whoever holds an event may.

Pictures go up on the copy stream, so that they travel while the turn before computes. Results come down on the compute
stream: behind the pictures they would wait, and make the next pictures wait, for a turn that is not done.
NOT TRIED ON A GPU: tests/lanes.py stands in for one, and runs every copy as late as the events allow.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Event(Protocol):
    """A point in the order of a stream."""

    def synchronize(self) -> None:
        """Make the host wait until the stream has passed it."""
        ...


class Lane(Protocol):
    """What moves bytes between the host and a device."""

    def pinned(self, num_bytes: int) -> Tensor:
        """Host memory that the device can reach by itself."""
        ...

    def upload(self, target: Tensor, source: Tensor, *, after: Event) -> Event:
        """Copy pinned memory to the device, once `after` has passed; the event says that it is there."""
        ...

    def download(self, target: Tensor, source: Tensor) -> Event:
        """Copy to pinned memory what the compute stream has made by then."""
        ...

    def compute_after(self, event: Event) -> None:
        """What is computed from now on waits for the event; the host does not."""
        ...

    def computed(self) -> Event:
        """All that the compute stream was given so far."""
        ...


class CudaLane:
    """Fulfils `Lane`; written by nobody after construction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def upload(self, target: Tensor, source: Tensor, *, after: Event) -> Event:
        assert isinstance(after, torch.cuda.Event), "an event of this lane"
        self._copies.wait_event(after)
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
        return _recorded(self._copies)

    def download(self, target: Tensor, source: Tensor) -> Event:
        target.copy_(source, non_blocking=True)
        return self.computed()

    def compute_after(self, event: Event) -> None:
        assert isinstance(event, torch.cuda.Event), "an event of this lane"
        torch.cuda.current_stream(self._device).wait_event(event)

    def computed(self) -> Event:
        return _recorded(torch.cuda.current_stream(self._device))


def _recorded(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits sleeps, and leaves the core
    event.record(stream)
    return event
