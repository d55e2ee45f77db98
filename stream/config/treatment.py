"""What is done to a picture before the model sees it, and to a mask after the model made it: the settings as values.

Owns: `EnhanceOptions`, `RefineOptions`, `MemoryPolicy`: names and defaults. Frozen; any thread reads them.
Never: checks a value, touches a picture or a mask. Everything is off by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MemoryPolicy = Literal["sam2", "motion"]  # SAM 2's own, or one that asks first whether the mask moved as the object did
MEMORY_POLICIES = ("sam2", "motion")
REFERENCE_SIZE = 256  # areas are counted in pixels of a mask of 256 x 256, as SAM 2 does, whatever the camera's size


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """What is done to an object's mask before it is published; the memory never sees it."""

    fill_holes: int = 0  # holes of at most so many pixels of a 256 x 256 mask; 0 = off, SAM 2 takes 8
    remove_specks: int = 0  # the same for pieces beside the object
    smooth: float = 0.0  # 0 = off to 1: how much a resting edge follows its past
    upsample: Literal["bilinear", "guided"] = "bilinear"  # guided: edges are drawn to those of the picture
    non_overlap: bool = False  # a pixel belongs to one object at most: where masks overlap, to the surer one

    @property
    def is_off(self) -> bool:
        return self == RefineOptions()


@dataclass(frozen=True, slots=True)
class EnhanceOptions:
    """What is done to a picture before the model sees it; the published picture stays as it came."""

    denoise: float = 0.0  # 0 = off to 1: strength
    low_light: float = 0.0  # 0 = off to 1: how far dark pictures are lifted

    @property
    def is_off(self) -> bool:
        return self == EnhanceOptions()
