"""One moving thing of a generated clip: its outline, path and surface as closed functions of time.

Owns the geometry of a thing, in units of the frame (centre) and of its square root of area (radius), so that a scene
looks the same at every size. Any thread may use it. Never draws, and never remembers an earlier frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.synthetic.texture import Image, colour, paint, palette, structure

NUM_VERTICES = 64
TEXTURE_SIZE = 128
_THETA = np.linspace(0, 2 * math.pi, NUM_VERTICES, endpoint=False)


@dataclass(frozen=True, slots=True)
class Swing:
    """value(t) = centre + the sum of amplitude * sin(omega t + phase) over two harmonics."""

    centre: float
    amplitude: tuple[float, float]
    omega: tuple[float, float]
    phase: tuple[float, float]

    def at(self, t: float) -> float:
        """The value at frame t."""
        waves = zip(self.amplitude, self.omega, self.phase, strict=True)
        return self.centre + sum(a * math.sin(w * t + p) for a, w, p in waves)


def scaled(swing: Swing, factor: float) -> Swing:
    """The same swing of so many times the size."""
    low, high = swing.amplitude
    return replace(swing, centre=swing.centre * factor, amplitude=(low * factor, high * factor))


def draw_swing(
    rng: np.random.Generator, centre: float, amplitude: float, *, period: tuple[float, float], speed: float
) -> Swing:
    """A random swing about `centre`; the second harmonic has a third of the amplitude and about half the period."""
    first = 2 * math.pi * speed / rng.uniform(*period)
    second = first * rng.uniform(1.5, 2.3)
    phase = (float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0, 2 * math.pi)))
    return Swing(centre, (amplitude, amplitude / 3), (first, second), phase)


@dataclass(frozen=True, slots=True)
class Thing:
    """A textured shape. Immutable; every method is a function of the frame index."""

    outline: NDArray[np.float64]
    """Radius per vertex, at most about 1."""
    wobble: tuple[tuple[int, Swing], ...]
    x: Swing
    y: Swing
    radius: Swing
    angle: Swing
    spin: float
    texture: Image
    rim: Image | None

    def pose(self, t: float, width: int, height: int) -> tuple[float, float, float, float]:
        """(x, y, radius) in pixels and the angle in radians."""
        radius = self.radius.at(t) * math.sqrt(width * height)
        return self.x.at(t) * width, self.y.at(t) * height, radius, self.angle.at(t) + self.spin * t

    def polygon(self, t: float, width: int, height: int) -> NDArray[np.float64]:
        """The outline's vertices in pixels, (NUM_VERTICES, 2)."""
        x, y, radius, angle = self.pose(t, width, height)
        length = self.outline.copy()
        for lobes, swing in self.wobble:
            length *= 1 + swing.at(t) * np.cos(lobes * _THETA)
        theta = _THETA + angle
        return np.stack([x + radius * length * np.cos(theta), y + radius * length * np.sin(theta)], axis=1)


def _outline(rng: np.random.Generator) -> NDArray[np.float64]:
    kind = rng.choice(["ellipse", "box", "polygon", "star", "blob"])
    aspect = rng.uniform(0.5, 1.0)
    corners = int(rng.integers(3, 7))
    sector = 2 * math.pi / corners
    if kind == "ellipse":
        length = 1 / np.hypot(np.cos(_THETA), np.sin(_THETA) / aspect)
    elif kind == "box":
        length = 1.1 / (np.abs(np.cos(_THETA)) ** 6 + np.abs(np.sin(_THETA) / aspect) ** 6) ** (1 / 6)
    elif kind == "polygon":
        length = 1.15 * math.cos(sector / 2) / np.cos(_THETA % sector - sector / 2)
    elif kind == "star":
        length = (1 + rng.uniform(0.15, 0.4) * np.cos(corners * _THETA)) / 1.15
    else:
        waves = [rng.normal(0, 0.22) / k * np.cos(k * _THETA + rng.uniform(0, 2 * math.pi)) for k in range(1, 6)]
        length = np.clip(1 + np.sum(waves, axis=0), 0.35, 1.5) / 1.1
    return np.asarray(length, np.float64)


def draw_thing(rng: np.random.Generator, *, speed: float, leaves: bool) -> Thing:
    """A random thing; one that leaves swings out of the frame and back."""
    reach = [float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.05, 0.3))]
    if leaves:
        reach[int(rng.integers(2))] = float(rng.uniform(0.5, 0.65))
    centres = [0.5 if r >= 0.5 else float(rng.uniform(0.25, 0.75)) for r in reach]
    axes = [draw_swing(rng, c, r, period=(45, 130), speed=speed) for c, r in zip(centres, reach, strict=True)]
    radius = rng.uniform(0.1, 0.21)
    wobble = tuple((k, draw_swing(rng, 0, rng.uniform(0, 0.12), period=(20, 70), speed=speed)) for k in (2, 3))
    colours = [colour(rng, saturation=(0.25, 1), value=(0.25, 1)) for _ in range(int(rng.integers(2, 4)))]
    surface = paint(structure(rng, TEXTURE_SIZE, cycles=(1.5, 6), plain=0.4), palette(rng, colours))
    return Thing(
        outline=_outline(rng),
        wobble=wobble,
        x=axes[0],
        y=axes[1],
        radius=draw_swing(rng, radius, radius * rng.uniform(0, 0.2), period=(50, 150), speed=speed),
        angle=draw_swing(rng, rng.uniform(0, 6), rng.uniform(0, 0.6), period=(30, 90), speed=speed),
        spin=float(rng.normal(0, 0.03)) * speed,
        texture=surface,
        rim=(colours[0] // 3).astype(np.uint8) if rng.random() < 0.4 else None,
    )
