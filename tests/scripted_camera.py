"""An RTSP camera of our own, for what no good server does: packets lost where the test says, wrong clocks, silences.

with ScriptedCamera(encode(90)) as camera:
    camera.lose = lambda number, index, count: number == 40 and index == 1     # RTP packets of picture 40
    ... camera.url ... camera.is_silent = True ... camera.clock_s = lambda: time.time() + 3

One thread per client sends the pictures at their rate, again and again; each knows nothing of the others.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

import av
import numpy as np
from numpy.typing import NDArray

from tests.clips import numbered_picture

NTP_OFFSET_S = 2_208_988_800
MAX_PAYLOAD = 1200
GOP = 15
NAL = {"h264": (b"H264", 1), "hevc": (b"H265", 2)}  # name in SDP, bytes of a NAL unit's header


@dataclass(frozen=True, slots=True)
class Coded:
    """One picture in Annex B."""

    data: bytes
    is_key: bool


@dataclass(frozen=True, slots=True)
class Programme:
    codec: str
    fps: float
    pictures: tuple[Coded, ...]


def encode(
    num: int, *, codec: str = "h264", size: tuple[int, int] = (160, 120), fps: float = 30, still: bool = False
) -> Programme:
    """Numbered pictures without B-frames, a key frame every GOP, most of them in several RTP packets."""
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(GOP), "crf": "20"}
    if codec == "hevc":
        options["x265-params"] = f"log-level=none:repeat-headers=1:pools=1:frame-threads=1:keyint={GOP}"
    encoder = "libx264" if codec == "h264" else "libx265"
    buffer, packets = io.BytesIO(), []
    with av.open(buffer, "w", format="h264" if codec == "h264" else "hevc") as container:
        stream = container.add_stream(encoder, rate=round(fps), options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(num):
            image_hwc = numbered_picture(0 if still else number, width=size[0], height=size[1])
            packets += stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image_hwc), "bgr24"))
        packets += stream.encode()
        coded = tuple(Coded(bytes(packet), packet.is_keyframe) for packet in packets)
    return Programme(codec, fps, coded)


def rtp_payloads(picture: Coded, codec: str) -> list[bytes]:
    """The picture's NAL units, the long ones in fragments (FU-A of RFC 6184, FU of RFC 7798)."""
    units = [unit for unit in re.split(rb"\x00\x00\x00?\x01", picture.data) if unit]
    payloads: list[bytes] = []
    for unit in units:
        if len(unit) <= MAX_PAYLOAD:
            payloads.append(unit)
            continue
        if codec == "h264":
            head, kind, body = bytes([unit[0] & 0xE0 | 28]), unit[0] & 0x1F, unit[1:]
        else:
            head, kind, body = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[0] >> 1 & 0x3F, unit[2:]
        pieces = [body[at : at + MAX_PAYLOAD] for at in range(0, len(body), MAX_PAYLOAD)]
        for index, piece in enumerate(pieces):
            edge = (0x80 if index == 0 else 0) | (0x40 if index == len(pieces) - 1 else 0)
            payloads.append(head + bytes([edge | kind]) + piece)
    return payloads


