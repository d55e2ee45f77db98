"""Generated clips as material for an evaluation: the pictures and the truth of `engines.synthetic`.

Owns: `GeneratedFootage` and `GeneratedTruth`. Any thread; nothing in them changes. Never: draws a seed that training or
its validation draws, unless it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engines.synthetic import SyntheticClip
from stream.sequence import LabelledFrame, Picture

FPS = 30.0  # generated clips have no time of their own


class GeneratedFootage:
    """The pictures of a clip."""

    def __init__(self, clip: SyntheticClip, name: str) -> None:
        self._clip, self.name = clip, name

    @property
    def num_frames(self) -> int | None:
        return self._clip.spec.num_frames

    @property
    def fps(self) -> float | None:
        return FPS

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        for index in range(start, self._clip.spec.num_frames):
            yield Picture(index, round(index * 1e9 / FPS), self._clip.frame(index), f"{index:05d}")


class GeneratedTruth:
    """The masks of a clip; ids count from 1."""

    def __init__(self, clip: SyntheticClip, name: str) -> None:
        self._clip, self.name = clip, name

    @property
    def size(self) -> tuple[int, int]:
        return self._clip.spec.height, self._clip.spec.width

    @property
    def num_frames(self) -> int:
        return self._clip.spec.num_frames

    @property
    def annotated(self) -> Sequence[int]:
        return range(self.num_frames)

    @property
    def labels(self) -> Mapping[int, str]:
        return {}

    def frame(self, index: int) -> LabelledFrame:
        if index not in self.annotated:
            raise KeyError(index)
        return LabelledFrame(index, dict(enumerate(self._clip.masks(index), start=1)))
