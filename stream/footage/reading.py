"""`Reading`: one opened video from some picture on: packets become decoded frames with their times.

Owns: the decoder, the counts of what was damaged, and the sentence about it. Runs in the thread that reads.
Never: converts a picture, or numbers it.

Every frame that FFmpeg gives is passed on, also one that it calls damaged: pictures keep their numbers. Times rise
strictly: a frame without a time, or with one that does not rise, is put after the one before.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterator

# OpenCV before PyAV: see the package.
import cv2  # noqa: F401

# isort: split
import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stream.capture.container import Opened
from stream.capture.decoder import to_ns

DEFAULT_PERIOD_NS = 40_000_000
STEPS_BACK_NS = (0, 3_000_000_000, 30_000_000_000)  # where the key frame found turns out to lie behind what is sought
HIDDEN_PICTURES = ("vp8",)  # codecs with packets that show nothing
_CUT = re.compile(r"ended prematurely|truncated|partial file", re.IGNORECASE)

Timed = tuple[int, VideoFrame]


class Reading:
    """All fields are written by the thread that reads."""

    def __init__(self, opened: Opened) -> None:
        self._container, self._stream, self._lines = opened.container, opened.stream, opened.lines
        self._codec = opened.stream.codec_context
        self._codec.thread_type = "AUTO"
        self._origin = opened.stream.start_time or 0
        rate = opened.stream.average_rate
        self._period_ns = round(10**9 / rate) if rate else DEFAULT_PERIOD_NS
        self.num_packets = self.num_damaged = 0
        self._is_cut = False

    def frames(self) -> Iterator[Timed]:
        """From where the file stands to its end; a file that breaks off ends there."""
        last_ns = -1
        for frame in self._decoded():
            self._listen()
            after_ns = last_ns + self._period_ns if last_ns >= 0 else 0
            time_ns = after_ns if frame.pts is None else self._time(frame.pts)
            last_ns = max(time_ns, last_ns + 1)
            self.num_damaged += frame.is_corrupt
            yield last_ns, frame

    def frames_from(self, time_ns: int) -> Iterator[Timed] | None:
        """From the frame of exactly this time on; None where seeking does not find it."""
        for back_ns in STEPS_BACK_NS:
            frames = self._sought(time_ns, time_ns - back_ns)
            if frames is not None:
                return frames
        return None

    def times(self, *, beyond: int | None = None, until_ns: int | None = None) -> array[int] | None:
        """When each picture is shown, from the file's packets alone; None where they cannot tell.

        With `beyond`, those up to this picture suffice; with `until_ns`, those up to this time.
        """
        times, last_key_ns = array("q"), -1
        if self._codec.name in HIDDEN_PICTURES:
            return None
        for packet in self._packets():
            if packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt:
                return None
            time_ns = self._time(packet.pts)
            if packet.is_keyframe:
                # all that is shown before the key frame before this one has come
                if until_ns is not None and until_ns < last_key_ns:
                    break
                if beyond is not None and beyond < len(times) and beyond < sum(time < last_key_ns for time in times):
                    break
                last_key_ns = time_ns
            times.append(time_ns)
        ordered = array("q", sorted(times))
        return ordered if all(one < other for one, other in itertools.pairwise(ordered)) else None

    def remark(self, num_frames: int, num_told: int | None) -> str:
        """What was missing or damaged, once all was read from the beginning; "" = nothing."""
        self._listen()
        is_short = num_told is not None and self.num_packets < num_told
        if is_short or self._is_cut:
            told = f" of {num_told}" if num_told else ""
            return f"the file is cut off: {num_frames}{told} pictures are there and were read"
        return f"{self.num_damaged} of its pictures or packets are damaged" if self.num_damaged else ""

    def _sought(self, time_ns: int, goal_ns: int) -> Iterator[Timed] | None:
        base = self._stream.time_base
        assert base is not None, "an opened stream has a time base"
        goal = self._origin + max(0, goal_ns) * base.denominator // (10**9 * base.numerator)
        try:
            self._container.seek(goal, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return None
        frames, is_whole = self.frames(), False
        for found_ns, frame in frames:
            is_whole |= frame.key_frame  # before it, a decoder may show what is half there
            if found_ns >= time_ns:
                break
        else:
            return None
        self.num_damaged = 0
        return _chained((found_ns, frame), frames) if is_whole and found_ns == time_ns else None

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    self.num_packets += 1
                    yield packet
        except av.error.FFmpegError:
            self._is_cut = True

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return list(self._codec.decode(packet))
        except av.error.FFmpegError:
            self.num_damaged += 1
            return []

    def _time(self, pts: int) -> int:
        return max(0, to_ns(pts - self._origin, self._stream.time_base))

    def _listen(self) -> None:
        """Empty what FFmpeg says, and note whether the file breaks off."""
        self._is_cut |= any(_CUT.search(text) for _, _, text in self._lines)
        self._lines.clear()


def _chained(first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    yield from rest
