"""Masks of a recorded video, picture by picture: what evaluation, segmenting of files and fine-tuning hand each other.

Owns: `LabelledFrame` and `Picture`, the contracts `MaskSequence` (masks, wherever they are stored) and `Footage`
(pictures), and what is raised when they cannot be read. Values only; any thread. Never: opens a file, imports torch or
OpenCV, or holds more than one picture's masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The masks of one picture. An object that is known but not there has an empty mask, or none."""

    index: int  # place of the picture in its sequence, from 0
    masks: Mapping[int, Bits]  # object id to (height, width)
    confidences: Mapping[int, float] = field(default_factory=dict)  # 0 to 1; an id without one counts as 1


class MaskSequence(Protocol):
    """The masks of one video, read one picture at a time."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def num_frames(self) -> int:
        """Pictures of the video, annotated or not."""
        ...

    @property
    def annotated(self) -> Sequence[int]:
        """Places of the pictures that have masks, ascending; the others say nothing."""
        ...

    @property
    def labels(self) -> Mapping[int, str]:
        """Object id to label; ids without one are missing."""
        ...

    def frame(self, index: int) -> LabelledFrame:
        """The masks of an annotated picture. Raises KeyError for another, `MaskFileError` for a broken file."""
        ...


class MaskFileError(ValueError):
    """A file or folder of masks cannot be used; the text is one line that names it and what was expected."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a video: BGR, upright, at its own time."""

    index: int  # place in the video, from 0; pictures that were left out count
    time_ns: int  # since the video's beginning
    image_hwc: Image  # uint8 (height, width, 3)
    name: str = ""  # of its file, without the ending, where every picture is one


class Footage(Protocol):
    """The pictures of one video file or folder; memory does not depend on how long it is."""

    @property
    def name(self) -> str: ...

    @property
    def num_frames(self) -> int | None:
        """Pictures of the whole video, if the file tells; an estimate for some files."""
        ...

    @property
    def fps(self) -> float | None:
        """Average pictures a second; None for a folder."""
        ...

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """From this picture on, in order. Raises `FootageError`."""
        ...


class FootageError(ValueError):
    """A video or folder cannot be read; the text is one line that names it and what was expected."""
