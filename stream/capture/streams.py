"""NetworkStream: `rtsp://`, `rtsps://`, `http://` and `https://`, HLS among them, as sources.

Owns: how FFmpeg opens and reads a stream without adding delay. Runs in the camera's thread.
Never: gives up: a stream that ended or failed is opened again by the capture thread; nor decodes sound, or a picture
that builds upon a lost one.

Three traps of FFmpeg's RTSP, measured:
- Opening looks at 8 pictures (2.1 s at four pictures a second) and hands them over afterwards in one burst, all stamped
  late; with the options below it looks at one.
- A parser finds the end of an H.264 or H.265 picture by the beginning of the next, so a picture comes out of `demux`
  one frame interval after it is here (250 ms there, 33 ms at 30 fps), and a stamp taken then hides this delay. But the
  same moment is when the *next* picture begins to arrive, so that is the arrival which the next one gets: the delay
  stays, and the stamps tell it.
- Over TCP it does not look at RTP's sequence numbers: what a server left out goes unseen. A queue of two packets makes
  it look, and costs nothing while none is missing.

HLS comes in bursts of a segment, and a file behind HTTP as fast as the network goes: with pace=live both are played at
the rate of their time stamps. HLS counts as stalled after 20 s, since a segment may be ten seconds long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

from stream.capture.access import check_credential, protocol_options, resolve, url_with_login
from stream.capture.address import Address
from stream.capture.container import OPEN_LIMIT_S, Opened, codec_name, open_video
from stream.capture.decoder import to_ns
from stream.capture.decoders import Decoder, open_decoder
from stream.capture.ffmpeg_log import take_damage
from stream.capture.gate import KEY_LIMIT_S, Gate
from stream.capture.interrupt import interruptible, was_cut
from stream.capture.pacer import Pacer
from stream.capture.patience import Patience
from stream.capture.picture import Arrival, Items, Loss, Picture, SourceError
from stream.capture.sender_clock import SenderClock
from stream.capture.watch import Watch
from stream.config import CameraConfig

log = logging.getLogger(__name__)

_RTSP_OPTIONS = {
    "allowed_media_types": "video", "fpsprobesize": "0", "probesize": "32", "analyzeduration": "100000",
    "timeout": "60000000",  # microseconds; behind our own
}  # fmt: skip
_TRANSPORT_OPTIONS = {"tcp": {"reorder_queue_size": "2"}, "udp": {"buffer_size": "4000000"}}
_HTTP_OPTIONS = {"analyzeduration": "2000000"}
_PARSED = ("h264", "hevc")
RESOLVE_LIMIT_S = 20.0
HTTP_LIMIT_S = 15.0  # of opening: a playlist, and the first of its segments
HLS_STALL_S = 20.0
GRACE_S = 0.3
DAMAGED_NS = round(KEY_LIMIT_S * 1e9)


class NetworkStream:
    """Written by the camera's thread: `codec`, `_decoder`, `_was_warned`, and what `_patience` learnt."""

    retries = True
    can_freeze = True

    def __init__(self, address: Address, config: CameraConfig) -> None:
        self.codec = ""
        self._address = address
        self._config = config
        self._scheme = address.target.partition("://")[0].lower()
        self._is_rtsp = self._scheme.startswith("rtsp")
        self._patience = Patience(config.stall_s)
        self._was_warned = False
        self._decoder: Decoder | None = None
        check_credential(config, address.shown)
        if self._scheme == "rtsps" and config.rtsp_transport == "udp":
            raise SourceError(f"source '{address.shown}': rtsps goes over TCP, expected rtsp_transport = 'tcp'")

    def check(self) -> None:
        """Raise `SourceError` for an address without a host; whether somebody answers there may change at any time."""
        rest = self._address.target.partition("://")[2].rpartition("@")[2]
        if not rest.strip("/") or rest.startswith((":", "/", "?")):
            raise SourceError(f"source '{self._address.shown}': there is no host, expected rtsp://host[:port]/path")

    def pictures(self, watch: Watch) -> Items:
        url, shown = url_with_login(self._config), self._address.shown
        watch.expect(RESOLVE_LIMIT_S)
        resolve(url, shown)
        watch.expect(OPEN_LIMIT_S if self._is_rtsp else HTTP_LIMIT_S)
        with interruptible(watch), open_video(url, shown, watch=watch, options=self._options()) as opened:
            self.codec = codec_name(opened.stream)
            is_hls = opened.container.format.name == "hls"
            self._patience.begin(max(self._config.stall_s, HLS_STALL_S) if is_hls else self._config.stall_s)
            self._decoder = decoder = open_decoder(self._config, opened.stream)
            yield from _Reading(self._config, opened, watch, patience=self._patience, decoder=decoder).items()

    @property
    def decoder(self) -> str:
        return "" if self._decoder is None else self._decoder.name

    def _options(self) -> dict[str, str]:
        options = protocol_options(self._config, self._scheme)
        if self._scheme == "rtsps" and "tls_verify" not in options and not self._was_warned:
            self._was_warned = True
            place = f"$CREDENTIALS_DIRECTORY/{self._config.credential or 'CREDENTIAL'}.pem"
            log.warning("%s: its certificate is not checked, expected it in %s", self._address.shown, place)
        if self._is_rtsp:
            transport = self._config.rtsp_transport
            return options | _RTSP_OPTIONS | _TRANSPORT_OPTIONS[transport] | {"rtsp_transport": transport}
        return options | _HTTP_OPTIONS


