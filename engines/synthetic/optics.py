"""What light and a camera do to a generated picture: shadows, glints, blur, darkness, compression.

Owns the effects of hard clips and their drawing by chance. Pure functions, any thread. Never moves anything: the truth
of a picture stays true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engines.synthetic.body import Patch
from engines.synthetic.texture import Image


@dataclass(frozen=True, slots=True)
class Optics:
    """How one clip is lit and filmed; 0 is without."""

    shadow: tuple[float, float] = (0.0, 0.0)
    """Shift of shadows, in parts of the picture's side."""
    darkness: float = 0.0
    glint: float = 0.0
    """Brightness of reflections, in grey levels."""
    shutter: float = 0.0
    """Share of a frame's time for which moving bodies smear."""
    softness: float = 0.0
    """Sigma of the defocus of the whole picture, at 256 pixels."""
    depth: float = 0.0
    """Sigma of the background's defocus."""
    gamma: float = 1.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: tuple[float, float] = (0.0, 0.0)
    """Light that falls off across the picture."""
    quality: int = 100
    """Of JPEG compression; 100 is none."""


def draw_optics(rng: np.random.Generator) -> Optics:
    """Each effect in a third of the clips or so."""
    some = rng.random(8) < 0.35
    direction = rng.uniform(0, 2 * math.pi)
    return Optics(
        shadow=(0.04 * math.cos(direction), 0.04 * math.sin(direction)),
        darkness=float(some[0] * rng.uniform(0.2, 0.6)),
        glint=float(some[1] * rng.uniform(30, 120)),
        shutter=float(some[2] * rng.uniform(0.3, 1.0)),
        softness=float(some[3] * rng.uniform(0.4, 1.5)),
        depth=float(some[4] * rng.uniform(0.8, 4)),
        gamma=float(np.exp(some[5] * rng.uniform(-0.5, 0.8))),
        cast=_rgb(np.exp(some[6] * rng.uniform(-0.2, 0.2, 3))),
        slope=(float(some[6] * rng.uniform(-0.4, 0.4)), float(some[6] * rng.uniform(-0.4, 0.4))),
        quality=int(rng.integers(20, 80)) if some[7] else 100,
    )


def _rgb(values: np.typing.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def blurred(picture: Image, sigma: float) -> Image:
    """Defocus; sigma counts at 256 pixels."""
    sigma *= math.sqrt(picture.shape[0] * picture.shape[1]) / 256
    return picture if sigma < 0.2 else np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def cast_shadow(picture: Image, patch: Patch, optics: Optics) -> None:
    """Darken, in place, what lies behind a body on the side away from the light."""
    if not optics.darkness:
        return
    height, width = picture.shape[:2]
    shift = np.round(np.array(optics.shadow) * math.sqrt(width * height)).astype(int)
    soft = cv2.GaussianBlur(patch.cover, (0, 0), max(abs(shift).max() / 3, 0.8))
    left, top = patch.left + shift[0], patch.top + shift[1]
    low = (max(left, 0), max(top, 0))
    high = (min(left + soft.shape[1], width), min(top + soft.shape[0], height))
    if low[0] >= high[0] or low[1] >= high[1]:
        return
    part = picture[low[1] : high[1], low[0] : high[0]]
    shade = soft[low[1] - top : high[1] - top, low[0] - left : high[0] - left]
    light = cv2.merge([cv2.convertScaleAbs(255 - optics.darkness * shade.astype(np.float32))] * 3)
    part[:] = cv2.multiply(part, light, scale=1 / 255)


def glisten(patch: Patch, place: tuple[float, float], strength: float) -> None:
    """A soft bright spot, in place, that stays where the light is while the body moves beneath."""
    height, width = patch.cover.shape
    x = (np.arange(width, dtype=np.float32) + patch.left - place[0])[None]
    y = (np.arange(height, dtype=np.float32) + patch.top - place[1])[:, None]
    spread = 0.1 * (width + height) + 4
    spot = strength * np.exp(-(x * x + y * y) / (2 * spread * spread))
    patch.surface[:] = cv2.add(patch.surface, cv2.merge([spot] * 3), dtype=cv2.CV_8U)


def smear(patch: Patch, motion: tuple[float, float]) -> Patch:
    """Motion blur of a body that moves so many pixels while the shutter is open; the truth is the middle."""
    length = math.hypot(*motion)
    if length < 1.5:
        return patch
    size = min(int(length) | 1, 31)
    kernel = np.zeros((size, size), np.float32)
    half = np.array(motion) / length * (size // 2)
    middle = size // 2
    ends = [tuple(round(middle + sign * value) for value in half) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    kernel /= kernel.sum()
    cover = cv2.filter2D(patch.cover, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    surface = cv2.filter2D(patch.surface, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return Patch(patch.left, patch.top, np.asarray(surface, np.uint8), np.asarray(cover, np.uint8))


def expose(picture: Image, optics: Optics) -> Image:
    """Light, colour and focus of the whole picture."""
    if optics.gamma != 1 or optics.cast != (1.0, 1.0, 1.0):
        levels = (np.arange(256) / 255) ** optics.gamma
        table = np.stack([np.clip(255 * levels * gain, 0, 255) for gain in optics.cast], 1).astype(np.uint8)
        picture = np.asarray(cv2.LUT(picture, table[None]), np.uint8)
    if optics.slope != (0.0, 0.0):
        height, width = picture.shape[:2]
        down = 1 + optics.slope[1] * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        across = 1 + optics.slope[0] * np.linspace(-1, 1, width, dtype=np.float32)[None]
        light = cv2.merge([np.asarray(down * across, np.float32)] * 3)
        picture = np.asarray(cv2.multiply(picture, light, dtype=cv2.CV_8U), np.uint8)
    return blurred(picture, optics.softness)


def compressed(picture: Image, quality: int) -> Image:
    """What JPEG leaves of a picture."""
    if quality >= 100:
        return picture
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
