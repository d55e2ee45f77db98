"""A generated clip of two equal discs on one path, one behind the other: when the first has moved twice its own width,
the second is where the first one was.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import ClipSpec, SyntheticClip

SIZE, RADIUS, STEP = 256, 20, 5
OWN_WIDTH = 2 * RADIUS // STEP  # frames in which a disc moves by its own width
BEHIND = 4.0 * RADIUS  # pixels from one disc's middle to the other's
Masks2 = NDArray[np.bool_]


class Convoy:
    """Disc 0 leads, disc 1 follows."""

    def __init__(self, seed: int = 7) -> None:
        scene = SyntheticClip(ClipSpec(seed=seed, height=SIZE, width=SIZE, num_objects=0, num_distractors=0, noise=2.0))
        self._background = scene.frame(0)

    def center(self, disc: int, index: int) -> tuple[float, float]:
        return 70.0 + STEP * index - BEHIND * disc, 120.0

    def frame(self, index: int) -> NDArray[np.uint8]:
        picture = self._background.copy()
        for disc in (1, 0):
            x, y = (round(value) for value in self.center(disc, index))
            cv2.circle(picture, (x, y), RADIUS, (40, 60, 220), -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y), RADIUS // 2, (60, 220, 240), -1, cv2.LINE_AA)
        grain = np.random.default_rng(index).normal(0, 2, picture.shape)
        return np.clip(picture + grain, 0, 255).astype(np.uint8)

    def mask(self, disc: int, index: int) -> Masks2:
        ys, xs = np.mgrid[:SIZE, :SIZE]
        x, y = self.center(disc, index)
        return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= RADIUS**2)


def iou(one: Masks2, other: Masks2) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
