"""`tune`: what the configuration says of a camera's memory and masks, handed to the tracker.

Owns: nothing. The worker's thread calls it, when a memory begins and when the configuration changed. Never: prompts
anything.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from stream.config import CameraConfig, MemoryPolicy, RefineOptions


class Tunable(Protocol):
    """What of `stream.tracker.Tracker` is used here."""

    def object_ids(self, camera: str = "") -> tuple[int, ...]: ...

    def set_camera_policy(
        self, camera: str, memory_policy: MemoryPolicy | None, *, camera_motion: bool = False
    ) -> None: ...

    def set_policy(self, object_id: int, policy: MemoryPolicy | None, *, camera: str = "") -> None: ...

    def refine_masks(
        self, options: RefineOptions | None, *, object_id: int | None = None, camera: str = ""
    ) -> None: ...


def tune(tracker: Tunable, config: CameraConfig, *, moved: Collection[int]) -> None:
    """The camera's settings, and those that prompts have of their own; `moved` are ids that name other objects now."""
    camera = config.name
    tracker.set_camera_policy(camera, config.memory_policy, camera_motion=config.camera_motion)
    tracker.refine_masks(config.refine, camera=camera)
    known = set(tracker.object_ids(camera)) - set(moved)
    for prompt in config.prompts:
        if prompt.object_id in known:
            tracker.set_policy(prompt.object_id, prompt.memory_policy, camera=camera)
            tracker.refine_masks(prompt.refine, object_id=prompt.object_id, camera=camera)


def untune(tracker: Tunable, camera: str) -> None:
    """The camera is gone, and its settings with it."""
    tracker.set_camera_policy(camera, None)
    tracker.refine_masks(None, camera=camera)
