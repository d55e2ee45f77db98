"""VideoFile: a video file (mp4, avi, mkv, ...) as a source.

Owns: how a file gets the behaviour of a camera. Runs in the camera's thread.
Never: drops a picture; with pace=live the ring does, with pace=offline nobody.

pace=live: a packet is read when its decoding time is due by the file's own clock, and arrives at that moment; what the
worker does not take in time is replaced in the ring. pace=offline: as fast as the worker goes; the capture thread waits
for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from stream.capture.address import Address
from stream.capture.container import FILE_OPTIONS, OPEN_LIMIT_S, codec_name, open_video
from stream.capture.decoder import PictureDecoder, to_ns
from stream.capture.pacer import Pacer
from stream.capture.picture import Arrival, Items, Loss, Picture, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig

DEFAULT_PERIOD_NS = 40_000_000  # of a file that does not say its rate


class VideoFile:
    """Written by the camera's thread: `codec`."""

    retries = False
    can_freeze = False
    decoder = PictureDecoder.name

    def __init__(self, address: Address, config: CameraConfig) -> None:
        address.only()
        self.codec = ""
        self._address = address
        self._is_live = config.pace == "live"

    def check(self) -> None:
        """Raise `SourceError` for a file that is absent, unreadable, or no video."""
        if not Path(self._address.target).is_file():
            raise SourceError(f"source '{self._address.shown}': there is no such file")
        with open_video(self._address.target, self._address.shown, options=FILE_OPTIONS) as opened:
            assert opened.stream.type == "video", "open_video gives a video stream"

    def pictures(self, watch: Watch) -> Items:
        watch.expect(OPEN_LIMIT_S)
        with open_video(self._address.target, self._address.shown, options=FILE_OPTIONS) as opened:
            self.codec = codec_name(opened.stream)
            decoder = PictureDecoder(opened.stream, low_delay=self._is_live)
            play = _paced if self._is_live else _at_once
            for item in play(opened.container, opened.stream, decoder, watch=watch):
                opened.lines.clear()
                yield item


def _at_once(
    container: InputContainer, stream: VideoStream, decoder: PictureDecoder, *, watch: Watch
) -> Iterator[Picture | Loss]:
    for packet in container.demux(stream):
        if watch.is_set():
            return
        if packet.size:
            yield from decoder.decode(packet, Arrival.now())
    yield from decoder.flush()


def _paced(
    container: InputContainer, stream: VideoStream, decoder: PictureDecoder, *, watch: Watch
) -> Iterator[Picture | Loss]:
    pacer, due_ns, period_ns = Pacer(watch), 0, _period_ns(stream)
    for packet in container.demux(stream):
        if not packet.size:
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        due_ns = due_ns + period_ns if time is None else to_ns(time, stream.time_base)
        if not pacer.wait(due_ns):
            return
        yield from decoder.decode(packet, Arrival.now())
    for picture in decoder.flush():
        due_ns += period_ns
        if not pacer.wait(due_ns):
            return
        yield picture


def _period_ns(stream: VideoStream) -> int:
    rate = stream.average_rate
    return round(10**9 / rate) if rate else DEFAULT_PERIOD_NS
