"""`VideoFile`: a file that FFmpeg reads (mp4, mov, mkv, webm, avi, gif, ...) as pictures with numbers and times.

Owns: the number of every picture, its orientation, and the choice between seeking and counting. Runs in the thread that
asks; FFmpeg's own threads decode a few pictures ahead. Never: leaves out a picture that was decoded, or holds more than
one; a search for a number or a time holds eight bytes for each picture before.

Pictures are upright (the file's rotation applied), each in its own size, should that change on the way. A picture's
number counts the decoded ones from the beginning. What lies far inside is found by its time: from the key frame before,
forward until that very time comes. Where a file's times cannot tell (absent, repeated, hidden pictures), it is decoded
from the beginning and counted. What a cut or damaged file still holds is read, and one line says what is missing.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# OpenCV before PyAV: see the package.
import cv2  # noqa: F401

# isort: split
import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from stream.capture.container import FILE_OPTIONS, Opened, open_video
from stream.capture.decoder import copy_frame
from stream.capture.picture import SourceError
from stream.footage.reading import Reading, Timed
from stream.sequence import FootageError, Image, Picture

log = logging.getLogger(__name__)

EXPECTED = "expected a video that FFmpeg reads"


class VideoFile:
    """Written by the thread that reads: `remarks`, what was wrong in the latest reading from the beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.remarks: tuple[str, ...] = ()
        with self._open() as opened:
            stream, seconds = opened.stream, None
            self.fps = float(stream.average_rate) if stream.average_rate else None
            self._told_frames = stream.frames or None
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            elif opened.container.duration:
                seconds = opened.container.duration / av.time_base
            self._seconds = seconds

    @property
    def num_frames(self) -> int | None:
        """As the file tells; else an estimate from its duration and rate."""
        if self._told_frames is None and self._seconds and self.fps:
            return max(1, round(self._seconds * self.fps))
        return self._told_frames

    def index_at(self, time_ns: int) -> int:
        """The first picture that is not earlier; the number of pictures where there is none."""
        if time_ns <= 0:
            return 0
        with self._open() as opened:
            times = Reading(opened).times(until_ns=time_ns)
        if times is not None:
            return bisect.bisect_left(times, time_ns)
        with self._open() as opened:
            return sum(found_ns < time_ns for found_ns, _ in Reading(opened).frames())

    def pictures(self, start: int = 0, *, time_ns: int | None = None) -> Iterator[Picture]:
        """From this picture on, in order; its own time, if it is known, spares looking for it. Raises `FootageError`.

        A picture that does not exist is the end.
        """
        self.remarks = ()
        if start and time_ns is None:
            time_ns = self._time_of(start)
        if start and time_ns is not None:
            with self._open() as opened:
                frames = Reading(opened).frames_from(time_ns)
                if frames is not None:
                    yield from _pictures(frames, start)
                    return
        yield from self._counted(start)

    def _counted(self, start: int) -> Iterator[Picture]:
        """All is decoded, and what lies before is not shown."""
        with self._open() as opened:
            reading, num_frames = Reading(opened), 0
            for num_frames, timed in enumerate(reading.frames(), 1):
                if num_frames > start:
                    yield _picture(timed, num_frames - 1)
            if not num_frames:
                raise FootageError(f"{self.path}: not one picture in it can be decoded, {EXPECTED}")
            remark = reading.remark(num_frames, self._told_frames)
        if remark:
            self.remarks = (f"{self.path}: {remark}",)
            log.warning("%s", self.remarks[0])

    def _time_of(self, index: int) -> int | None:
        with self._open() as opened:
            times = Reading(opened).times(beyond=index)
        return None if times is None or index >= len(times) else times[index]

    @contextmanager
    def _open(self) -> Iterator[Opened]:
        try:
            with open_video(f"file:{self.path}", str(self.path), options=FILE_OPTIONS) as opened:
                yield opened
        except SourceError as error:
            raise FootageError(_explained(self.path, error)) from error


def _explained(path: Path, error: SourceError) -> str:
    reason = str(error).removeprefix(f"source '{path}': ")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as problem:
        return f"{path}: {(problem.strerror or 'unreadable').lower()}, expected a video that can be read"
    if not head:
        return f"{path}: the file is empty, {EXPECTED}"
    if head[4:8] == b"ftyp" and "not a video" in reason:
        return f"{path}: its index (moov) is missing, as of a recording that was cut off, expected a whole file"
    return f"{path}: {reason}, {EXPECTED}"


def _pictures(frames: Iterator[Timed], first: int) -> Iterator[Picture]:
    for index, timed in enumerate(frames, first):
        yield _picture(timed, index)


def _picture(timed: Timed, index: int) -> Picture:
    return Picture(index, timed[0], _upright(timed[1]))


def _upright(frame: VideoFrame) -> Image:
    """As BGR, turned as the file says."""
    num_turns = round(frame.rotation / 90) % 4
    height, width = (frame.width, frame.height) if num_turns % 2 else (frame.height, frame.width)
    image_hwc = np.empty((height, width, 3), np.uint8)
    copy_frame(frame, VideoReformatter(), image_hwc, num_turns=num_turns)
    return image_hwc
