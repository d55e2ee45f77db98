"""Opening a file, stream or device with FFmpeg, and saying in one line why that failed.

Owns: the words for FFmpeg's errors. Runs in the camera's thread, and at start in the main thread (`check`).
Never: lets FFmpeg's own error text out, which repeats the address with its password.

PyAV rather than OpenCV's VideoCapture: it shows packets, so that a picture's arrival is known and survives the decoder;
it has timeouts on opening and reading (OpenCV can hang for good) and marks damaged pictures; its errors tell a wrong
password from an absent stream; and a webcam's packets carry the driver's time in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stream.capture.picture import SourceError

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (av.error.FileNotFoundError, "there is no such file"),
    (av.error.PermissionError, "this user may not read it"),
    (av.error.HTTPUnauthorizedError, "the user name or password is wrong (401)"),
    (av.error.HTTPForbiddenError, "this user may not see it (403)"),
    (av.error.HTTPNotFoundError, "the server has no such stream (404)"),
    (av.error.ConnectionRefusedError, "nobody answers there (connection refused)"),
    (av.error.ExitError, f"no answer within {READ_TIMEOUT_S:g} s"),
    (av.error.TimeoutError, "no answer in time"),
    (av.error.InvalidDataError, "this is not a video"),
    (av.error.EOFError, "this is not a video, it ends too early"),
)
_TEXT_ART = ("ansi", "bintext", "idf", "xbin")  # FFmpeg paints any .txt as a terminal


def why(error: av.error.FFmpegError) -> str:
    """FFmpeg's error in our words, without any address."""
    known = [words for kind, words in _REASONS if isinstance(error, kind)]
    return known[0] if known else (error.strerror or "FFmpeg failed").split(":")[0].lower()


@contextmanager
def open_video(
    target: str, shown: str, *, format_name: str | None = None, options: Mapping[str, str] | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream; FFmpeg's errors within, also while reading, become `SourceError`."""
    timeouts = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
    try:
        with av.open(target, format=format_name, options=dict(options or {}), timeout=timeouts) as container:
            yield container, _video_stream(container, shown)
    except av.error.FFmpegError as error:
        reason = why(error)
    else:
        return
    raise SourceError(f"source '{shown}': {reason}")


def _video_stream(container: InputContainer, shown: str) -> VideoStream:
    """The first moving picture; an audio file's cover is none."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"source '{shown}': it holds no video, only {found}")
    if streams[0].codec_context is None:
        raise SourceError(f"source '{shown}': FFmpeg has no decoder for its video")
    if streams[0].codec_context.name in _TEXT_ART:
        raise SourceError(f"source '{shown}': this is not a video but text")
    return streams[0]
