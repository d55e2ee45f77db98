"""Generated clips with known truth: textured shapes over a moving background.

Owns the scene and its rendering. A scene is a closed function of (spec, frame index): no frame depends on having
rendered another. Any thread may render; an instance holds no state that rendering changes. Never reads a file.

Seeds are divided for good: training draws below 1_000_000_000, held-out clips for judging during training start at
VALIDATION_SEEDS, the published evaluation at EVALUATION_SEEDS, and the demo has one of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.shape import TEXTURE_SIZE, Swing, Thing, draw_swing, draw_thing
from engines.synthetic.texture import Image, colour, paint, palette, structure

TRAINING_SEEDS = range(1_000_000_000)
VALIDATION_SEEDS = range(1_000_000_000, 1_000_001_000)
EVALUATION_SEEDS = range(2_000_000_000, 2_000_001_000)

MIN_VISIBLE_SHARE = 0.015
"""Every object shows at least this share of the frame in frame 0."""
MAX_DECOYS = 3
"""At most so many still shapes lie in the background and move with it."""
_MAX_DRAWS = 500
_SUBPIXEL_BITS = 4
_MARGIN = 1.5
"""The background picture is this many times as large as the frame."""


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """Everything a clip is made from. Equal specs give equal pixels."""

    seed: int
    num_frames: int = 60
    height: int = 256
    width: int = 256
    num_objects: int = 2
    num_distractors: int = 1
    """Moving shapes without a mask; they may pass in front of the objects."""
    speed: float = 1.0
    leave_probability: float = 0.2
    noise: float = 4.0
    """Standard deviation of the sensor noise, in grey levels."""


class SyntheticClip:
    """A clip with known truth. Immutable after construction."""

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        self._things, self._order = self._draw_things(rng)
        self._background = self._draw_background(rng)
        self._camera = tuple(draw_swing(rng, 0, a, period=(80, 220), speed=spec.speed) for a in (0.1, 0.1, 0.1, 0.06))
        self._gain = Swing(1.0, (0.04, 0.02), (rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.6)), (0, 0))
        shape = (spec.height + 32, spec.width + 32, 3)
        self._noise = (rng.standard_normal(shape, dtype=np.float32) * spec.noise).astype(np.int16)

    def frame(self, index: int) -> Image:
        """The picture at `index`: (height, width, 3) BGR."""
        spec = self.spec
        picture = self._view(index)
        for number in self._order:
            self._draw(picture, self._things[number], index)
        dy, dx = np.random.default_rng((spec.seed, index)).integers(0, 32, 2)
        grain = self._noise[dy : dy + spec.height, dx : dx + spec.width]
        lit = cv2.convertScaleAbs(picture, alpha=self._gain.at(index))
        return np.asarray(cv2.add(lit, grain, dtype=cv2.CV_8U), np.uint8)

    def masks(self, index: int) -> NDArray[np.bool_]:
        """The visible part of each object: (num_objects, height, width)."""
        spec = self.spec
        visible = np.zeros((len(self._things), spec.height, spec.width), np.uint8)
        covered = np.zeros((spec.height, spec.width), np.uint8)
        for number in reversed(self._order):
            corners = np.round(self._things[number].polygon(index, spec.width, spec.height) * 2**_SUBPIXEL_BITS)
            cv2.fillPoly(visible[number], [corners.astype(np.int32)], 1, cv2.LINE_8, _SUBPIXEL_BITS)
            visible[number] &= ~covered
            covered |= visible[number]
        return visible[: spec.num_objects].astype(np.bool_)

    def click(self, object_index: int, index: int = 0) -> tuple[float, float]:
        """(x, y) of the pixel deepest inside the visible part of the object."""
        return deepest_point(self.masks(index)[object_index])

    def _draw_things(self, rng: np.random.Generator) -> tuple[list[Thing], list[int]]:
        spec = self.spec
        count = spec.num_objects + spec.num_distractors
        for _ in range(_MAX_DRAWS):
            leaves = rng.random(count) < spec.leave_probability
            self._things = [draw_thing(rng, speed=spec.speed, leaves=bool(leave)) for leave in leaves]
            self._order = [int(number) for number in rng.permutation(count)]
            if self.masks(0).mean((1, 2)).min(initial=1) >= MIN_VISIBLE_SHARE:
                return self._things, self._order
        raise ValueError(
            f"no scene with {spec.num_objects} visible objects after {_MAX_DRAWS} draws: use fewer objects"
        )

    def _draw_background(self, rng: np.random.Generator) -> Image:
        width, height = round(self.spec.width * _MARGIN), round(self.spec.height * _MARGIN)
        colours = [colour(rng, saturation=(0, 0.7), value=(0.1, 0.95)) for _ in range(int(rng.integers(2, 5)))]
        grey = structure(rng, 2 * TEXTURE_SIZE, cycles=(3, 20), plain=0.6)
        canvas = cv2.resize(paint(grey, palette(rng, colours)), (width, height), interpolation=cv2.INTER_LINEAR)
        for _ in range(int(rng.integers(0, MAX_DECOYS + 1))):
            decoy = draw_thing(rng, speed=0.0, leaves=False)
            self._draw(np.asarray(canvas, np.uint8), decoy, 0)
        return np.asarray(canvas, np.uint8)

    def _view(self, index: int) -> Image:
        spec = self.spec
        across, down, turn, zoom = (swing.at(index) for swing in self._camera)
        centre = (spec.width * _MARGIN / 2, spec.height * _MARGIN / 2)
        matrix = cv2.getRotationMatrix2D(centre, math.degrees(turn), 1.05 + zoom)
        matrix[0, 2] += spec.width * (0.5 + across) - centre[0]
        matrix[1, 2] += spec.height * (0.5 + down) - centre[1]
        size = (spec.width, spec.height)
        return np.asarray(
            cv2.warpAffine(self._background, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101),
            np.uint8,
        )

    @staticmethod
    def _draw(picture: Image, thing: Thing, index: int) -> None:
        height, width = picture.shape[:2]
        polygon = thing.polygon(index, width, height)
        low = np.maximum(np.floor(polygon.min(0)).astype(int) - 2, 0)
        high = np.minimum(np.ceil(polygon.max(0)).astype(int) + 3, (width, height))
        if (high <= low).any():
            return
        part = picture[low[1] : high[1], low[0] : high[0]]
        size = (part.shape[1], part.shape[0])
        corners = np.round((polygon - low) * 2**_SUBPIXEL_BITS).astype(np.int32)
        alpha = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(alpha, [corners], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        x, y, radius, angle = thing.pose(index, width, height)
        matrix = cv2.getRotationMatrix2D(
            (TEXTURE_SIZE / 2, TEXTURE_SIZE / 2), -math.degrees(angle), 2.6 * radius / TEXTURE_SIZE
        )
        matrix[:, 2] += (x - low[0] - TEXTURE_SIZE / 2, y - low[1] - TEXTURE_SIZE / 2)
        surface = cv2.warpAffine(thing.texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if thing.rim is not None:
            thickness = max(1, round(math.sqrt(width * height) / 100))
            rim = [int(level) for level in thing.rim]
            cv2.polylines(surface, [corners], True, rim, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        weight = alpha.astype(np.float32) * (1 / 255)
        part[:] = cv2.blendLinear(surface, part, weight, 1 - weight)


def deepest_point(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(x, y) of the pixel of the mask that is farthest from its border; the frame's edge counts as border."""
    if not mask.any():
        raise ValueError("an empty mask has no deepest point")
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column - 1), float(row - 1)


DEMO = ClipSpec(seed=3_000_000_326, num_frames=150, height=480, width=640, leave_probability=0.0)
"""The demo clip: two objects, one of which hides nine tenths of the other for a while.

The first masks kept frozen score a mean IoU under 0.2, and a tolerance around the first mask's mean colour under 0.4.
"""
