"""`enhanced`: a picture as the model is to see it: less noise, more light.

Owns: both steps. Pure; the worker's thread, or whoever follows objects in a file. Never: changes the picture that it is
given, or its size, so that prompts and masks need no mapping; remembers one picture for the next.

Both are off by default. Measured on generated clips with the nano model (`benchmarks/enhance.py`): light helps very
much where a picture is dark; denoising helps much against coarse grain, while fine noise is averaged away in the
model's own small picture anyway. What did not help is not here: holding a shaking picture still (the masks got worse),
averaging in time, bilateral filters (no better than a blur, and slower), and local contrast (CLAHE).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.config import EnhanceOptions

Image = NDArray[np.uint8]

BRIGHT = 230  # grey level that a dark picture's brightest parts are lifted to
DARK, LIT = 64, 160  # up to the first of these levels there it is dark, and from the second on not at all
PERCENTILE = 98
MAX_GAIN = 32.0
SAMPLE_STEP = 8  # of the pixels that are looked at for brightness
BLUR = 1 / 128  # of the picture's width, with denoise = 1


@dataclass(frozen=True, slots=True)
class Enhancer:
    """`enhanced` with these options."""

    options: EnhanceOptions

    def apply(self, image_hwc: Image) -> Image:
        return enhanced(image_hwc, self.options)


def enhanced(image_hwc: Image, options: EnhanceOptions) -> Image:
    """uint8 (height, width, 3); the very same array where nothing is to be done."""
    image = lifted(image_hwc, options.low_light) if options.low_light else image_hwc
    return denoised(image, options.denoise) if options.denoise else image


def lifted(image_hwc: Image, strength: float) -> Image:
    """A dark picture with more light: all levels times one factor, which is 1 for a picture with bright parts."""
    sample = image_hwc[::SAMPLE_STEP, ::SAMPLE_STEP].max(axis=2)
    bright = max(float(np.percentile(sample, PERCENTILE)), 1.0)
    is_dark = min(max((LIT - bright) / (LIT - DARK), 0.0), 1.0)
    gain = min(1 + strength * is_dark * (BRIGHT / bright - 1), MAX_GAIN)
    return image_hwc if gain == 1 else np.asarray(cv2.convertScaleAbs(image_hwc, alpha=gain), np.uint8)


def denoised(image_hwc: Image, strength: float) -> Image:
    """Details that are smaller than what the model sees are blurred."""
    sigma = strength * BLUR * image_hwc.shape[1]
    return np.asarray(cv2.GaussianBlur(image_hwc, (0, 0), sigma), np.uint8) if sigma >= 0.3 else image_hwc
