"""`Prompt`: what a person or program says about an object, checked, and turned into model coordinates.

Owns: the rules for points, boxes and masks. Any thread. Never: touches a tracker or a device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engines.spec import PointPrompt

MAX_POINTS = 64
MAX_OBJECT_ID = 2**31 - 1
_BOX_LABELS = (2, 3)  # top left and bottom right corner, as SAM 2 was trained


class PromptError(ValueError):
    """A prompt that cannot be used; the text names the value and what was expected."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Points (x, y, label) and box in pixels of the frame, or a mask of the frame's size."""

    points: tuple[tuple[float, float, int], ...]
    box: tuple[float, float, float, float] | None
    mask_hw: NDArray[np.bool_] | None


def checked_id(object_id: int) -> int:
    """A valid object id, or `PromptError`."""
    is_whole = isinstance(object_id, (int, np.integer)) and not isinstance(object_id, bool)
    if not is_whole or not 0 <= object_id <= MAX_OBJECT_ID:
        raise PromptError(f"object id is {object_id!r}; expected a whole number from 0 to {MAX_OBJECT_ID}")
    return int(object_id)


def checked_prompt(
    *,
    points: Sequence[tuple[float, float, int]],
    box: Sequence[float] | None,
    mask: NDArray[np.bool_] | None,
) -> Prompt:
    """A valid `Prompt`, or `PromptError`."""
    if not isinstance(points, (Sequence, np.ndarray)) or isinstance(points, str):
        raise PromptError(f"the points are {points!r}; expected a list of (x, y, label)")
    if mask is not None and (len(points) or box is not None):
        raise PromptError("a mask was given together with points or a box; expected one or the other")
    if mask is None and not len(points) and box is None:
        raise PromptError("no points, box or mask were given; expected at least one")
    if len(points) > MAX_POINTS:
        raise PromptError(f"{len(points)} points were given; expected at most {MAX_POINTS}")
    return Prompt(
        tuple(_checked_point(point) for point in points),
        None if box is None else _checked_box(box),
        None if mask is None else _checked_mask(mask),
    )


def check_inside(prompt: Prompt, height: int, width: int) -> None:
    """Whether a prompt fits a frame of this size; raises `PromptError`."""
    for x, y, _ in prompt.points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise PromptError(
                f"the point ({x:g}, {y:g}) lies outside the frame; expected 0 <= x <= {width}, 0 <= y <= {height}"
            )
    box = prompt.box
    if box is not None and not (box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0):
        raise PromptError(f"the box {box} lies outside the frame; expected it to overlap {width}x{height} pixels")
    if prompt.mask_hw is not None and prompt.mask_hw.shape != (height, width):
        raise PromptError(f"the mask has the shape {prompt.mask_hw.shape}; expected the frame's, ({height}, {width})")


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A picture file as a mask: what is not black is the object. Raises `PromptError`."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise PromptError(f"the mask {path} cannot be read; expected a picture such as PNG")
    return np.asarray(picture) > 0


def points_in_model(
    prompt: Prompt, size: tuple[int, int], *, image_size: int, logits_bhw: Tensor | None
) -> PointPrompt:
    """Points and box corners (first) in model pixels, on the CPU. `size` is the frame's (height, width)."""
    height, width = size
    corners = []
    if prompt.box is not None:  # a box may reach beyond the frame; its corners may not
        x0, y0, x1, y1 = prompt.box
        corners = [(max(x0, 0.0), max(y0, 0.0), _BOX_LABELS[0]), (min(x1, width), min(y1, height), _BOX_LABELS[1])]
    rows = [*corners, *prompt.points]
    coords = torch.tensor([[row[:2] for row in rows]], dtype=torch.float32)
    coords = coords / torch.tensor([width, height]) * image_size
    return PointPrompt(coords, torch.tensor([[row[2] for row in rows]], dtype=torch.int32), logits_bhw)


def mask_in_model(mask_hw: NDArray[np.bool_], image_size: int) -> Tensor:
    """The mask as float zeros and ones (1, image_size, image_size); resized as in `SAM2VideoPredictor.add_new_mask`.

    A mask too small or thin for that, which officially vanishes, keeps the model pixels that it covers most.
    """
    mask = torch.from_numpy(np.ascontiguousarray(mask_hw, dtype=np.float32))[None, None]
    if mask.shape[-2:] != (image_size, image_size):
        mask = F.interpolate(mask, size=(image_size, image_size), mode="bilinear", align_corners=False, antialias=True)
        most = float(mask.max())
        mask = (mask >= (0.5 if most >= 0.5 else 0.9 * most)).float()
    return mask[0]


def _is_numbers(values: object, count: int) -> bool:
    """Whether this is a sequence of `count` finite numbers."""
    if not isinstance(values, (Sequence, np.ndarray)) or len(values) != count:
        return False
    return all(isinstance(value, (int, float, np.number)) and math.isfinite(value) for value in values)


def _checked_point(point: Sequence[float]) -> tuple[float, float, int]:
    if not _is_numbers(point, 3) or point[2] not in (0, 1):
        raise PromptError(f"the point is {point!r}; expected (x, y, label) with finite numbers and label 1 or 0")
    return float(point[0]), float(point[1]), int(point[2])


def _checked_box(box: Sequence[float]) -> tuple[float, float, float, float]:
    if not _is_numbers(box, 4) or not (box[0] < box[2] and box[1] < box[3]):
        raise PromptError(f"the box is {box!r}; expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1")
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def _checked_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        raise PromptError(
            f"the mask is {getattr(mask, 'shape', type(mask).__name__)}; expected an array (height, width)"
        )
    if mask.dtype.kind not in "bui" and not (mask.dtype.kind == "f" and np.isfinite(mask).all()):
        raise PromptError(f"the mask is not made of numbers ({mask.dtype}); expected bool, or finite numbers")
    result = mask.astype(np.bool_)
    if not result.any():
        raise PromptError("the mask has no pixel set; expected at least one")
    return result
