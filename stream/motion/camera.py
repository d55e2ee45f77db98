"""`CameraMotion`: how a camera moved between two pictures, from what did not move in them.

Owns: the last small grey picture of one camera. The worker's thread uses it. Never: knows an object.

Corners are followed by OpenCV's sparse optical flow, back and forth; RANSAC takes shift, turn and scale from the many
that agree: moving objects are the others. Where too few agree, the camera did not move.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

View = NDArray[np.uint8]
Floats = NDArray[np.float64]

WIDTH = 240  # pixels of the small picture
MAX_CORNERS = 200
MIN_AGREEING = 12
MAX_RETURN = 1.0  # pixels by which a corner may miss its origin on the way back
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


class CameraMotion:
    """Written by the worker's thread."""

    def __init__(self, view: View | None = None) -> None:
        self.view = view  # replaced, never changed

    def follow(self, image_hwc: NDArray[np.uint8]) -> Floats:
        """The matrix (2, 3) that takes places in the last picture to places in this one, as shares of its size."""
        last, now = self.view, _small(image_hwc)
        self.view = now
        if last is None or last.shape != now.shape:
            return IDENTITY
        return _between(last, now)


def _small(image_hwc: NDArray[np.uint8]) -> View:
    height, width = image_hwc.shape[:2]
    size = (WIDTH, max(16, round(WIDTH * height / width)))
    return np.asarray(cv2.cvtColor(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY))


def _between(last: View, now: View) -> Floats:
    found = cv2.goodFeaturesToTrack(last, MAX_CORNERS, 0.01, 5)
    if found is None or len(found) < MIN_AGREEING:
        return IDENTITY
    corners = np.asarray(found, np.float32)
    there, was_found = _flow(last, now, corners)
    back, came_back = _flow(now, last, there)
    kept = was_found & came_back & (np.abs(back - corners).max(axis=(1, 2)) < MAX_RETURN)
    if kept.sum() < MIN_AGREEING:
        return IDENTITY
    matrix, agree = cv2.estimateAffinePartial2D(corners[kept], there[kept], ransacReprojThreshold=1.5)
    if matrix is None or int(np.sum(agree)) < max(MIN_AGREEING, 0.3 * int(kept.sum())):
        return IDENTITY
    height, width = now.shape
    size = np.array([width, height], np.float64)
    turn = matrix[:, :2] * size[None, :] / size[:, None]
    return np.hstack([turn, (matrix[:, 2] / size)[:, None]])


def _flow(one: View, other: View, corners_n12: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where the corners of one picture are in the other, and which were found."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(one, other, corners_n12, np.empty_like(corners_n12))
    return np.asarray(there, np.float32), np.asarray(found).ravel().astype(np.bool_)
