"""Clips of a look that `engines.synthetic` does not have: an object whose stripes have the colours of the ground's and
only run another way. For the tests of fine-tuning.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.masksets import DavisWriter

HEIGHT, WIDTH, PERIOD = 144, 192, 9.0
Clip = tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]


def draw_clip(seed: int, num_frames: int) -> Clip:
    """Pictures (h, w, 3) and masks (h, w); the object is a rounded box that drifts and turns."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = rng.uniform(110, 225, 3)
    dark = light * rng.uniform(0.72, 0.85)
    place, way = rng.uniform(0.3, 0.7, 2) * (WIDTH, HEIGHT), rng.uniform(-1, 1, 2) * (3, 2)
    angle, spin = rng.uniform(0, math.pi), rng.uniform(-0.12, 0.12)
    tall = rng.uniform(0.16, 0.24) * HEIGHT
    wide = tall * rng.uniform(1.3, 1.9)
    ground = np.sin(xs * 2 * math.pi / PERIOD) > 0
    frames, masks = [], []
    for time in range(num_frames):
        (x, y), turn = place + way * time, angle + spin * time
        across = (xs - x) * math.cos(turn) + (ys - y) * math.sin(turn)
        down = (ys - y) * math.cos(turn) - (xs - x) * math.sin(turn)
        mask = np.abs(across / wide) ** 3 + np.abs(down / tall) ** 3 < 1
        stripes = np.where(mask, np.sin(across * 2 * math.pi / PERIOD) > 0, ground)[..., None]
        picture = np.where(stripes, light, dark) + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
        masks.append(mask)
    return frames, masks


def write_davis(root: Path, seeds: range, num_frames: int) -> Path:
    """These clips in DAVIS' layout."""
    for seed in seeds:
        name = f"stripes-{seed}"
        pictures, writer = root / "JPEGImages" / name, DavisWriter(root / "Annotations" / name)
        pictures.mkdir(parents=True)
        for index, (frame, mask) in enumerate(zip(*draw_clip(seed, num_frames), strict=True)):
            cv2.imwrite(str(pictures / f"{index:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
            writer.put(index, {1: mask}, size=(HEIGHT, WIDTH))
    return root
