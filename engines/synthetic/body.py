"""Bodies of hard clips: an outline with limbs, or a cut-out, as a patch of surface and coverage.

Owns how a body moves and what it covers; every body is a closed function of the frame index. Any thread may use it.
Never draws by chance (`engines.synthetic.casting` does) nor on a picture (`engines.synthetic.hard` composes patches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.shape import NUM_VERTICES, TEXTURE_SIZE, Swing, Thing
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
    """A part that turns about a joint of its body, or about the end of another limb, from a disc to a rod.

    Lengths are in radii of the body; the joint and the angle of a limb that hangs on another count from that one's end.
    """

    joint: tuple[float, float]
    length: float
    width: float
    angle: Swing
    texture: Image | None = None
    """None: the body's surface goes on."""
    hangs_on: Limb | None = None

    def turn(self, t: float) -> float:
        """Its angle in the body's own axes."""
        return self.angle.at(t) + (self.hangs_on.turn(t) if self.hangs_on else 0.0)

    def root(self, t: float) -> tuple[float, float]:
        """Where it begins."""
        x, y = self.hangs_on.tip(t) if self.hangs_on else (0.0, 0.0)
        return self.joint[0] + x, self.joint[1] + y

    def tip(self, t: float) -> tuple[float, float]:
        """Where it ends."""
        (x, y), turn = self.root(t), self.turn(t)
        return x + self.length * math.cos(turn), y + self.length * math.sin(turn)

    def polygon(self, t: float) -> NDArray[np.float64]:
        """A capsule, in the body's own axes."""
        along, across = np.cos(_THETA), np.sin(_THETA)
        reach = self.length * (along > 0) + self.width * along
        (left, top), turn = self.root(t), self.turn(t)
        x = left + reach * math.cos(turn) - self.width * across * math.sin(turn)
        y = top + reach * math.sin(turn) + self.width * across * math.cos(turn)
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
        size, place = (right - left, bottom - top), np.array([left, top])
        cover = np.zeros(size[::-1], np.uint8)
        surface = _surface(self.thing.texture, (x - left, y - top, radius, angle), size)
        for number, polygon in enumerate(polygons):
            corners = [np.round((polygon - place) * 2**_SUBPIXEL_BITS).astype(np.int32)]
            cv2.fillPoly(cover, corners, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
            texture = self.limbs[number - 1].texture if number else None
            if texture is None:
                continue
            part = np.zeros(size[::-1], np.uint8)
            cv2.fillPoly(part, corners, 255, cv2.LINE_8, _SUBPIXEL_BITS)
            middle = polygon.mean(0) - place
            turned = angle + self.limbs[number - 1].turn(t)
            cv2.copyTo(_surface(texture, (middle[0], middle[1], radius, turned), size), part, surface)
        return Patch(left, top, surface, cover)

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


def _surface(texture: Image, pose: tuple[float, float, float, float], size: tuple[int, int]) -> Image:
    """A texture laid out at (x, y), so many pixels in radius and turned, over a patch of (width, height)."""
    x, y, radius, angle = pose
    half = TEXTURE_SIZE / 2
    matrix = cv2.getRotationMatrix2D((half, half), -math.degrees(angle), 2.6 * radius / TEXTURE_SIZE)
    matrix[:, 2] += np.array([x - half, y - half])
    return np.asarray(cv2.warpAffine(texture, matrix, size, borderMode=cv2.BORDER_REFLECT_101), np.uint8)
