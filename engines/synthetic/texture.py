"""Surface of generated things: grey structures (stripes, checks, noise, ...) coloured through a palette.

Owns the look of objects and backgrounds. Pure functions of a random generator, any thread. Never draws on a frame.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def _noise(rng: np.random.Generator, size: int, *, first_octave: int) -> NDArray[np.float32]:
    out = np.zeros((size, size), np.float32)
    for power in range(first_octave, first_octave + 4):
        cells = 2**power
        octave = rng.random((cells, cells), dtype=np.float32) - 0.5
        out += cv2.resize(octave, (size, size), interpolation=cv2.INTER_CUBIC) / (power - first_octave + 1)
    return out


def _wave(rng: np.random.Generator, size: int, *, cycles: tuple[float, float], kind: str) -> NDArray[np.float32]:
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    angle = rng.uniform(0, math.pi)
    omega = 2 * math.pi * rng.uniform(*cycles)
    along = omega * (x * math.cos(angle) + y * math.sin(angle))
    across = omega * (y * math.cos(angle) - x * math.sin(angle))
    if kind == "stripes":
        field = np.sin(along + rng.uniform(0, 6))
    elif kind == "checks":
        field = np.sin(along) * np.sin(across)
    elif kind == "dots":
        field = np.cos(along) + np.cos(across)
    elif kind == "rings":
        field = np.sin(omega * np.hypot(x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2)))
    else:
        field = np.sin(along + 6 * _noise(rng, size, first_octave=1))  # marble
    return np.asarray(field, np.float32)


def structure(rng: np.random.Generator, size: int, *, cycles: tuple[float, float], plain: float) -> Image:
    """A grey square picture; `cycles` is the range of periods across it, `plain` the share of noise and gradients."""
    if rng.random() < plain:
        field = _noise(rng, size, first_octave=int(rng.integers(1, 4)))
    else:
        kind = str(rng.choice(["stripes", "checks", "dots", "rings", "marble"]))
        field = _wave(rng, size, cycles=cycles, kind=kind)
    low, high = float(field.min()), float(field.max())
    return np.asarray(cv2.convertScaleAbs(field - low, alpha=255 / (high - low)), np.uint8)


def colour(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> Image:
    """One random BGR colour."""
    hsv = np.array([[[rng.uniform(0, 180), 255 * rng.uniform(*saturation), 255 * rng.uniform(*value)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0], np.uint8)


def palette(rng: np.random.Generator, colours: list[Image]) -> Image:
    """A (256, 1, 3) look-up table through the colours: soft ramps, or hard steps half of the time."""
    sharpness = 1.0 if rng.random() < 0.5 else 6.0
    place = np.linspace(0, len(colours) - 1, 256)
    left = np.minimum(place.astype(int), len(colours) - 2)
    blend = np.clip((place - left - 0.5) * sharpness + 0.5, 0, 1)[:, None]
    table = np.stack(colours).astype(np.float64)
    return np.asarray(table[left] * (1 - blend) + table[left + 1] * blend, np.uint8)[:, None]


def paint(grey: Image, table: Image) -> Image:
    """Colour a grey structure with a palette: (H, W) -> (H, W, 3)."""
    return np.asarray(cv2.LUT(cv2.merge([grey, grey, grey]), table), np.uint8)


def crop(rng: np.random.Generator, picture: Image, size: int) -> Image:
    """A random square of a picture, as a texture of `size` pixels."""
    side = min(int(rng.integers(48, 160)), *picture.shape[:2])
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    part = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
