"""Two ways to segment without a tracker, which the demo's figures stand beside.

Owns: the frozen first mask and the colour threshold. Runs in the demo's main thread. Never: sees a picture's truth
other than the first one's, except to choose the tolerance that is best for the threshold.

The colour threshold knows more than the tracker does: an object's whole true mask in the first picture instead of one
click, and for each object the tolerance out of `TOLERANCES` that turns out best. A pixel belongs to the object where
each channel of Lab is within that many standard deviations of the mean inside the mask.

It is a threshold, not the most that colour can do: a histogram with 32 bins a channel, fitted to the first picture's
true masks, reaches a mean IoU of 0.94 on the demo clip, whose objects have colours of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Image = NDArray[np.uint8]
Compare = Callable[[Bools, Bools], float]

TOLERANCES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
MIN_SPREAD = 2.0  # grey levels: an object of one colour still has noise


class ColourThreshold:
    """One object, on pictures in Lab. Written by the thread that scores."""

    def __init__(self, lab_hwc: Image, mask_hw: Bools) -> None:
        pixels = lab_hwc[mask_hw].astype(np.float64)
        self._mean, self._spread = pixels.mean(0), np.maximum(pixels.std(0), MIN_SPREAD)
        self._sums = np.zeros(len(TOLERANCES))
        self._num_scored = 0

    def segment(self, lab_hwc: Image, tolerance: float) -> Bools:
        """The object's pixels by colour alone."""
        reach = tolerance * self._spread
        inside = cv2.inRange(lab_hwc, self._mean - reach, self._mean + reach)
        return np.asarray(inside, np.uint8).view(np.bool_)

    def score(self, lab_hwc: Image, truth_hw: Bools, compare: Compare) -> None:
        """Note how well each tolerance does on a picture."""
        self._sums += [compare(self.segment(lab_hwc, tolerance), truth_hw) for tolerance in TOLERANCES]
        self._num_scored += 1

    @property
    def best_mean(self) -> float:
        """Of the best tolerance, over the pictures so far."""
        return float(self._sums.max() / self._num_scored)


def to_lab(image_hwc: Image) -> Image:
    """A BGR picture in OpenCV's 8-bit Lab."""
    return np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_BGR2LAB), np.uint8)
