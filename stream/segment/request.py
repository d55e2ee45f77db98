"""What is asked of `segment`: `Settings` for all videos, `Task` for one of them, and the error of a wrong one.

Owns: the names of the formats and of the files that they become. Frozen; any thread or process.
Never: opens a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stream.config import EnhanceOptions, MemoryPolicy, RefineOptions
from stream.segment.moments import BEGINNING, Moment
from stream.segment.prompts import GivenPrompt

FORMATS = ("davis", "rle", "overlay", "mask-video", "cutout-png", "cutout-webm")
CHUNK = 240  # pictures from one point where a killed run can go on to the next; a part of a film has as many


class SegmentError(ValueError):
    """A video cannot be segmented as asked; the text is one line with the value and what was expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The same for all videos of a run. `program` names the model and what else decides on the masks' bits."""

    formats: tuple[str, ...] = ("davis",)
    every: int = 1
    start: Moment = BEGINNING
    end: Moment | None = None
    memory_policy: MemoryPolicy = "sam2"
    camera_motion: bool = False
    refine: RefineOptions = field(default_factory=RefineOptions)
    enhance: EnhanceOptions = field(default_factory=EnhanceOptions)
    program: str = ""
    chunk: int = CHUNK
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One video: where its pictures are, what to follow in them, and the folder that all results go to."""

    name: str
    source: str
    out: Path
    prompts: tuple[GivenPrompt, ...]
    settings: Settings

    @property
    def work(self) -> Path:
        """The folder of what is needed to go on after a kill."""
        return self.out / ".segment" / self.name

    def path(self, format_name: str) -> Path:
        """The file or folder that a format becomes."""
        return {
            "davis": self.out / "Annotations" / self.name,
            "rle": self.out / f"{self.name}.jsonl",
            "overlay": self.out / f"{self.name}.overlay.mp4",
            "mask-video": self.out / f"{self.name}.mask.mp4",
            "cutout-png": self.out / "cutouts" / self.name,
            "cutout-webm": self.out / f"{self.name}.cutout.webm",
        }[format_name]
