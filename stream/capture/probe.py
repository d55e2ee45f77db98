"""What a camera sends, found out by looking at it for some seconds: for `sam2-stream doctor`.

Owns: nothing; opens the source as the camera's thread would, and closes it. Runs in whichever thread calls it.
Never: decodes more than one picture, or shows a password.

Packets tell what pictures do not: how often a key frame comes (after a reconnect nothing is shown before one), and
whether pictures are sent out of order (B-frames), which costs their delay.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.packet import Packet
from av.video.stream import VideoStream

from stream.capture.access import resolve, url_with_login
from stream.capture.address import Kind, parse_source
from stream.capture.container import FILE_OPTIONS, OPEN_LIMIT_S, Opened, codec_name, open_video
from stream.capture.interrupt import interruptible
from stream.capture.picture import Picture, SourceError
from stream.capture.sources import open_source
from stream.capture.streams import NetworkStream
from stream.capture.watch import Watch
from stream.config import CameraConfig

NUM_KEYS = 3  # looking goes on until so many were seen, or the time is over
NUM_PACKETS = 30
CODECS = ("h264", "hevc", "av1", "mjpeg", "vp9")


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What was seen; None or 0 where nothing can be said, such as of pictures that are no stream."""

    codec: str
    width: int
    height: int
    first_s: float  # from the beginning of opening to the first packet or picture
    fps: float = 0.0
    num_packets: int = 0
    key_interval_s: float | None = None  # the longest seen; None = not two key frames
    has_b_frames: bool = False


def library() -> str:
    """What reads and decodes."""
    return f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}"


def decoders() -> dict[str, bool]:
    """Which video codecs this FFmpeg decodes."""
    return {name: _can_decode(name) for name in CODECS}


def probe(config: CameraConfig, *, limit_s: float) -> StreamFacts:
    """Look at a camera for at most `limit_s`, opening not counted; raises `SourceError`."""
    source, address = open_source(config), parse_source(config.source)
    source.check()
    begun, watch = time.monotonic(), Watch()
    if isinstance(source, NetworkStream):
        url = url_with_login(config)
        resolve(url, address.shown)
        options = source._options()
    elif address.kind is Kind.FILE:
        url, options = address.target, FILE_OPTIONS
    else:
        return _first_picture(config, limit_s)
    watch.expect(OPEN_LIMIT_S)
    with interruptible(watch), open_video(url, address.shown, watch=watch, options=options) as opened:
        watch.expect(limit_s)
        try:
            return _look(opened, begun, time.monotonic() + limit_s)
        except StopIteration:
            raise SourceError(f"source '{address.shown}': it sent nothing within {limit_s:g} s") from None


def _look(opened: Opened, begun: float, deadline: float) -> StreamFacts:
    """Raises StopIteration when no packet came."""
    stream, packets, num_keys = opened.stream, [], 0
    found = (packet for packet in opened.container.demux(stream) if packet.size)
    packets.append(next(found))
    first_s = time.monotonic() - begun
    for packet in found:
        packets.append(packet)
        opened.lines.clear()
        num_keys += packet.is_keyframe
        if time.monotonic() > deadline or (num_keys >= NUM_KEYS and len(packets) >= NUM_PACKETS):
            break
    times = [_seconds(packet) for packet in packets]
    known = [at for at in times if at is not None]
    keys = [at for packet, at in zip(packets, times, strict=True) if packet.is_keyframe and at is not None]
    span = max(known) - min(known) if known else 0.0
    return StreamFacts(
        codec=codec_name(stream), width=stream.codec_context.width, height=stream.codec_context.height,
        first_s=first_s, fps=(len(known) - 1) / span if span > 0 else 0.0, num_packets=len(packets),
        key_interval_s=max((b - a for a, b in itertools.pairwise(keys)), default=None),
        has_b_frames=any(b < a for a, b in itertools.pairwise(known)),
    )  # fmt: skip


def _first_picture(config: CameraConfig, limit_s: float) -> StreamFacts:
    """Of a source that is no container: a webcam, a folder, generated or pushed pictures."""
    source, watch, begun = open_source(config), Watch(), time.monotonic()
    timer = threading.Timer(limit_s, watch.set)
    timer.start()
    try:
        for item in source.pictures(watch):
            if isinstance(item, Picture):
                codec = source.codec or "pictures"
                return StreamFacts(codec, item.width, item.height, time.monotonic() - begun)
    finally:
        timer.cancel()
    raise SourceError(f"source '{parse_source(config.source).shown}': no picture within {limit_s:g} s")


def _seconds(packet: Packet[VideoStream]) -> float | None:
    return None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def _can_decode(name: str) -> bool:
    try:
        Codec(name, "r")
    except UnknownCodecError:
        return False
    return True
