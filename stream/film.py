"""A video file written in parts, so that a killed program loses one part at most; joined without encoding again.

Owns: the encoder and the file of a part while it is open, and what H.264 in MP4 and VP9 with transparency in WebM need.
Runs in the thread that made the writer, and only there. Never: waits for time to pass, drops a picture, or keeps more
than the encoder does.

The same pictures in the same parts give the same bytes. A part's own times begin at 0; `join_parts` puts them back to
where they belong. H.264 in the usual 4:2:0 needs even sizes: an odd last column or row is cut off. A picture of another
size than the film's is scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

# OpenCV before PyAV: its windows hang for ever once PyAV's own copy of libxcb is loaded (PyAV issue 978).
import cv2

# isort: split
import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engines.whole_file import moved_in

TIME_BASE = Fraction(1, 90_000)
BT709 = 1  # FFmpeg's number for it, as primaries, transfer and matrix
# no pictures out of order: a part's first time stamp is its first picture's, and parts follow each other without a gap
_H264: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20", "bf": "0"}),
    ("libopenh264", {}),
    ("h264_videotoolbox", {}),
    ("mpeg4", {}),
)
_VP9: tuple[tuple[str, dict[str, str]], ...] = (
    ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "7", "crf": "24", "b": "0", "auto-alt-ref": "0",
                    "lag-in-frames": "0", "row-mt": "1"}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilmKind:
    """A container, its encoders in the order of preference, and whether pictures are BGRA and not BGR."""

    container: str
    codecs: tuple[tuple[str, dict[str, str]], ...]
    has_alpha: bool = False
    is_even: bool = True  # whether width and height have to be


MP4 = FilmKind("mp4", _H264)
WEBM_ALPHA = FilmKind("webm", _VP9, has_alpha=True, is_even=False)


class FilmError(Exception):
    """A film cannot be written; the text is one line that names the file."""


class FilmPart:
    """One part: opened at once, complete once it is closed. Every field is written by the thread that made it."""

    def __init__(self, path: Path, kind: FilmKind, size: tuple[int, int]) -> None:
        height, width = (side // 2 * 2 for side in size) if kind.is_even else size
        name, options = next((choice for choice in kind.codecs if choice[0] in av.codecs_available), ("", {}))
        if not name or min(height, width) < 2:
            expected = f"one of the encoders {', '.join(choice[0] for choice in kind.codecs)}"
            raise FilmError(f"{path}: a film of {width} x {height}, expected at least 2 x 2 pixels and {expected}")
        self.path, self._kind, self._last_pts, self._start_ns = path, kind, -1, 0
        with _told(path):
            self._container = _open_output(path, kind)
            stream = self._container.add_stream(name, rate=30, options=options)
        assert isinstance(stream, VideoStream), "a video codec makes a video stream"
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuva420p" if kind.has_alpha else "yuv420p"
        context = stream.codec_context
        context.time_base = TIME_BASE
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.thread_count = 2  # the bytes do not depend on the machine's cores
        if kind.has_alpha:
            stream.metadata["alpha_mode"] = "1"
        self._stream = stream

    def put(self, image_hwc: NDArray[np.uint8], time_ns: int) -> None:
        """Append a picture; a time that does not rise is moved up."""
        stream = self._stream
        if self._last_pts < 0:
            self._start_ns = time_ns
        if image_hwc.shape[:2] != (stream.height, stream.width):
            image_hwc = self._fitted(image_hwc)
        source = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image_hwc), format="bgra" if self._kind.has_alpha else "bgr24"
        )
        frame = source.reformat(stream.width, stream.height, stream.pix_fmt, dst_colorspace=Colorspace.ITU709)
        self._last_pts = max(self._last_pts + 1, round((time_ns - self._start_ns) * 9 / 100_000))
        frame.pts, frame.time_base = self._last_pts, TIME_BASE
        with _told(self.path):
            self._container.mux(stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        with _told(self.path):
            if self._last_pts >= 0:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def _fitted(self, image_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An odd last row or column is cut off; another size is scaled."""
        height, width = self._stream.height, self._stream.width
        rows, columns = image_hwc.shape[:2]
        if (rows // 2 * 2, columns // 2 * 2) == (height, width):
            return image_hwc[:height, :width]
        return np.asarray(cv2.resize(image_hwc, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def join_parts(parts: Sequence[tuple[Path, int]], path: Path, kind: FilmKind) -> None:
    """One file of the parts and the times in ns at which they begin; takes the place of `path` when it is complete."""
    assert parts, "a film has a part"
    with moved_in(path) as beside, _told(path), _open_output(beside, kind) as output:
        with _open_part(parts[0][0]) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        if kind.has_alpha:
            stream.metadata["alpha_mode"] = "1"
        last = -1
        for part, start_ns in parts:
            last = _append(part, output, stream, start_ns=start_ns - parts[0][1], last=last)


def _append(part: Path, output: OutputContainer, stream: VideoStream, *, start_ns: int, last: int) -> int:
    """Copy the packets of a part; the time stamp of the last one, in `TIME_BASE`."""
    with _open_part(part) as source:
        for packet in source.demux(source.streams.video[0]):
            if packet.size == 0 or packet.pts is None:
                continue
            own = round(packet.pts * packet.time_base / TIME_BASE)
            last = max(last + 1, own + round(start_ns * 9 / 100_000))
            packet.stream, packet.time_base = stream, TIME_BASE
            packet.pts = packet.dts = last
            output.mux(packet)
    return last


def _open_output(path: Path, kind: FilmKind) -> OutputContainer:
    path.open("wb").close()  # FFmpeg would tell only with the first picture
    options = {"movflags": "+faststart"} if kind.container == "mp4" else {}
    return av.open(str(path), "w", format=kind.container, options={"fflags": "+bitexact", **options})


def _open_part(path: Path) -> InputContainer:
    return av.open(str(path), options={"protocol_whitelist": "file"})


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # FFmpeg's errors of writing are such
        raise FilmError(f"{path}: {error.strerror or error}, expected a path where a film can be written") from error
