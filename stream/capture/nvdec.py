"""`NvdecDecoder`: packets of a live stream become pictures on the GPU's decoder, through PyNvVideoCodec.

Owns: a PyNvVideoCodec decoder. Made and used in one camera's thread. PyNvVideoCodec is optional (`pip install
PyNvVideoCodec`, and NVIDIA's driver with its video part). Never: demultiplexes; PyAV does, so that arrival, damage and
credentials are treated alike for both decoders.

Low latency: every packet holds one picture and says so, and the picture comes out of the same call. Pictures are taken
in host memory (NV12) and converted like FFmpeg's: what is saved is the decoding, most of a camera's work on a core.
NOT TRIED ON A GPU: tests/test_capture_nvdec.py runs it against a fake with PyNvVideoCodec 2.2's names and arguments,
and `stream.capture.decoders` compares its pictures with FFmpeg's before it believes them.
"""

from __future__ import annotations

import collections
import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stream.capture.decoder import copy_frame, to_ns
from stream.capture.picture import Arrival, Loss, Picture

try:
    import PyNvVideoCodec  # type: ignore[import-not-found,unused-ignore]
except (ImportError, OSError, RuntimeError):  # it raises RuntimeError where there is no driver
    PyNvVideoCodec = None

CODECS = {"h264": "H264", "hevc": "HEVC"}
MAX_WAITING = 64  # packets whose pictures have not come out
ADVICE = "expected an NVIDIA GPU with its driver (libnvcuvid), and: pip install PyNvVideoCodec"

Waiting = tuple[Arrival, int | None, bool]  # of a packet: arrival, time stamp, whether it is a key frame


class NvdecFault(RuntimeError):
    """NVDEC cannot decode this stream here; the text says why."""


class NvdecDecoder:
    """Written by the camera's thread. `library` is PyNvVideoCodec; raises `NvdecFault`."""

    name = "nvdec"

    def __init__(self, stream: VideoStream, *, library: Any = None) -> None:
        library = PyNvVideoCodec if library is None else library
        if library is None:
            raise NvdecFault(f"PyNvVideoCodec is not installed or finds no driver, {ADVICE}")
        codec = CODECS.get(stream.codec_context.name)
        if codec is None:
            raise NvdecFault(f"codec {stream.codec_context.name}, expected {' or '.join(CODECS)}")
        self._stream, self._library = stream, library
        self._head = _start_codes(stream.codec_context.extradata or b"")
        self._faults = (RuntimeError, library.PyNvVCException, library.PyNvVCExceptionUnsupported)
        self._waiting: collections.OrderedDict[int, Waiting] = collections.OrderedDict()
        self._num_packets = 0
        self._reformatter = VideoReformatter()
        try:
            self._decoder = library.CreateDecoder(
                gpuid=0, codec=library.cudaVideoCodec.__members__[codec], usedevicememory=False,
                latency=library.DisplayDecodeLatencyType.LOW,
            )  # fmt: skip
        except self._faults as error:
            raise NvdecFault(f"{_line(error)}, {ADVICE}") from None

    def decode(self, packet: Packet[VideoStream], arrival: Arrival) -> Iterator[Picture | Loss]:
        """The picture of this packet; its pixels are valid until the next call. Raises `NvdecFault`."""
        self._num_packets += 1
        self._waiting[self._num_packets] = arrival, packet.pts, packet.is_keyframe
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        data = np.frombuffer((self._head if packet.is_keyframe else b"") + bytes(packet), np.uint8)
        flags = self._library.VideoPacketFlag
        yield from map(self._picture, self._send(data, int(flags.ENDOFPICTURE) | int(flags.TIMESTAMP)))

    def flush(self) -> Iterator[Picture | Loss]:
        """With one picture a packet nothing is left."""
        yield from map(self._picture, self._send(np.zeros(0, np.uint8), int(self._library.VideoPacketFlag.ENDOFSTREAM)))

    def _send(self, data: np.ndarray[Any, np.dtype[np.uint8]], flag: int) -> list[Any]:
        package = self._library.PacketData()
        package.bsl, package.bsl_data = data.size, data.ctypes.data
        package.pts, package.decode_flag = self._num_packets, flag
        try:
            return list(self._decoder.Decode(package))
        except self._faults as error:
            raise NvdecFault(_line(error)) from None

    def _picture(self, decoded: Any) -> Picture:
        number = decoded.getPTS()
        if number not in self._waiting:
            raise NvdecFault(f"a picture of packet {number}, expected one of those that were sent")
        arrival, pts, is_key = self._waiting.pop(number)
        rows, width = (int(length) for length in decoded.shape[:2])
        if decoded.format != self._library.Pixel_Format.NV12 or rows % 3 or rows * width != decoded.framesize():
            raise NvdecFault(f"a picture of {decoded.framesize()} bytes, {decoded.format}, expected NV12 without gaps")
        pixels = (ctypes.c_uint8 * (rows * width)).from_address(decoded.GetPtrToPlane(0))
        frame = av.VideoFrame.from_ndarray(np.frombuffer(memoryview(pixels), np.uint8).reshape(rows, width), "nv12")
        context = self._stream.codec_context
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
        pts_ns = None if pts is None else to_ns(pts, self._stream.time_base)
        copy_into = partial(copy_frame, frame, self._reformatter)
        return Picture(rows * 2 // 3, width, copy_into, arrival=arrival, pts_ns=pts_ns, is_key=is_key)


def _start_codes(extradata: bytes) -> bytes:
    """Parameter sets as NVDEC's parser takes them; a stream of another form has none of use."""
    if extradata and not extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
        raise NvdecFault("units behind their lengths, as in MP4 and FLV; expected start codes, as in RTSP and HLS")
    return extradata


def _line(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split()) or type(error).__name__
