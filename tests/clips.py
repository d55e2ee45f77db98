"""Video files for tests, made on the spot: every picture carries its number, so that no loss or swap goes unseen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import draw_counter

H264_WITH_B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "15", "preset": "ultrafast"}


def numbered_picture(number: int, *, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A soft moving pattern, the same for the same number, with the number on top."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [128 + 90 * np.sin((x * (2 + k) + y * (3 - k) + 9 * number) / 40 + k) for k in range(3)]
    image_hwc = np.ascontiguousarray(np.stack(planes, axis=2).astype(np.uint8))
    draw_counter(image_hwc, number)
    return image_hwc


def write_video(
    path: Path,
    num_frames: int,
    *,
    codec: str = "libx264",
    fps: int = 30,
    size: tuple[int, int] = (160, 120),
    options: Mapping[str, str] | None = None,
    first: int = 0,
) -> Path:
    """Encode numbered pictures; the suffix says which container."""
    default = H264_WITH_B_FRAMES if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=dict(default if options is None else options))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(first, first + num_frames):
            image_hwc = numbered_picture(number, width=size[0], height=size[1])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_hwc, "bgr24")))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
