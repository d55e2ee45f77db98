"""One indexed PNG as a sequence of one picture: a first-frame mask.

Owns: its path. Any thread. Never: keeps the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stream.masksets.indexed import read_indexed
from stream.sequence import LabelledFrame


class PictureSequence:
    """Frozen once made, any thread may read."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.path, self.name, self.size = path, path.stem, size
        self.footage: Path | None = None
        self.num_frames = 1
        self.annotated: Sequence[int] = (0,)
        self.labels: Mapping[int, str] = {}

    def frame(self, index: int) -> LabelledFrame:
        if index:
            raise KeyError(index)
        return LabelledFrame(0, read_indexed(self.path))
