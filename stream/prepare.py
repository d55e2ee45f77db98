"""`prepare_frames`: camera pictures to the model's input, on the device.

Owns: resize, BGR to RGB, normalisation. Called by the worker's thread. Never: keeps a picture after it returned (CPU),
so that its ring slot may be released; on CUDA the picture has left the slot once the upload's stream has passed.

The official predictor resizes uint8 pictures with Pillow's antialiased bicubic filter; so does torch here, in uint8 on
the CPU and in float32 on CUDA. Both differ from Pillow by at most one grey level, in one pixel of a hundred or fewer;
masks of the trained nano after either resize have an IoU of 0.9999 on a real clip (tests/test_prepare.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# ImageNet statistics, as in `sam2.utils.misc.load_video_frames`
_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)


def check_picture(image: object) -> None:
    """Raises `ValueError` for anything but a picture."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"the picture is {found}; expected uint8 (height, width, 3) in BGR order")


def prepare_frames(images_hwc: Sequence[NDArray[np.uint8]], size: int, device: torch.device) -> Tensor:
    """BGR uint8 pictures of any sizes to normalised RGB float32 (f, 3, size, size) on `device`."""
    pixels = torch.cat([_resize(image, size, device) for image in images_hwc])  # a copy, also of a single one
    mean = torch.tensor(_MEAN_RGB, device=device).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(_STD_RGB, device=device).view(1, 3, 1, 1) * 255.0
    return (pixels.flip(1).float() - mean) / std


def _resize(image_hwc: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """(1, 3, size, size) BGR; uint8 on CPU, float32 of whole numbers on CUDA."""
    if not image_hwc.flags.writeable or min(image_hwc.strides) < 0:
        image_hwc = image_hwc.copy()  # torch takes neither read-only nor mirrored arrays
    host = torch.from_numpy(image_hwc)
    if device.type == "cuda":
        host = host.pin_memory().to(device, non_blocking=True)
    pixels = host.permute(2, 0, 1)[None]
    if pixels.shape[-2:] == (size, size):
        return pixels if device.type == "cpu" else pixels.float()
    if device.type == "cpu":
        return F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    return _resize_in_float(pixels, size)


def _resize_in_float(pixels: Tensor, size: int) -> Tensor:
    """Columns first, then rows, whole grey levels after each, as Pillow does it."""
    for target in ((pixels.shape[-2], size), (size, size)):
        pixels = F.interpolate(pixels, size=target, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return pixels
