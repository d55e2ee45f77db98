"""`FusedResize`: resize, BGR to RGB, normalisation and layout of one picture in one kernel, where Triton is installed.

Owns: the filter's weights for each size of picture seen, on the device. Used by the worker's thread. Never: is used
where it differs from `stream.prepare.picture` by more than one grey level: `fused_resize` compares the two.

Pillow's antialiased bicubic filter (a = -0.5), columns first, whole grey levels in between. Each output pixel reads its
patch of the interleaved uint8 picture once: a patch of 6 x 9 at 1920x1080 to 1024x1024, so the rows in between are
computed about five times over, which costs less than to write and read them.
NOT TRIED ON A GPU; the kernel runs in Triton's interpreter in tests/test_prepare.py where Triton is installed.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from stream.prepare.kernel import FAULTS, resize_kernel
from stream.prepare.picture import STD_RGB, resize_in_steps, statistics

log = logging.getLogger(__name__)

MAX_SIZES = 64  # of pictures, whose weights are kept
BLOCK = 256
CHECKED_SIZE = (270, 480, 3)
MAX_LEVELS = 1.2  # one, as seen through the smaller of three standard deviations

Weights = tuple[Tensor, Tensor]  # first pixel (size,), weights (taps, size)


class FusedResize:
    """Written by the worker's thread: the weights."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._size, self._device = size, device
        self._means, self._stds = statistics(device)
        self._weights: dict[int, Weights] = {}  # by the picture's height or width

    def __call__(self, picture_hwc: Tensor, frame_3hw: Tensor) -> None:
        height, width = picture_hwc.shape[:2]
        (rows, row_weights), (columns, column_weights) = self._of(height), self._of(width)
        grid = (self._size, -(-self._size // BLOCK))
        resize_kernel[grid](
            picture_hwc, frame_3hw, rows, row_weights, columns, column_weights, height, width, self._means, self._stds,
            SIZE=self._size, ROW_TAPS=row_weights.shape[0], COLUMN_TAPS=column_weights.shape[0], BLOCK=BLOCK,
        )  # fmt: skip

    def _of(self, length: int) -> Weights:
        found = self._weights.get(length)
        if found is None:
            if len(self._weights) >= MAX_SIZES:
                self._weights.clear()
            first, weights = bicubic_weights(length, self._size)
            found = self._weights[length] = first.to(self._device), weights.to(self._device)
        return found


def fused_resize(size: int, device: torch.device) -> FusedResize | None:
    """None where Triton is not installed, cannot compile, or makes something else of a picture."""
    if resize_kernel is None:
        return None
    picture_hwc = torch.randint(0, 256, CHECKED_SIZE, dtype=torch.uint8, device=device)
    fused, wanted, found = FusedResize(size, device), *torch.zeros(2, 3, size, size, device=device)
    resize_in_steps(picture_hwc, wanted)
    try:
        fused(picture_hwc, found)
    except FAULTS as error:
        log.warning("pictures are resized in steps: Triton failed: %s", str(error).partition("\n")[0])
        return None
    levels = float((found - wanted).abs().max()) * max(STD_RGB) * 255
    if not levels < MAX_LEVELS:
        log.warning("pictures are resized in steps: the kernel is %.2f grey levels off, expected 1", levels)
        return None
    return fused


def bicubic_weights(length: int, size: int) -> Weights:
    """Pillow's antialiased bicubic filter from `length` pixels to `size`; weights beyond its support are zero."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    num_taps = min(length, math.ceil(support) * 2 + 1)
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centers - support + 0.5).floor().clamp(min=0)
    last = (centers + support + 0.5).floor().clamp(max=length)
    pixels = first[None] + torch.arange(num_taps, dtype=torch.float64)[:, None]
    weights = _bicubic((pixels - centers + 0.5) / stretch) * (pixels < last)
    return first.int(), (weights / weights.sum(dim=0)).float().contiguous()


def _bicubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
