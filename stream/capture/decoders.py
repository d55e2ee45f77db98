"""Which decoder a live stream gets, and what happens to one that is not what it should be.

Owns: the choice (`decoder` of the camera: auto, ffmpeg, nvdec), and the trial that NVDEC has to pass. Made and used in
one camera's thread. Never: falls back without saying so, or hands out a picture of a decoder on trial.

auto takes NVDEC where PyNvVideoCodec and a GPU are there and the stream is H.264 or H.265. On trial both decoders get
every packet, FFmpeg's pictures are used, and the first picture that both have decides: alike within a few grey levels,
and NVDEC goes on alone; else, or without one in `MAX_TRIAL_PACKETS`, it is given up. `nvdec` by name fails then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from stream.capture.decoder import PictureDecoder
from stream.capture.nvdec import NvdecDecoder, NvdecFault
from stream.capture.picture import Arrival, Loss, Picture, SourceError
from stream.config import CameraConfig

log = logging.getLogger(__name__)

MAX_TRIAL_PACKETS = 120
MAX_MEAN_LEVELS = 3.0  # chroma is rounded differently; a wrong colour matrix or a shifted row is worse


class Decoder(Protocol):
    """What turns packets into pictures."""

    @property
    def name(self) -> str:
        """ffmpeg or nvdec: whose pictures these are."""
        ...

    def decode(self, packet: Packet[VideoStream], arrival: Arrival) -> Iterator[Picture | Loss]: ...

    def flush(self) -> Iterator[Picture | Loss]: ...


def open_decoder(config: CameraConfig, stream: VideoStream) -> Decoder:
    """For a live stream; raises `SourceError` where `nvdec` is wanted by name and cannot be had."""
    ffmpeg = PictureDecoder(stream, low_delay=True)
    if config.decoder == "ffmpeg":
        return ffmpeg
    try:
        return Trial(config, ffmpeg, NvdecDecoder(stream))
    except NvdecFault as fault:
        if config.decoder == "nvdec":
            raise SourceError(f"source '{config.source_shown}': decoder nvdec: {fault}") from None
        log.debug("cam:%s: decoded by FFmpeg: %s", config.name, fault)
        return ffmpeg


class Trial:
    """Fulfils `Decoder`. Written by the camera's thread: `name`, `_candidate` (None = given up), `_num_packets`."""

    def __init__(self, config: CameraConfig, ffmpeg: Decoder, candidate: Decoder) -> None:
        self.name = "ffmpeg"
        self._config, self._ffmpeg = config, ffmpeg
        self._candidate: Decoder | None = candidate
        self._num_packets = 0

    def decode(self, packet: Packet[VideoStream], arrival: Arrival) -> Iterator[Picture | Loss]:
        if self._candidate is None:
            yield from self._ffmpeg.decode(packet, arrival)
        elif self.name == "nvdec":
            yield from self._believed(self._candidate.decode(packet, arrival))
        else:
            items = list(self._ffmpeg.decode(packet, arrival))
            self._judge(self._candidate, items, packet, arrival=arrival)
            yield from items

    def flush(self) -> Iterator[Picture | Loss]:
        if self._candidate is not None and self.name == "nvdec":
            yield from self._believed(self._candidate.flush())
        else:
            yield from self._ffmpeg.flush()

    def _believed(self, items: Iterator[Picture | Loss]) -> Iterator[Picture | Loss]:
        try:
            yield from items
        except NvdecFault as fault:
            raise SourceError(f"source '{self._config.source_shown}': decoder nvdec: {fault}") from None

    def _judge(
        self, candidate: Decoder, items: list[Picture | Loss], packet: Packet[VideoStream], *, arrival: Arrival
    ) -> None:
        self._num_packets += 1
        try:
            found = list(candidate.decode(packet, arrival))
        except NvdecFault as fault:
            self._give_up(str(fault))
            return
        pairs = [
            (a, b) for a, b in zip(items, found, strict=False) if isinstance(a, Picture) and isinstance(b, Picture)
        ]
        if not pairs and self._num_packets < MAX_TRIAL_PACKETS:
            return
        levels = mean_levels(*pairs[0]) if pairs else float("inf")
        if levels > MAX_MEAN_LEVELS:
            said = f"its picture is {levels:.1f} grey levels off, expected {MAX_MEAN_LEVELS:g}"
            self._give_up(said if pairs else f"no picture of {self._num_packets} packets")
            return
        self.name = "nvdec"
        log.info("cam:%s: decoded by NVDEC (%.1f grey levels from FFmpeg)", self._config.name, levels)

    def _give_up(self, why: str) -> None:
        if self._config.decoder == "nvdec":
            raise SourceError(f"source '{self._config.source_shown}': decoder nvdec: {why}")
        log.warning("cam:%s: NVDEC is not used, FFmpeg decodes: %s", self._config.name, why)
        self._candidate = None


def mean_levels(one: Picture, other: Picture) -> float:
    """How far two pictures are apart; endless for different sizes."""
    if (one.height, one.width) != (other.height, other.width):
        return float("inf")
    images = np.empty((2, one.height, one.width, 3), np.uint8)
    one.copy_into(images[0])
    other.copy_into(images[1])
    return float(np.abs(images[0].astype(np.int16) - images[1]).mean())
