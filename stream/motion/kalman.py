"""`BoxFilter`: a Kalman filter on the place and the size of one object, at constant speed.

Owns: the arithmetic. Values only, any thread. Never: knows what a mask is.

The state is centre x and y with their speeds, and the logarithms of width and height, which wander: a size that is
growing is more often a mask that spreads than an object that comes closer. Positions are shares of the picture's width
and height, time is counted in frames. Noise is proportional to the object's size, as in SORT and its successors, so the
four coordinates do not depend on each other and each is a filter of two numbers. While the object is
not seen its speed fades, and it stays near the picture: who left comes back where he left.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEASURE_NOISE = 0.08  # of a centre, in sizes of the object; of a size, in parts of it
SPEED_NOISE = 0.03  # by how much the speed may change from frame to frame, in the same units
AGILITY = 0.2  # ... and by what share of itself: who is fast turns fast
SIZE_NOISE = 0.06  # by how much the logarithm of a size changes from frame to frame
FIRST_SPEED_NOISE = 0.5
FADE = 0.97  # of the speed, in every frame without a sight of the object
MIN_SIZE = 1e-3
CALMING = 0.2  # the newest surprise's part in `unrest`
USUAL_AWAY = 0.2  # sizes
USUAL_GROWTH = 0.4  # of the logarithm of an area
_STEP = np.array([[1.0, 1.0], [0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mask is: centre and extent, as shares of the picture's width and height."""

    x: float
    y: float
    width: float
    height: float

    def vector(self) -> Floats:
        """What the filter measures."""
        width, height = max(self.width, MIN_SIZE), max(self.height, MIN_SIZE)
        return np.array([self.x, self.y, np.log(width), np.log(height)])


@dataclass(frozen=True, slots=True)
class BoxFilter:
    """Immutable; `predict` and `update` make the next one."""

    mean_42: Floats  # coordinate: value, speed
    covariance_422: Floats
    unrest: float = 0.2  # how many sizes it usually was from where it was expected

    @classmethod
    def start(cls, place: Place) -> BoxFilter:
        """At rest, with little knowledge of the speed."""
        mean = np.stack([place.vector(), np.zeros(4)], axis=1)
        scale = _scales(mean)
        covariance = np.zeros((4, 2, 2))
        covariance[:, 0, 0] = (MEASURE_NOISE * scale) ** 2
        covariance[:2, 1, 1] = (FIRST_SPEED_NOISE * scale[:2]) ** 2  # a size has no speed
        return cls(mean, covariance)

    @property
    def place(self) -> Place:
        x, y, width, height = self.mean_42[:, 0]
        return Place(float(x), float(y), float(np.exp(width)), float(np.exp(height)))

    @property
    def speed(self) -> tuple[float, float]:
        """Of the centre, in shares of the picture's width and height a frame."""
        return float(self.mean_42[0, 1]), float(self.mean_42[1, 1])

    @property
    def strides(self) -> float:
        """How many of its own sizes the object moves in a frame."""
        place, (right, down) = self.place, self.speed
        return float(np.hypot(right / place.width, down / place.height))

    def predict(self) -> BoxFilter:
        """One frame later."""
        agility = SPEED_NOISE + AGILITY * self.strides
        noise = agility * _scales(self.mean_42)[:2]
        mean = self.mean_42 @ _STEP.T
        covariance = _STEP @ self.covariance_422 @ _STEP.T
        covariance[:2, 1, 1] += noise**2
        covariance[:2, 0, 0] += noise**2 / 4
        covariance[2:, 0, 0] += SIZE_NOISE**2
        return BoxFilter(mean, covariance, self.unrest)

    def update(self, place: Place, *, doubt: float = 1.0, is_whole: bool = True) -> BoxFilter:
        """After it was seen there, with `doubt` times as much noise of the place; what is not whole says nothing of its
        size.
        """
        noise = (MEASURE_NOISE * _scales(self.mean_42)) ** 2
        noise[:2] *= doubt**2
        if not is_whole:
            noise[2:] = np.inf
        total = self.covariance_422[:, 0, 0] + noise
        gain_42 = self.covariance_422[:, :, 0] / total[:, None]
        surprise = place.vector() - self.mean_42[:, 0]
        mean = self.mean_42 + gain_42 * surprise[:, None]
        covariance = self.covariance_422 - gain_42[:, :, None] * self.covariance_422[:, None, 0, :]
        unrest = self.unrest + CALMING * (min(self.away(place), 1.0) - self.unrest)
        return BoxFilter(mean, covariance, unrest)

    def miss(self) -> BoxFilter:
        """After it was not seen."""
        mean = self.mean_42.copy()
        mean[:2, 1] *= FADE
        mean[:2, 0] = np.clip(mean[:2, 0], -0.05, 1.05)
        return dataclasses.replace(self, mean_42=mean)

    def moved(self, matrix_23: Floats) -> BoxFilter:
        """In the coordinates of a camera that has moved: old places times this matrix are new ones."""
        turn, shift = matrix_23[:, :2], matrix_23[:, 2]
        mean = self.mean_42.copy()
        mean[:2, 0] = turn @ mean[:2, 0] + shift
        mean[:2, 1] = turn @ mean[:2, 1]
        mean[2:, 0] += 0.5 * np.log(max(abs(float(np.linalg.det(turn))), 1e-6))
        return dataclasses.replace(self, mean_42=mean)

    def distance(self, place: Place) -> float:
        """How surprising the centre would be, in standard deviations."""
        spread = self.covariance_422[:2, 0, 0] + (MEASURE_NOISE * _scales(self.mean_42)[:2]) ** 2
        surprise = place.vector()[:2] - self.mean_42[:2, 0]
        return float(np.sqrt((surprise**2 / spread).sum()))

    def restart(self, place: Place, *, is_whole: bool) -> BoxFilter:
        """Seen again, far from where it was expected."""
        if not is_whole:
            known = self.place
            place = Place(place.x, place.y, max(place.width, known.width), max(place.height, known.height))
        return dataclasses.replace(BoxFilter.start(place), unrest=self.unrest)

    def fit(self, place: Place) -> float:
        """How well centre and size agree with what was expected, 0 to 1; 1 within what is usual for this object."""
        wanted = self.place
        growth = abs(float(np.log(place.width * place.height / (wanted.width * wanted.height))))
        off = max(0.0, self.away(place) - USUAL_AWAY - self.unrest) / USUAL_AWAY
        grown = max(0.0, growth - USUAL_GROWTH) / USUAL_GROWTH
        return float(np.exp(-0.5 * (off**2 + grown**2)))

    def away(self, place: Place) -> float:
        """How many of its own sizes the place is from where the object was expected."""
        wanted = self.place
        return float(np.hypot((place.x - wanted.x) / wanted.width, (place.y - wanted.y) / wanted.height))


def _scales(mean_42: Floats) -> Floats:
    """The unit of noise of each coordinate: for centres the object's mean size, for logarithms of sizes 1."""
    size = np.exp(mean_42[2:, 0].mean())
    return np.array([size, size, 1.0, 1.0])