class _Reading:
    """One connection, from its first packet to its last. `_alive_ns`: when it last gave, or had to drop, a picture."""

    def __init__(
        self, config: CameraConfig, opened: Opened, watch: Watch, *, patience: Patience, decoder: Decoder
    ) -> None:
        stream, is_rtsp = opened.stream, config.source.lower().startswith("rtsp")
        is_file = opened.container.format.name == "hls" or opened.container.duration is not None
        self._opened = opened
        self._watch = watch
        self._patience = patience
        self._shown = config.source_shown
        self._decoder = decoder
        self._alive_ns = self._good_ns = time.monotonic_ns()
        self._granted_ns = 0
        self._gate = Gate(self._alive_ns)
        self._clock = SenderClock(self._shown) if config.clock == "sender" else None
        self._pacer = Pacer(watch) if is_file and not is_rtsp and config.pace == "live" else None
        self._comes_late = is_rtsp and stream.codec_context.name in _PARSED

    def items(self) -> Items:
        begun = Arrival.now() if self._comes_late else None
        stream = self._opened.stream
        self._watch.expect(self._patience.deadline_s)
        for packet in self._opened.container.demux(stream):
            now = Arrival.now()
            if self._watch.is_set() or (self._pacer and not self._wait(packet, self._pacer)):
                return
            is_cut = self._comes_late and was_cut()
            good_ns = self._good_ns
            if packet.size:
                if not is_cut:
                    self._patience.note(now.ns)
                arrival = now if begun is None else begun
                yield from self._decode(packet, Arrival.now() if self._pacer else arrival)
            if is_cut:
                self._grant(good_ns)
            begun = now if self._comes_late else None
            self._watch.expect(self._patience.deadline_s, self._alive_ns)
        if self._watch.is_late():  # HLS calls its interruption an end
            raise SourceError(f"source '{self._shown}': no answer within {self._watch.limit_s:.3g} s")
        yield from self._decoder.flush()

    def _grant(self, good_ns: int) -> None:
        """A call was ended, and the parser gave what it still held: that is no sign of life.

        What waits in the socket would be one, where it was this process that stood still: there is time for that, once.
        """
        if good_ns == self._granted_ns:
            raise SourceError(f"source '{self._shown}': no answer within {self._patience.deadline_s:.3g} s")
        self._alive_ns = time.monotonic_ns() - round((self._patience.deadline_s - GRACE_S) * 1e9)
        self._good_ns = self._granted_ns = good_ns

    def _wait(self, packet: Packet[VideoStream], pacer: Pacer) -> bool:
        """Until the packet's time has come; False when told to stop."""
        time_at = packet.dts if packet.dts is not None else packet.pts
        return time_at is None or pacer.wait(to_ns(time_at, self._opened.stream.time_base))

    def _decode(self, packet: Packet[VideoStream], arrival: Arrival) -> Iterator[Picture | Loss]:
        is_damaged = take_damage(self._opened.lines) or packet.is_corrupt
        now_ns = time.monotonic_ns()
        reason = self._gate.loss_of(is_key=packet.is_keyframe, is_damaged=is_damaged, now_ns=now_ns)
        if reason:
            self._alive_ns = max(self._alive_ns, min(now_ns, self._good_ns + DAMAGED_NS))
            yield Loss(reason)
            return
        if self._clock is not None:
            arrival = self._clock.stamped(packet, arrival)
        items = list(self._decoder.decode(packet, arrival))
        if take_damage(self._opened.lines) or Loss("corrupt") in items:
            self._gate.shut(now_ns)
            items = [Loss("corrupt") if isinstance(item, Picture) else item for item in items]
        yield from items
        if any(isinstance(item, Picture) for item in items):
            self._alive_ns = self._good_ns = time.monotonic_ns()  # what the worker took of it is no silence
