"""How fast the tracker was, and on what.

Owns: `Pace` (what was counted), `Speed` (what is told). Any thread. Never: measures anything itself; `pursue` does.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch

from stream.evaluate.pursuit import Sight


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the pictures that were tracked; those with a new prompt run other programs and do not count."""

    num_pictures: int = 0
    num_objects: int = 0  # of all those pictures together
    seconds: float = 0.0

    def and_sight(self, sight: Sight) -> Pace:
        """With one more picture."""
        num_objects = len(sight.found.masks)
        if sight.is_start or not num_objects:
            return self
        return self + Pace(num_pictures=1, num_objects=num_objects, seconds=sight.seconds)

    def __add__(self, other: Pace) -> Pace:
        return Pace(
            num_pictures=self.num_pictures + other.num_pictures,
            num_objects=self.num_objects + other.num_objects,
            seconds=self.seconds + other.seconds,
        )


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tracker alone: from a decoded picture to its masks in full resolution, one picture at a time."""

    pictures_per_s: float
    ms_per_picture: float
    objects_per_picture: float
    num_pictures: int
    hardware: str


def speed_of(paces: Iterable[Pace], hardware: str) -> Speed | None:
    """The average over all pictures; None where none was tracked."""
    total = sum(paces, Pace())
    if not total.num_pictures or total.seconds <= 0:
        return None
    return Speed(
        pictures_per_s=total.num_pictures / total.seconds,
        ms_per_picture=1000 * total.seconds / total.num_pictures,
        objects_per_picture=total.num_objects / total.num_pictures,
        num_pictures=total.num_pictures,
        hardware=hardware,
    )


def hardware_of(device: torch.device) -> str:
    """The GPU's name, or the processor's and the threads of torch."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
