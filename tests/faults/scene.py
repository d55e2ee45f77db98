"""What every fault camera looks at: one endless scene, known exactly, in which a click at a fixed place always hits.

The scene is a generated clip shown forth and back; `rtsp_camera.py` streams it. Picture `number` of a camera is exposed
at `origin + (number - offset) / RATE`, so a number read back from a picture tells when it was taken and what is in it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import ClipSpec, SyntheticClip

RATE = 10  # numbers a second; also in rtsp_camera.py
# Chosen among 4000 seeds: both objects always cover their click, and move 0.45 of themselves away within 8 pictures.
SPEC = ClipSpec(
    3_100_001_058, num_frames=120, height=240, width=320, num_objects=2, num_distractors=0, speed=2.0,
    leave_probability=0.0,
)  # fmt: skip
CLICKS = {1: (166.0, 105.0), 2: (94.0, 170.0)}  # by object id; nano follows object 2 with IoU 0.9, object 1 with 0.8
SIZE = (SPEC.width, SPEC.height)
CYCLE = 2 * SPEC.num_frames - 2
STRIP = SPEC.height // 20


@functools.cache
def pictures() -> NDArray[np.uint8]:
    """The scene's pictures in order, (number, height, width, BGR), without a number burnt in."""
    clip = SyntheticClip(SPEC)
    return np.stack([clip.frame(index) for index in range(SPEC.num_frames)])


@functools.cache
def all_masks() -> NDArray[np.bool_]:
    clip = SyntheticClip(SPEC)
    return np.stack([clip.masks(index) for index in range(SPEC.num_frames)])


def index_of(number: int) -> int:
    index = number % CYCLE
    return index if index < SPEC.num_frames else CYCLE - index


def truth(number: int, object_id: int, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """The object's visible part on the picture of this number, at this (width, height)."""
    mask = all_masks()[index_of(number), object_id - 1]
    if size == SIZE:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.bool_)


def damage(picture_hwc: NDArray[np.uint8], number: int) -> float:
    """Mean difference to the true picture in the worst of 12 x 16 blocks, in grey levels; smears are far above 20."""
    picture = (
        cv2.resize(picture_hwc, SIZE, interpolation=cv2.INTER_AREA)
        if picture_hwc.shape[:2] != SIZE[::-1]
        else picture_hwc
    )
    difference = cv2.absdiff(picture, pictures()[index_of(number)])[STRIP:]
    return float(cv2.resize(difference, (16, 12), interpolation=cv2.INTER_AREA).mean(2).max())


def write_raw(path: Path) -> Path:
    """The pictures as raw I420, for rtsp_camera.py."""
    path.write_bytes(b"".join(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes() for picture in pictures()))
    return path


def prompt(*object_ids: int) -> str:
    """A click on each object, as TOML for the last camera."""
    lines = "[[camera.prompt]]\nobject_id = {}\npoints = [[{}, {}, 1]]\n"
    return "".join(lines.format(object_id, *CLICKS[object_id]) for object_id in object_ids)
