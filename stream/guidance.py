"""`Guidance`: which memory policy holds for which camera and object, and how each camera moved.

Owns: the tracker's options, the policies that differ from them, and the last small picture of every camera whose
motion is measured. The thread that uses the tracker writes it. Never: decides about a mask (`stream.policy` does), or
keeps a camera that was dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.device import OptionError
from stream.motion import CameraMotion, View
from stream.policy import POLICIES, PolicyName


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """How memory is kept. Prompts beyond `max_cond_frames` evict the oldest but the first.

    `memory_policy` and `camera_motion` hold for cameras and objects that have none of their own.
    """

    max_cond_frames: int = 2
    refine_as_cond: bool = False  # official `add_all_frames_to_correct_as_cond`
    memory_policy: PolicyName = "sam2"
    camera_motion: bool = False


@dataclass(frozen=True, slots=True)
class CameraPolicy:
    """`camera_motion`: whether the motion policy takes the camera's own motion into account."""

    memory_policy: PolicyName = "sam2"
    camera_motion: bool = False

    @classmethod
    def checked(cls, memory_policy: PolicyName, camera_motion: bool = False) -> CameraPolicy:
        """Raises `OptionError`."""
        if memory_policy not in POLICIES:
            raise OptionError(f"memory_policy is {memory_policy!r}; expected {' or '.join(POLICIES)}")
        return cls(memory_policy, camera_motion)


class Guidance:
    """Written by the tracker's thread."""

    def __init__(self, default: CameraPolicy) -> None:
        self._default = default
        self._policies: dict[str, CameraPolicy] = {}
        self._cameras: dict[str, CameraMotion] = {}

    def set(self, camera: str, policy: CameraPolicy | None) -> None:
        """From the camera's next picture on; None: as the options say."""
        self._policies.pop(camera, None)
        if policy is not None:
            self._policies[camera] = policy

    def of(self, camera: str) -> CameraPolicy:
        return self._policies.get(camera, self._default)

    def drop(self, camera: str | None) -> None:
        """Forget what the camera saw, or all did."""
        self._cameras = {} if camera is None else {name: x for name, x in self._cameras.items() if name != camera}

    def moved(self, camera: str, image_hwc: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """How the camera moved since the last picture; None where that is not asked for."""
        if not self.of(camera).camera_motion:
            return None
        return self._cameras.setdefault(camera, CameraMotion()).follow(image_hwc)

    def view(self, camera: str) -> View | None:
        """The last small picture, for `restore_view`."""
        known = self._cameras.get(camera)
        return None if known is None else known.view

    def restore_view(self, camera: str, view: View | None) -> None:
        if view is not None:
            self._cameras[camera] = CameraMotion(view)
