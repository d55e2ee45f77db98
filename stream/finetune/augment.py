"""Augmentation: how a clip and its masks are changed before they teach.

Owns: the ranges. Pure functions of a random generator, a clip (t, h, w, 3) uint8 BGR and its masks (o, t, h, w); any
thread. Never: changes what it was given, or draws more than the clip's own pictures (`samples` pastes others in).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.sequence import Bits, Image

FLIP = 0.5  # probabilities
AFFINE = 0.6
COLOUR = 0.8
GREY = 0.05
BLUR = 0.15
MOTION_BLUR = 0.2
TURN = 20.0  # degrees to either side
SHEAR = 10.0
ZOOM = (0.8, 1.4)
SHIFT = 0.08  # of the side
SHAKE = 0.006  # of the side, from picture to picture
LONGEST_BLUR = 0.04  # of the side

Rng = np.random.Generator


def augmented(rng: Rng, images: Image, masks: Bits, *, wanted: Collection[str]) -> tuple[Image, Bits]:
    """The geometry, then the light, then the optics."""
    if "flip" in wanted and rng.random() < FLIP:
        images, masks = images[:, :, ::-1], masks[..., ::-1]
    if "affine" in wanted and rng.random() < AFFINE:
        images, masks = moved(rng, images, masks)
    if "colour" in wanted and rng.random() < COLOUR:
        images = coloured(rng, images)
    if "blur" in wanted and rng.random() < BLUR:
        images = blurred(rng, images)
    if "motion-blur" in wanted and rng.random() < MOTION_BLUR:
        images = smeared(rng, images)
    return np.ascontiguousarray(images), np.ascontiguousarray(masks)


def moved(rng: Rng, images: Image, masks: Bits) -> tuple[Image, Bits]:
    """Turned, sheared, zoomed and shifted, the same for all pictures but for a slight shake."""
    size = images.shape[1]
    turn, shear = np.radians(rng.uniform(-TURN, TURN)), math.tan(math.radians(rng.uniform(-SHEAR, SHEAR)))
    zoom = math.exp(rng.uniform(math.log(ZOOM[0]), math.log(ZOOM[1])))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = zoom * rotation @ np.array([[1, shear], [0, 1]])
    middle = np.array([size / 2, size / 2])
    shift = middle - matrix @ middle + rng.uniform(-SHIFT, SHIFT, 2) * size
    shake = rng.normal(0, SHAKE * size, (len(images), 2)) * (rng.random() < 0.5)
    found_images, found_masks = np.empty_like(images), np.zeros_like(masks)
    for time in range(len(images)):
        affine = np.hstack([matrix, (shift + shake[time])[:, None]])
        found_images[time] = cv2.warpAffine(images[time], affine, (size, size), borderMode=cv2.BORDER_REFLECT_101)
        for number in range(len(masks)):
            warped = cv2.warpAffine(masks[number, time].astype(np.uint8) * 255, affine, (size, size))
            found_masks[number, time] = np.asarray(warped) >= 128
    return found_images, found_masks


def coloured(rng: Rng, images: Image) -> Image:
    """Brightness, contrast, saturation and tint, the same for all pictures but for a slight flicker; rarely grey."""
    pictures = images.astype(np.float32)
    if rng.random() < GREY:
        pictures = pictures.mean(-1, keepdims=True).repeat(3, -1)
    saturation, contrast = rng.uniform(0.7, 1.3), rng.uniform(0.75, 1.25)
    tint = rng.uniform(0.92, 1.08, 3)
    gains = rng.uniform(0.8, 1.2) * rng.uniform(0.96, 1.04, (len(images), 1, 1, 1))
    grey = pictures.mean(-1, keepdims=True)
    mean = pictures.mean()
    pictures = (grey + saturation * (pictures - grey)) * tint
    pictures = ((pictures - mean) * contrast + mean) * gains
    if rng.random() < 0.3:
        pictures = pictures + rng.normal(0, rng.uniform(1, 8), pictures.shape)
    return np.asarray(np.clip(np.rint(pictures), 0, 255), np.uint8)


def blurred(rng: Rng, images: Image) -> Image:
    """Out of focus."""
    sigma = rng.uniform(0.4, 1.6) * images.shape[1] / 256
    return np.stack([np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) for image in images])


def smeared(rng: Rng, images: Image) -> Image:
    """As by a moving camera: one direction, another length on each picture."""
    angle, most = rng.uniform(0, math.pi), rng.uniform(0.01, LONGEST_BLUR) * images.shape[1]
    lengths = np.maximum(np.rint(rng.uniform(0, most, len(images))), 1).astype(int)
    return np.stack(
        [
            np.asarray(cv2.filter2D(image, -1, _streak(int(length), angle)), np.uint8)
            for image, length in zip(images, lengths, strict=True)
        ]
    )


def _streak(length: int, angle: float) -> NDArray[np.float32]:
    """A line of this length in pixels, as a kernel."""
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    half = (side - 1) / 2
    reach = np.array([math.cos(angle), math.sin(angle)]) * (length - 1) / 2
    ends = [tuple(np.rint(16 * (half + sign * reach)).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    total = kernel.sum()
    return kernel / total if total > 0 else np.ones((1, 1), np.float32)


def pasted(rng: Rng, images: Image, masks: Bits, *, thing: tuple[Image, Bits]) -> tuple[Image, Bits, Bits]:
    """A cut-out (h, w, 3) with its mask flies over the clip: the pictures, what is still seen of the objects, and the
    cut-out's own mask (t, h, w).
    """
    size, (cut_hwc, cut_hw) = images.shape[1], thing
    zoom = rng.uniform(0.6, 1.3)
    start, way = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(-0.06, 0.06, 2) * size
    spin, turn = rng.uniform(-0.08, 0.08), rng.uniform(-0.5, 0.5)
    rows, columns = np.flatnonzero(cut_hw.any(1)), np.flatnonzero(cut_hw.any(0))
    middle = np.array([columns.mean(), rows.mean()])
    found, own = images.copy(), np.zeros(images.shape[:3], np.bool_)
    for time in range(len(images)):
        angle = turn + spin * time
        matrix = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        affine = np.hstack([matrix, (start + way * time - matrix @ middle)[:, None]])
        alpha = np.asarray(cv2.warpAffine(cut_hw.astype(np.uint8) * 255, affine, (size, size)))
        surface = np.asarray(cv2.warpAffine(cut_hwc, affine, (size, size)))
        weight = (cv2.GaussianBlur(alpha, (3, 3), 0).astype(np.float32) / 255)[..., None]
        found[time] = np.rint(found[time] * (1 - weight) + surface * weight).astype(np.uint8)
        own[time] = alpha >= 128
    return found, masks & ~own, own
