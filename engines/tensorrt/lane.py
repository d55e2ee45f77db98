"""On which CUDA stream a plan is enqueued.

Owns: one stream of its own per device, for callers on the default one. The GPU thread. Never: waits on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

Enqueue = Callable[[int], bool]
"""Puts the work on the stream with this handle; False where the library refused."""


class Lane(Protocol):
    """Where a program's work goes."""

    def launch(self, enqueue: Enqueue) -> bool:
        """After all that the caller's stream has, before all that it will get."""
        ...


class CudaLane:
    """The current stream. On the default one TensorRT would stop the whole device around every call, and nothing can
    be captured; so work from there takes a stream of its own, which the default one waits for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def launch(self, enqueue: Enqueue) -> bool:
        current = torch.cuda.current_stream(self._device)
        with on_device(self._device):
            if current.cuda_stream != 0:
                return enqueue(current.cuda_stream)
            self._own.wait_stream(current)
            is_enqueued = enqueue(self._own.cuda_stream)
            current.wait_stream(self._own)
            return is_enqueued


class HostLane:
    """For a stand-in of the library that computes on the CPU, at once."""

    def launch(self, enqueue: Enqueue) -> bool:
        return enqueue(0)


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """The library takes whichever GPU is the thread's current one; torch's tensors know their own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def make_lane(device: torch.device) -> Lane:
    return CudaLane(device) if device.type == "cuda" else HostLane()
