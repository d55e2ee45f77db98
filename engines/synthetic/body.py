"""Bodies of hard clips: shapes, jointed figures, rods and cut-outs, each as a patch of surface and coverage.

Owns what a body looks like and how it moves; every body is a closed function of the frame index. Any thread may use
it. Never draws on a picture: `engines.synthetic.hard` composes the patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.shape import NUM_VERTICES, TEXTURE_SIZE, Swing, Thing, draw_swing, draw_thing
from engines.synthetic.texture import Image

_SUBPIXEL_BITS = 4
_THETA = np.linspace(0, 2 * math.pi, NUM_VERTICES, endpoint=False)
_STILL = Swing(0.0, (0, 0), (0, 0), (0, 0))
_RIM = 3
"""Pixels around a body that its patch also covers."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A body in the picture: what it covers, from the pixel (left, top) on."""

    left: int
    top: int
    surface: Image
    """(h, w, 3) BGR."""
    cover: Image
    """(h, w), 255 where the body hides all behind it."""


@dataclass(frozen=True, slots=True)
class Limb:
    """A rod that turns about a joint of its body. Lengths are in radii of the body."""

    joint: tuple[float, float]
    length: float
    width: float
    angle: Swing

    def polygon(self, t: float) -> NDArray[np.float64]:
        """A capsule, in the body's own axes."""
        along, across = np.cos(_THETA), np.sin(_THETA)
        reach = self.length * (along > 0) + self.width * along
        turn = self.angle.at(t)
        x = self.joint[0] + reach * math.cos(turn) - self.width * across * math.sin(turn)
        y = self.joint[1] + reach * math.sin(turn) + self.width * across * math.cos(turn)
        return np.stack([x, y], 1)


@dataclass(frozen=True, slots=True)
class Body:
    """A thing that may have limbs, or be a cut-out instead of an outline. Immutable."""

    thing: Thing
    limbs: tuple[Limb, ...] = ()
    cutout: Image | None = None
    """BGRA; takes the place of the outline, and is as wide and high as the outline's circle."""
    stretch: Swing = _STILL
    shear: Swing = _STILL

    def patch(self, t: float, width: int, height: int) -> Patch | None:
        """The body at frame t; None where nothing of it is in the picture."""
        return self._cut_patch(t, width, height) if self.cutout is not None else self._drawn_patch(t, width, height)

    def _drawn_patch(self, t: float, width: int, height: int) -> Patch | None:
        polygons = [self.thing.polygon(t, width, height)]
        x, y, radius, angle = self.thing.pose(t, width, height)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        place = np.array([x, y])
        polygons += [limb.polygon(t) @ turn * radius + place for limb in self.limbs]
        box = _box(np.concatenate(polygons), width, height)
        if box is None:
            return None
        left, top, right, bottom = box
        cover = np.zeros((bottom - top, right - left), np.uint8)
        for polygon in polygons:
            corners = np.round((polygon - np.array([left, top])) * 2**_SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(cover, [corners], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        half = TEXTURE_SIZE / 2
        matrix = cv2.getRotationMatrix2D((half, half), -math.degrees(angle), 2.6 * radius / TEXTURE_SIZE)
        matrix[:, 2] += np.array([x - left - half, y - top - half])
        surface = cv2.warpAffine(self.thing.texture, matrix, cover.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
        return Patch(left, top, np.asarray(surface, np.uint8), cover)

    def _cut_patch(self, t: float, width: int, height: int) -> Patch | None:
        assert self.cutout is not None, "only cut-outs are cut"
        high, wide = self.cutout.shape[:2]
        x, y, radius, angle = self.thing.pose(t, width, height)
        scale = 2 * radius / math.sqrt(high * wide)
        stretch, shear = math.exp(self.stretch.at(t)), self.shear.at(t)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        linear = scale * turn @ np.array([[stretch, shear], [0, 1 / stretch]])
        shift = np.array([x, y]) - linear @ (wide / 2, high / 2)
        corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]]) @ linear.T + shift
        box = _box(corners, width, height)
        if box is None:
            return None
        left, top, right, bottom = box
        matrix = np.column_stack([linear, shift - (left, top)])
        flags = cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
        cut = cv2.warpAffine(self.cutout, matrix, (right - left, bottom - top), flags=flags, borderValue=(0, 0, 0, 0))
        return Patch(left, top, np.ascontiguousarray(cut[..., :3]), np.ascontiguousarray(cut[..., 3]))


def _box(points: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int] | None:
    low = np.maximum(np.floor(points.min(0)).astype(int) - _RIM, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + _RIM, (width, height))
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def draw_body(rng: np.random.Generator, *, speed: float, leaves: bool, textures: tuple[Image, ...] = ()) -> Body:
    """A random body; `textures` are pictures whose parts may be its surface, or cut-outs that may be the body."""
    thing = draw_thing(rng, speed=speed, leaves=leaves)
    cutouts = [texture for texture in textures if texture.shape[2] == 4]
    pictures = [texture for texture in textures if texture.shape[2] == 3]
    thing = replace(thing, radius=_scaled(thing.radius, float(np.exp(rng.uniform(-0.9, 0.45)))))
    kind = str(rng.choice(["shape", "figure", "rod", "soft", "cutout"], p=[0.2, 0.15, 0.1, 0.15, 0.4]))
    if kind == "cutout" and cutouts:
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        calm = replace(thing, spin=thing.spin * float(rng.random() < 0.3))
        bend = [draw_swing(rng, 0, rng.uniform(0, 0.15), period=(15, 60), speed=speed) for _ in range(2)]
        return Body(calm, cutout=cutout, stretch=bend[0], shear=bend[1])
    if pictures and rng.random() < 0.3:
        thing = replace(thing, texture=_crop(rng, pictures[int(rng.integers(len(pictures)))]))
    if kind == "rod":
        width = float(rng.uniform(0.08, 0.22))
        length = 1 / np.hypot(np.cos(_THETA), np.sin(_THETA) / width)
        return Body(replace(thing, outline=length, wobble=(), radius=_scaled(thing.radius, 1.7)))
    if kind == "soft":
        lobes = tuple(
            (k, draw_swing(rng, rng.normal(0, 0.1), rng.uniform(0.08, 0.3) / k**0.5, period=(12, 60), speed=speed))
            for k in (1, 2, 3, 4, 5)
        )
        return Body(replace(thing, wobble=lobes))
    limbs = tuple(_draw_limb(rng, speed) for _ in range(int(rng.integers(2, 6)))) if kind == "figure" else ()
    return Body(thing, limbs)


def _draw_limb(rng: np.random.Generator, speed: float) -> Limb:
    place, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.8)
    swing = draw_swing(rng, place, rng.uniform(0.1, 0.9), period=(12, 60), speed=speed)
    joint = (float(reach * math.cos(place)), float(reach * math.sin(place)))
    return Limb(joint, float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.08, 0.25)), swing)


def _scaled(swing: Swing, factor: float) -> Swing:
    return replace(
        swing, centre=swing.centre * factor, amplitude=(swing.amplitude[0] * factor, swing.amplitude[1] * factor)
    )


def _crop(rng: np.random.Generator, picture: Image) -> Image:
    side = min(int(rng.integers(48, 160)), *picture.shape[:2])
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    crop = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(crop, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_LINEAR), np.uint8)
