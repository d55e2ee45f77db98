"""`Feed`: one camera as the worker sees it.

Owns: which settings and which ring. Written by the main thread, read by the worker's. Never: touches a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stream.config import CameraConfig
from stream.ring import FrameRing


class RingOwner(Protocol):
    """Where a camera's pictures come from; its ring may be replaced at any time."""

    @property
    def ring(self) -> FrameRing: ...


@dataclass(frozen=True, slots=True)
class FixedRing:
    """A `RingOwner` with one ring for good."""

    ring: FrameRing


class Feed:
    """One camera as the worker sees it; written by the main thread."""

    __slots__ = ("_feeder", "config")

    def __init__(self, config: CameraConfig, feeder: RingOwner) -> None:
        self.config, self._feeder = config, feeder

    @property
    def ring(self) -> FrameRing:
        return self._feeder.ring

    def change(self, config: CameraConfig, feeder: RingOwner) -> None:
        """Other settings or another thread for the same camera; its memory stays unless the epoch rises."""
        self.config, self._feeder = config, feeder
