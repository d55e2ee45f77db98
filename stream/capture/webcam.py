"""Webcam: a camera of this machine (`0`, `/dev/video0`) through Linux's V4L2.

Owns: which clock a webcam's pictures are stamped by. Runs in the camera's thread.
Never: invents a time: the driver's stamp is kept when it lies within the last second of one of our clocks, else arrival
counts.

PyAV rather than OpenCV: FFmpeg's V4L2 input gives the driver's stamp of each buffer in microseconds with the packet,
and a webcam's MJPEG or H.264 takes the same way as any stream. NOT TRIED ON A CAMERA: the machine this was written on
has none; the tests feed made-up packets' stamps, and see the failure messages. A driver that hangs is not interrupted:
`stop` then takes effect at the next picture.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from stream.capture.address import Address
from stream.capture.container import OPEN_LIMIT_S, codec_name, open_video
from stream.capture.decoder import PictureDecoder
from stream.capture.interrupt import interruptible
from stream.capture.patience import Patience
from stream.capture.picture import Arrival, Items, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig
from stream.frame import ClockSource

MAX_AGE_NS = 10**9


class Webcam:
    """Written by the camera's thread: `codec`."""

    retries = True
    can_freeze = True
    decoder = PictureDecoder.name

    def __init__(self, address: Address, config: CameraConfig) -> None:
        address.only("width", "height", "fps", "format")
        self.codec = ""
        self._patience = Patience(config.stall_s)
        self._address = address
        self._options: dict[str, str] = {}
        if {"width", "height"} & address.options.keys():
            width = address.integer("width", 640, low=16, high=16384)
            height = address.integer("height", 480, low=16, high=16384)
            self._options["video_size"] = f"{width}x{height}"
        if "fps" in address.options:
            self._options["framerate"] = f"{address.number('fps', 30, low=1, high=1000):g}"
        if "format" in address.options:
            self._options["input_format"] = address.options["format"]

    def check(self) -> None:
        """Raise `SourceError` on a system without V4L2; a webcam that is not plugged in may come later."""
        if not sys.platform.startswith("linux"):
            raise SourceError(f"source '{self._address.shown}': webcams need Linux, this is {sys.platform}")

    def pictures(self, watch: Watch) -> Items:
        self.check()
        device, shown = self._address.target, self._address.shown
        if not Path(device).exists():
            raise SourceError(f"source '{shown}': there is no webcam {device}, expected {_present()}")
        watch.expect(OPEN_LIMIT_S)
        video = open_video(device, shown, watch=watch, format_name="v4l2", options=self._options)
        with interruptible(watch), video as opened:
            self.codec = codec_name(opened.stream)
            self._patience.begin(self._patience.floor_s)
            decoder = PictureDecoder(opened.stream, low_delay=True)
            watch.expect(self._patience.deadline_s)
            for packet in opened.container.demux(opened.stream):
                arrival = driver_time(packet.pts)
                if watch.is_set():
                    return
                if packet.size:
                    yield from decoder.decode(packet, arrival)
                    self._patience.note(arrival.ns)
                opened.lines.clear()
                watch.expect(self._patience.deadline_s)


def driver_time(pts_us: int | None) -> Arrival:
    """The driver's stamp of a buffer, on whichever of our clocks it lies; our own time where it lies on none."""
    for now_ns in (time.monotonic_ns(), time.time_ns()):
        if pts_us is not None and 0 <= now_ns - pts_us * 1000 <= MAX_AGE_NS:
            return Arrival.ago(now_ns - pts_us * 1000, ClockSource.DRIVER)
    return Arrival.now()


def _present() -> str:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"one of {', '.join(devices)}" if devices else "a webcam to be plugged in (there is none now)"
