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
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stream.capture.ffmpeg_log import Line, listening, refusal
from stream.capture.picture import SourceError, SourceRefused
from stream.capture.watch import Watch

OPEN_LIMIT_S = 6.0  # of a stream, by its watch
TIMEOUTS_S = (10.0, 60.0)  # of opening and reading, where no watch ends the call before
FILE_OPTIONS = {"protocol_whitelist": "file"}  # a playlist on disk leads nowhere else
_REFUSALS: tuple[tuple[type[Exception], str], ...] = (
    (av.error.HTTPUnauthorizedError, "the user name or password is wrong (401)"),
    (av.error.HTTPForbiddenError, "this user may not see it (403)"),
    (av.error.HTTPNotFoundError, "the server has no such stream (404)"),
)
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    *_REFUSALS,
    (av.error.FileNotFoundError, "there is no such file"),
    (av.error.PermissionError, "this user may not read it"),
    (av.error.HTTPServerError, "the server has a problem of its own (5xx)"),
    (av.error.HTTPOtherClientError, "the server refuses the request (4xx)"),
    (av.error.ConnectionRefusedError, "nobody answers there (connection refused)"),
    (av.error.TimeoutError, "no answer in time"),
    (av.error.InvalidDataError, "this is not a video"),
    (av.error.EOFError, "this is not a video, it ends too early"),
)
_TEXT_ART = ("ansi", "bintext", "idf", "xbin")  # FFmpeg paints any .txt as a terminal


@dataclass(frozen=True, slots=True)
class Opened:
    """A video as long as it is open, and what FFmpeg says in this thread meanwhile; whoever reads it empties it."""

    container: InputContainer
    stream: VideoStream
    lines: list[Line]


def why(error: av.error.FFmpegError) -> str:
    """FFmpeg's error in our words, without any address."""
    known = [words for kind, words in _REASONS if isinstance(error, kind)]
    return known[0] if known else (error.strerror or "FFmpeg failed").split(":")[0].lower()


@contextmanager
def open_video(
    target: str, shown: str, *, watch: Watch | None = None, format_name: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Iterator[Opened]:  # fmt: skip
    """The container and its video stream; FFmpeg's errors within, also while reading, become `SourceError`."""
    with listening() as lines:
        try:
            with (
                av.open(target, format=format_name, options=dict(options or {}), timeout=TIMEOUTS_S) as container,
                _decoded(_video_stream(container, shown)) as stream,
            ):
                yield Opened(container, stream, lines)
        except av.error.FFmpegError as error:
            found = _explain(error, lines, watch)
        else:
            return
    raise type(found)(f"source '{shown}': {found}")


@contextmanager
def _decoded(stream: VideoStream) -> Iterator[VideoStream]:
    """Its decoder has no thread at work any more when PyAV frees it, which it does holding the GIL."""
    try:
        yield stream
    finally:
        if stream.codec_context.is_open:
            stream.codec_context.flush_buffers()


def _explain(error: av.error.FFmpegError, lines: list[Line], watch: Watch | None) -> SourceError:
    if watch is not None and watch.is_late():
        return SourceError(f"no answer within {watch.limit_s:.3g} s")
    if isinstance(error, av.error.ExitError):
        return SourceError("no answer in time")
    if trouble := refusal(lines):
        return SourceRefused(trouble)
    is_refused = any(isinstance(error, kind) for kind, _ in _REFUSALS)
    return SourceRefused(why(error)) if is_refused else SourceError(why(error))


def codec_name(stream: VideoStream) -> str:
    """Such as "h264 (High)"."""
    context = stream.codec_context
    return f"{context.name} ({context.profile})" if context.profile else context.name


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
