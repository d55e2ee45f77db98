"""Pictures into a video file: H.264 in MP4, each picture at its own time.

Owns: the encoder and the file while a `MovieWriter` is open. Runs in the thread that made the writer, and only there.
Never: waits for time to pass, drops a picture, or reads a video.

H.264 in the usual 4:2:0 needs even sizes: an odd last column or row is cut off. A picture of another size than the
first is scaled.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

# OpenCV before PyAV: its windows hang for ever once PyAV's own copy of libxcb is loaded (PyAV issue 978).
import cv2  # noqa: F401

# isort: split
import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20"}),
    ("libopenh264", {}),
    ("h264_videotoolbox", {}),
    ("mpeg4", {}),
)
TIME_BASE = Fraction(1, 90_000)
MIN_STEP = 90  # a millisecond: players refuse two pictures at one time
BT709 = 1  # FFmpeg's number for it, as primaries, transfer and matrix


class MovieError(Exception):
    """The file cannot be written; the text is one line that names it."""


class MovieWriter:
    """Opens the file at once, the encoder with the first picture. Every field is written by the thread that made it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_pictures = 0
        self._stream: VideoStream | None = None
        self._start_ns = 0
        self._last_pts = -MIN_STEP
        try:
            path.open("wb").close()  # FFmpeg would tell only with the first picture
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        except OSError as error:
            raise MovieError(f"{path}: {error.strerror}, expected a path where a video can be written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, image_hwc: NDArray[np.uint8], time_ns: int) -> None:
        """Append a BGR picture; times count from the first one, and one that goes back is moved up."""
        if self._stream is None:
            self._start_ns = time_ns
            self._stream = self._open_stream(image_hwc.shape[1] // 2 * 2, image_hwc.shape[0] // 2 * 2)
        stream = self._stream
        even_hwc = image_hwc[: image_hwc.shape[0] // 2 * 2, : image_hwc.shape[1] // 2 * 2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even_hwc), format="bgr24").reformat(
            stream.width, stream.height, "yuv420p",
            dst_colorspace=Colorspace.ITU709, interpolation=Interpolation.BILINEAR,
        )  # fmt: skip
        self._last_pts = max(self._last_pts + MIN_STEP, round((time_ns - self._start_ns) * 9 / 100_000))
        frame.pts, frame.time_base = self._last_pts, TIME_BASE
        self._container.mux(stream.encode(frame))
        self.num_pictures += 1

    def close(self) -> None:
        """Write what the encoder holds back, and the index; without it a player cannot open the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def _open_stream(self, width: int, height: int) -> VideoStream:
        if width < 2 or height < 2:
            raise MovieError(f"{self.path}: pictures of {width} x {height}, expected at least 2 x 2")
        name, options = next(choice for choice in CODECS if choice[0] in av.codecs_available)
        stream = self._container.add_stream(name, rate=30, options=options)
        assert isinstance(stream, VideoStream), "a video codec makes a video stream"
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = TIME_BASE
        context.color_primaries = context.color_trc = context.colorspace = BT709
        return stream
