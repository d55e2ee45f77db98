"""Hard clips for training: bodies that deform or have parts, cut-outs, look-alikes, long occlusions, bad optics.

Owns the scene and its rendering; like `SyntheticClip` a closed function of (spec, frame index). The easy clips of
`engines.synthetic.clip` stay as they are: the demo, tests and published figures are made of them. Any thread may
render. Never reads a file: cut-outs and pictures are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.body import Body, Patch
from engines.synthetic.casting import draw_body
from engines.synthetic.optics import blurred, cast_shadow, compressed, draw_optics, expose, glisten, smear
from engines.synthetic.shape import TEXTURE_SIZE, Swing, draw_swing
from engines.synthetic.texture import Image, colour, paint, palette, structure

MIN_VISIBLE_SHARE = 0.0015
"""Every object shows at least this share of the frame in frame 0."""
_MAX_DRAWS = 60
_MARGIN = 1.4
"""The background picture is this many times as large as the frame."""


@dataclass(frozen=True, slots=True)
class HardSpec:
    """Everything a hard clip is made from, apart from the textures handed in. Equal specs give equal pixels."""

    seed: int
    num_frames: int = 60
    height: int = 256
    width: int = 256
    num_objects: int = 3
    speed: float = 1.0
    leave_probability: float = 0.25
    noise: float = 4.0


class HardClip:
    """A clip with known truth. Immutable after construction."""

    def __init__(self, spec: HardSpec, textures: tuple[Image, ...] = ()) -> None:
        self.spec = spec
        rng = np.random.default_rng((spec.seed, 77))
        self._optics = draw_optics(rng)
        self._lamp = (float(rng.uniform(0, spec.width)), float(rng.uniform(0, spec.height)))
        self._bodies, self._order = self._draw_bodies(rng, textures)
        self._background = blurred(self._draw_background(rng, textures), self._optics.depth)
        shake = rng.uniform(0, 0.02) * (rng.random() < 0.4)
        swings = [draw_swing(rng, 0, a, period=(80, 220), speed=spec.speed) for a in (0.1, 0.1, 0.15, 0.06)]
        self._camera = (*swings, *(draw_swing(rng, 0, shake, period=(3, 9), speed=1) for _ in range(2)))
        self._gain = Swing(1.0, (rng.uniform(0, 0.12), 0.02), (rng.uniform(0.02, 0.3), rng.uniform(0.2, 0.6)), (0, 0))
        self._noise = np.asarray(rng.normal(0, spec.noise, (spec.height + 16, spec.width + 16, 3)), np.int16)

    def show(self, index: int) -> tuple[Image, NDArray[np.bool_]]:
        """Picture (height, width, 3) and the visible part of each object (num_objects, height, width)."""
        spec = self.spec
        patches = {number: self._patch(number, index) for number in self._order}
        picture = self._view(index)
        for number in self._order:
            patch = patches[number]
            if patch is not None:
                self._compose(picture, patch, self._motion(number, index))
        picture = expose(np.asarray(cv2.convertScaleAbs(picture, alpha=self._gain.at(index)), np.uint8), self._optics)
        dy, dx = np.random.default_rng((spec.seed, index)).integers(0, 16, 2)
        grain = self._noise[dy : dy + spec.height, dx : dx + spec.width]
        noisy = np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), np.uint8)
        return compressed(noisy, self._optics.quality), self._visible(patches)

    def frame(self, index: int) -> Image:
        """The picture at `index`."""
        return self.show(index)[0]

    def masks(self, index: int) -> NDArray[np.bool_]:
        """The visible part of each object."""
        return self._visible({number: self._patch(number, index) for number in self._order})

    def _patch(self, number: int, index: int) -> Patch | None:
        return self._bodies[number].patch(index, self.spec.width, self.spec.height)

    def _motion(self, number: int, index: int) -> tuple[float, float]:
        thing, size = self._bodies[number].thing, (self.spec.width, self.spec.height)
        before, after = thing.pose(index - 0.5, *size), thing.pose(index + 0.5, *size)
        return (after[0] - before[0]) * self._optics.shutter, (after[1] - before[1]) * self._optics.shutter

    def _compose(self, picture: Image, patch: Patch, motion: tuple[float, float]) -> None:
        cast_shadow(picture, patch, self._optics)
        if self._optics.glint:
            glisten(patch, self._lamp, self._optics.glint)
        patch = smear(patch, motion)
        height, width = patch.cover.shape
        part = picture[patch.top : patch.top + height, patch.left : patch.left + width]
        weight = patch.cover.astype(np.float32) * (1 / 255)
        part[:] = cv2.blendLinear(patch.surface, part, weight, 1 - weight)

    def _visible(self, patches: dict[int, Patch | None]) -> NDArray[np.bool_]:
        spec = self.spec
        visible = np.zeros((len(self._bodies), spec.height, spec.width), np.bool_)
        covered = np.zeros((spec.height, spec.width), np.bool_)
        for number in reversed(self._order):
            patch = patches[number]
            if patch is None:
                continue
            height, width = patch.cover.shape
            place = slice(patch.top, patch.top + height), slice(patch.left, patch.left + width)
            body = patch.cover > 127
            visible[number][place] = body & ~covered[place]
            covered[place] |= body
        return visible[: spec.num_objects]

    def _draw_bodies(self, rng: np.random.Generator, textures: tuple[Image, ...]) -> tuple[list[Body], list[int]]:
        spec = self.spec
        for _ in range(_MAX_DRAWS):
            self._bodies = [self._draw_object(rng, textures) for _ in range(spec.num_objects)]
            self._bodies += self._draw_others(rng, textures)
            self._order = [int(number) for number in rng.permutation(len(self._bodies))]
            if self.masks(0).mean((1, 2)).min(initial=1) >= MIN_VISIBLE_SHARE:
                return self._bodies, self._order
        raise ValueError(f"no scene with {spec.num_objects} visible objects after {_MAX_DRAWS} draws, seed {spec.seed}")

    def _draw_object(self, rng: np.random.Generator, textures: tuple[Image, ...]) -> Body:
        leaves = bool(rng.random() < self.spec.leave_probability)
        return draw_body(rng, speed=self.spec.speed, leaves=leaves, textures=textures)

    def _draw_others(self, rng: np.random.Generator, textures: tuple[Image, ...]) -> list[Body]:
        """Look-alikes of the first object, other bodies, and now and then a pillar that hides much for long."""
        others = [self._draw_object(rng, textures) for _ in range(int(rng.integers(0, 3)))]
        if rng.random() < 0.35:
            twin, path = self._bodies[0], self._draw_object(rng, textures).thing
            moved = replace(twin.thing, x=path.x, y=path.y, angle=path.angle, spin=path.spin)
            others.append(replace(twin, thing=moved))
        if rng.random() < 0.25:
            pillar = draw_body(rng, speed=0.3 * self.spec.speed, leaves=False)
            wide = replace(pillar.thing.radius, centre=pillar.thing.radius.centre * 1.6)
            others.append(replace(pillar, thing=replace(pillar.thing, radius=wide)))
        return others

    def _draw_background(self, rng: np.random.Generator, textures: tuple[Image, ...]) -> Image:
        size = (round(self.spec.width * _MARGIN), round(self.spec.height * _MARGIN))
        pictures = [texture for texture in textures if texture.shape[2] == 3]
        if pictures and rng.random() < 0.75:
            picture = pictures[int(rng.integers(len(pictures)))]
            zoom = rng.uniform(0.5, 1.0)
            high, wide = (max(int(extent * zoom), 32) for extent in picture.shape[:2])
            top, left = int(rng.integers(picture.shape[0] - high + 1)), int(rng.integers(picture.shape[1] - wide + 1))
            canvas = cv2.resize(picture[top : top + high, left : left + wide], size, interpolation=cv2.INTER_LINEAR)
        else:
            colours = [colour(rng, saturation=(0, 0.7), value=(0.1, 0.95)) for _ in range(int(rng.integers(2, 5)))]
            grey = structure(rng, 2 * TEXTURE_SIZE, cycles=(3, 20), plain=0.6)
            canvas = cv2.resize(paint(grey, palette(rng, colours)), size, interpolation=cv2.INTER_LINEAR)
        for _ in range(int(rng.integers(0, 9)) if rng.random() < 0.6 else 0):
            patch = draw_body(rng, speed=0.0, leaves=False, textures=textures).patch(0, *size)
            if patch is not None:
                self._compose(np.asarray(canvas, np.uint8), patch, (0.0, 0.0))
        return np.asarray(canvas, np.uint8)

    def _view(self, index: int) -> Image:
        spec = self.spec
        across, down, turn, zoom, jerk_x, jerk_y = (swing.at(index) for swing in self._camera)
        centre = (spec.width * _MARGIN / 2, spec.height * _MARGIN / 2)
        matrix = cv2.getRotationMatrix2D(centre, math.degrees(turn), 1.05 + zoom)
        matrix[0, 2] += spec.width * (0.5 + across + jerk_x) - centre[0]
        matrix[1, 2] += spec.height * (0.5 + down + jerk_y) - centre[1]
        size = (spec.width, spec.height)
        view = cv2.warpAffine(self._background, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(view, np.uint8)
