"""Masks that people drew as polygons, in text files: `benchmarks/key_masks/*.txt`.

Owns: the format below, and how polygons become pixels. Never: opens a video.

    # a remark
    clip dog.mp4 1280x720 289         the video, its size and number of pictures; first
    click dog 594,449                 an object, and the place in picture 0 (x,y in pixels) where it is pointed at
    40 dog + 779.5,350 789.5,348 ...  in picture 40 the object covers this polygon, too
    40 dog - 812.5,577.5 ...          and it does not cover this one; in the order of the lines
    90 dog absent                     the object is not to be seen in picture 90

Coordinates are those of the picture's area: 0,0 is the upper left corner of the first pixel, its centre 0.5,0.5. A
pixel is covered when its centre is. Every object has a line for every picture that any of them has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
Points = NDArray[np.float64]

SIGNS = ("+", "-")


@dataclass(frozen=True, slots=True)
class DrawnClip:
    """What was drawn for one video."""

    file: str
    size: tuple[int, int]  # width, height
    num_frames: int
    clicks: Mapping[str, tuple[float, float]]
    polygons: Mapping[tuple[int, str], Sequence[tuple[str, Points]]]  # none for an object that is absent

    @property
    def name(self) -> str:
        return self.file.rpartition(".")[0]

    @property
    def frames(self) -> tuple[int, ...]:
        """The pictures that have masks, ascending."""
        return tuple(sorted({frame for frame, _ in self.polygons}))

    def mask(self, frame: int, name: str) -> Bits:
        """(height, width); empty for an object that is absent. Raises KeyError where nothing was drawn."""
        width, height = self.size
        covered = np.zeros((height, width), np.bool_)
        for sign, points_n2 in self.polygons[frame, name]:
            part = fill(points_n2, width, height)
            covered = covered | part if sign == "+" else covered & ~part
        return covered


def fill(points_n2: Points, width: int, height: int) -> Bits:
    """The pixels whose centres lie in the polygon, by the even-odd rule."""
    crossings = np.zeros((height, width + 1), np.int64)
    for (x0, y0), (x1, y1) in zip(points_n2, np.roll(points_n2, -1, axis=0), strict=True):
        low, high = sorted((y0, y1))
        rows = np.arange(max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), height))
        if rows.size:
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            np.add.at(crossings, (rows, columns), 1)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :width] % 2 == 1, np.bool_)


def read_drawn(path: Path) -> DrawnClip:
    """Raises ValueError: one line that names the file, the line and what was expected."""
    clips: list[tuple[str, tuple[int, int], int]] = []
    clicks: dict[str, tuple[float, float]] = {}
    polygons: dict[tuple[int, str], list[tuple[str, Points]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        try:
            if not words:
                continue
            if words[0] == "clip":
                width, height = words[2].split("x")
                clips.append((words[1], (int(width), int(height)), int(words[3])))
            elif words[0] == "click":
                clicks[words[1]] = _point(words[2])
            else:
                _add(polygons, words, clicks)
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}:{number}: {error}; expected a line as benchmarks/drawn.py describes") from None
    if len(clips) != 1 or {name for _, name in polygons} != set(clicks):
        raise ValueError(f"{path}: expected one line `clip`, and a mask and a click for every object")
    drawn = DrawnClip(*clips[0], clicks, polygons)
    missing = [f"{frame} {name}" for frame in drawn.frames for name in clicks if (frame, name) not in polygons]
    if missing:
        raise ValueError(f"{path}: nothing is said of {', '.join(missing)}; expected a polygon or `absent`")
    return drawn


def _add(
    polygons: dict[tuple[int, str], list[tuple[str, Points]]], words: list[str], clicks: Mapping[str, object]
) -> None:
    key = (int(words[0]), words[1])
    if words[1] not in clicks:
        raise ValueError(f"{words[1]} has no click")
    parts = polygons.setdefault(key, [])
    if words[2] == "absent":
        if parts or len(words) > 3:
            raise ValueError(f"{words[1]} is absent and drawn")
        return
    if words[2] not in SIGNS or len(words) < 6:
        raise ValueError(f"{words[2]} with {len(words) - 3} points")
    parts.append((words[2], np.array([_point(word) for word in words[3:]])))


def _point(word: str) -> tuple[float, float]:
    x, y = word.split(",")
    return float(x), float(y)
