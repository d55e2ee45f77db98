"""NetworkStream: `rtsp://`, `rtsps://`, `http://` and `https://` as sources.

Owns: how FFmpeg opens and reads a stream without adding delay. Runs in the camera's thread.
Never: gives up: a stream that ended or failed is opened again by the capture thread; nor decodes sound.

Two traps of FFmpeg's RTSP, measured with a server that sends four pictures a second:
- Opening looks at 8 pictures (2.1 s here) and hands them over afterwards in one burst, all stamped late; with the
  options below it looks at one.
- A parser finds the end of an H.264 or H.265 picture by the beginning of the next, so a picture comes out of `demux`
  one frame interval after it is here (250 ms there, 33 ms at 30 fps), and a stamp taken then hides this delay. But the
  same moment is when the *next* picture begins to arrive, so that is the arrival which the next one gets: the delay
  stays, and the stamps tell it.
"""

from __future__ import annotations

from stream.capture.address import Address, url_for_ffmpeg
from stream.capture.container import open_video
from stream.capture.decoder import PictureDecoder
from stream.capture.interrupt import interruptible
from stream.capture.picture import Arrival, Items, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig

_RTSP_OPTIONS = {"allowed_media_types": "video", "fpsprobesize": "0", "probesize": "32", "analyzeduration": "100000"}
_PARSED = ("h264", "hevc")


class NetworkStream:
    """Written by nobody after construction."""

    retries = True

    def __init__(self, address: Address, config: CameraConfig) -> None:
        self._address = address
        self._is_rtsp = address.target.lower().startswith("rtsp")
        self._options = {**_RTSP_OPTIONS, "rtsp_transport": config.rtsp_transport} if self._is_rtsp else {}

    def check(self) -> None:
        """Raise `SourceError` for an address without a host; whether somebody answers there may change at any time."""
        rest = self._address.target.partition("://")[2].rpartition("@")[2]
        if not rest.strip("/") or rest.startswith((":", "/", "?")):
            raise SourceError(f"source '{self._address.shown}': there is no host, expected rtsp://host[:port]/path")

    def pictures(self, watch: Watch) -> Items:
        url, shown = url_for_ffmpeg(self._address.target), self._address.shown
        with interruptible(watch), open_video(url, shown, options=self._options) as (container, stream):
            decoder = PictureDecoder(stream, low_delay=True)
            comes_late = self._is_rtsp and stream.codec_context.name in _PARSED
            begun = Arrival.now() if comes_late else None
            for packet in container.demux(stream):
                now = Arrival.now()
                if watch.is_set():
                    return
                if packet.size:
                    yield from decoder.decode(packet, begun if begun is not None else now)
                begun = now if comes_late else None
            yield from decoder.flush()
