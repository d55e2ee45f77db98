"""A worst picture drawn: the part around the object, the truth and the prediction outlined.

Owns: the two colours, and what is cut out. Pure functions; any thread. Never: changes the picture it was given.

Green is the truth, magenta the prediction: the pair that most colour-blind people can tell apart. What was missed is
tinted green, what was too much magenta.
"""

from __future__ import annotations

import cv2
import numpy as np

from stream.evaluate.figures import WorstView
from stream.evaluate.fitting import resized
from stream.sequence import Bits, Image

TRUTH = (80, 220, 60)  # BGR
FOUND = (200, 40, 255)
SHADOW = (20, 20, 20)
CELL_WIDTH, CELL_HEIGHT = 480, 320
MARGIN = 0.6  # around the object, in its own size
MIN_SHARE = 0.3  # of the picture's width and height that is shown at least
TINT = 0.35


def draw_view(view: WorstView) -> Image:
    """BGR, CELL_WIDTH x CELL_HEIGHT pixels."""
    size = view.image_hwc.shape[0], view.image_hwc.shape[1]
    truth, found = resized(view.truth, size), resized(view.found, size)
    left, top, right, bottom = _window(truth | found)
    image, masks = _cut(view.image_hwc, (left, top, right, bottom)), np.stack((truth, found)).astype(np.uint8)
    parts = [_cut(np.repeat(mask[:, :, None], 3, 2) * 255, (left, top, right, bottom))[:, :, 0] > 127 for mask in masks]
    drawn = _tint(_tint(image, parts[0] & ~parts[1], TRUTH), parts[1] & ~parts[0], FOUND)
    for part, colour in zip(parts, (TRUTH, FOUND), strict=True):
        outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, SHADOW, 4, cv2.LINE_AA)
        cv2.drawContours(drawn, outlines, -1, colour, 2, cv2.LINE_AA)
    return drawn


def _window(mask: Bits) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is shown, with the cell's shape; it may reach beyond the picture."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        rows, columns = np.array([0, height - 1]), np.array([0, width - 1])
    tall = max((rows[-1] - rows[0] + 1) * (1 + MARGIN), height * MIN_SHARE)
    wide = max((columns[-1] - columns[0] + 1) * (1 + MARGIN), width * MIN_SHARE, tall * CELL_WIDTH / CELL_HEIGHT)
    wide = min(wide, max(width, height * CELL_WIDTH / CELL_HEIGHT))
    tall = wide * CELL_HEIGHT / CELL_WIDTH
    left = _inside((columns[0] + columns[-1] + 1) / 2, wide, width)
    top = _inside((rows[0] + rows[-1] + 1) / 2, tall, height)
    return left, top, left + wide, top + tall


def _inside(middle: float, length: float, whole: int) -> float:
    """Where a window of this length begins; within the picture, or around it where the picture is smaller."""
    return (whole - length) / 2 if length >= whole else min(max(middle - length / 2, 0.0), whole - length)


def _cut(image_hwc: Image, window: tuple[float, float, float, float]) -> Image:
    left, top, right, _ = window
    scale = CELL_WIDTH / (right - left)
    # pixel centres lie at half units: (x + 0.5 - left) * scale - 0.5
    matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]], np.float32)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(image_hwc, matrix, (CELL_WIDTH, CELL_HEIGHT), flags=how, borderValue=(24, 24, 24))
    return np.asarray(cut, np.uint8)


def _tint(image_hwc: Image, mask: Bits, colour: tuple[int, int, int]) -> Image:
    tinted = image_hwc.copy()
    tinted[mask] = np.rint(image_hwc[mask] * (1 - TINT) + np.array(colour) * TINT).astype(np.uint8)
    return tinted
