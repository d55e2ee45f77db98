"""A lane without a device: every copy runs as late as its events allow: whoever forgets to wait gets rubbish."""

from __future__ import annotations

import torch
from torch import Tensor

from stream.lane import Event


class LateEvent:
    """Passed once its lane has done everything up to it."""

    def __init__(self, lane: LateLane, position: int) -> None:
        self.lane, self.position = lane, position
        self.num_waits = 0

    def synchronize(self) -> None:
        self.num_waits += 1
        self.lane.run(self.position)


class LateLane:
    """Fulfils `stream.lane.Lane` with CPU memory.

    What is computed runs at once, as torch does on a CPU: so `compute_after` must run the uploads that it waits for,
    and what an upload waits for has always passed. Copies are kept back until an event says otherwise.
    """

    def __init__(self) -> None:
        self.num_done = 0
        self.num_bytes_pinned: list[int] = []
        self._copies: list[tuple[Tensor, Tensor]] = []

    @torch.inference_mode()
    def run(self, position: int) -> None:
        for target, source in self._copies[self.num_done : position]:
            target.copy_(source)
        self.num_done = max(self.num_done, min(position, len(self._copies)))

    def pinned(self, num_bytes: int) -> Tensor:
        self.num_bytes_pinned.append(num_bytes)
        return torch.full((num_bytes,), 77, dtype=torch.uint8)

    def upload(self, target: Tensor, source: Tensor, *, after: Event) -> LateEvent:
        assert isinstance(after, LateEvent) and after.lane is self
        self._copies.append((target, source))
        return LateEvent(self, len(self._copies))

    def download(self, target: Tensor, source: Tensor) -> LateEvent:
        self._copies.append((target, source.clone()))  # in the order of the compute stream: what it is by now
        return LateEvent(self, len(self._copies))

    def compute_after(self, event: Event) -> None:
        assert isinstance(event, LateEvent) and event.lane is self
        self.run(event.position)

    def computed(self) -> LateEvent:
        return LateEvent(self, 0)
