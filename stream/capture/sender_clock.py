"""SenderClock: the camera's own time of a picture, where its RTCP sender reports tell it.

Owns: how far the stream's time stamps lie from Unix time by the sender's clock. One per connection, used by the
camera's thread.
Never: believes a clock that is an hour or more away from ours: such a camera was never set.

FFmpeg's RTSP reader adds "producer reference time" to each packet once the first report is here, usually within five
seconds; until then, and for senders without reports, the time of arrival counts, and `clock_source` says so. The side
data of the first packet belongs to the next one, so an offset counts once two packets agree on it.
"""

from __future__ import annotations

import logging
import struct

from av.packet import Packet
from av.video.stream import VideoStream

from stream.capture.picture import Arrival
from stream.frame import ClockSource

log = logging.getLogger(__name__)

MAX_OFF_NS = 3600 * 10**9
AGREE_NS = 5_000_000


class SenderClock:
    """Written by the camera's thread."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._offset_ns: int | None = None
        self._candidate_ns: int | None = None
        self._was_told = False

    def stamped(self, packet: Packet[VideoStream], arrival: Arrival) -> Arrival:
        """The arrival with the sender's Unix time, or as it was."""
        if packet.pts is None or packet.time_base is None:
            return arrival
        pts_ns = packet.pts * 10**9 * packet.time_base.numerator // packet.time_base.denominator
        if packet.has_sidedata("prft"):
            self._learn(struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))[0] * 1000 - pts_ns)
        if self._offset_ns is None:
            return arrival
        utc_ns = pts_ns + self._offset_ns
        if abs(utc_ns - arrival.utc_ns) >= MAX_OFF_NS:
            self._tell((utc_ns - arrival.utc_ns) / 1e9)
            return arrival
        return Arrival(utc_ns, arrival.ns, ClockSource.SENDER)

    def _learn(self, offset_ns: int) -> None:
        if self._candidate_ns is not None and abs(offset_ns - self._candidate_ns) <= AGREE_NS:
            self._offset_ns = offset_ns
        self._candidate_ns = offset_ns

    def _tell(self, off_s: float) -> None:
        if not self._was_told:
            log.warning("%s: its clock is %.0f s away from ours; the time of arrival counts", self._shown, off_s)
        self._was_told = True