class ScriptedCamera:
    """The fields without underscore may be set at any time by the test's thread."""

    def __init__(self, programme: Programme) -> None:
        self.programme = programme
        self.lose: Callable[[int, int, int], bool] = lambda number, index, count: False
        self.is_silent = False  # the connection stays, reports go on, but no picture
        self.repeats: int | None = None  # sends this one picture only
        self.clock_s: Callable[[], float] | None = None  # for sender reports; None = none are sent
        self.jump_s = 0.0  # added to the pictures' time stamps
        self.status = "200 OK"  # of DESCRIBE
        self.num_clients = 0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, name="scripted", daemon=True)]

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"

    def drop_clients(self) -> None:
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_clients()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self.num_clients += 1
            self._threads.append(threading.Thread(target=self._serve, args=(client,), name="scripted", daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        try:
            send = self._handshake(client)
            if send is not None:
                self._send_pictures(send)
        except OSError:
            return
        finally:
            client.close()

    def _handshake(self, client: socket.socket) -> Callable[[int, bytes], None] | None:
        """Answer until PLAY; how a packet of a channel (0 = RTP, 1 = RTCP) is sent then."""
        reader = client.makefile("rb")
        send: Callable[[int, bytes], None] | None = None
        while True:
            head = _read_head(reader)
            if not head:
                return None
            method = head.split()[0]
            found = re.search(r"CSeq: *(\d+)", head)
            lines, body, status = [f"CSeq: {found[1] if found else 0}", "Session: 1"], b"", "200 OK"
            if method == "OPTIONS":
                lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                status, body = self.status, self._sdp()
                lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                ports = re.search(r"client_port=(\d+)-(\d+)", head)
                transport = re.search(r"Transport: *(.*?)\r", head)
                send = _over_udp(int(ports[1])) if ports else _over_tcp(client)
                lines.append(
                    f"Transport: {transport[1] if transport else ''}" + (";server_port=5000-5001" if ports else "")
                )
            client.sendall("\r\n".join([f"RTSP/1.0 {status}", *lines, "", ""]).encode() + body)
            if method == "PLAY":
                return send

    def _sdp(self) -> bytes:
        name = NAL[self.programme.codec][0]
        return (
            b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
            b"a=rtpmap:96 " + name + b"/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
        )

    def _send_pictures(self, send: Callable[[int, bytes], None]) -> None:
        seq, position, first, programme = 1000, 0, 0, self.programme
        start_s = due_s = time.monotonic()
        while not self._closing.is_set():
            if self.programme is not programme:
                programme, first = self.programme, position  # from its first picture on
            elapsed_s = time.monotonic() - start_s
            stamp = round((elapsed_s + self.jump_s) * 90_000) + 12345 & 0xFFFFFFFF
            number = self.repeats if self.repeats is not None else (position - first) % len(programme.pictures)
            if self.clock_s is not None and position % 10 == 3:
                now = self.clock_s() + NTP_OFFSET_S
                send(1, struct.pack("!BBHIIIIII", 0x80, 200, 6, 7, int(now), int(now % 1 * 2**32), stamp, 0, 0))
            payloads = [] if self.is_silent else rtp_payloads(programme.pictures[number], programme.codec)
            for index, payload in enumerate(payloads):
                marker = 0x80 if index == len(payloads) - 1 else 0
                if not self.lose(position, index, len(payloads)):
                    send(0, struct.pack("!BBHII", 0x80, marker | 96, seq & 0xFFFF, stamp, 7) + payload)
                seq += 1
            position += 1
            due_s = max(due_s + 1 / programme.fps, time.monotonic() - 0.5)
            self._closing.wait(max(0.0, due_s - time.monotonic()))


def _read_head(reader: BinaryIO) -> str:
    """A request's lines; "" at the end of the connection."""
    lines = b""
    while line := reader.readline():
        lines += line
        if line == b"\r\n":
            return lines.decode()
    return ""


def _over_tcp(client: socket.socket) -> Callable[[int, bytes], None]:
    return lambda channel, packet: client.sendall(struct.pack("!cBH", b"$", channel, len(packet)) + packet)


def _over_udp(port: int) -> Callable[[int, bytes], None]:
    def send(channel: int, packet: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(packet, ("127.0.0.1", port + channel))

    return send


def decode(programme: Programme) -> list[NDArray[np.uint8]]:
    """The pictures as a decoder gives them when nothing is lost."""
    codec = av.CodecContext.create(programme.codec, "r")
    frames = [frame for coded in programme.pictures for frame in codec.decode(av.Packet(coded.data))]
    return [frame.to_ndarray(format="bgr24") for frame in (*frames, *codec.decode(None))]


def sizes(programme: Programme) -> Sequence[int]:
    """RTP packets of each picture."""
    return [len(rtp_payloads(picture, programme.codec)) for picture in programme.pictures]
