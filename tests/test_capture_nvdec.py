"""NVDEC behind capture's interface, against a fake of PyNvVideoCodec 2.2 that decodes with FFmpeg.

Its names, arguments and packet fields are those of the wheel (seen with a stand-in for libcuda); no GPU has run it.
"""

from __future__ import annotations

import ctypes
import enum
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from clips import numbered_picture, write_video

from engines.synthetic import read_counter
from stream.capture import nvdec
from stream.capture.decoders import MAX_TRIAL_PACKETS, Decoder, open_decoder
from stream.capture.nvdec import NvdecDecoder, NvdecFault
from stream.capture.picture import Arrival, Picture, SourceError
from stream.capture.sources import open_source
from stream.config import CameraConfig

NUM_FRAMES = 30
NO_B_FRAMES = {"bf": "0", "g": "10", "preset": "ultrafast", "tune": "zerolatency"}


class Codec(enum.IntEnum):
    H264 = 4
    HEVC = 8


class Latency(enum.IntEnum):
    NATIVE = 0
    LOW = 1
    ZERO = 2


class Flag(enum.IntEnum):
    ENDOFSTREAM = 1
    TIMESTAMP = 2
    DISCONTINUITY = 4
    ENDOFPICTURE = 8


class Format(enum.IntEnum):
    NV12 = 1
    P016 = 3


class CodecError(Exception):
    """Stands for PyNvVCException, which is no RuntimeError."""


class PacketData:
    __slots__ = ("bsl", "bsl_data", "decode_flag", "pts")

    def __init__(self) -> None:
        self.bsl = self.bsl_data = self.pts = self.decode_flag = 0


class Decoded:
    """A picture in host memory, as NV12 without gaps."""

    format = Format.NV12

    def __init__(self, pixels: np.ndarray, pts: int) -> None:
        self._pixels, self._pts = pixels, pts
        self.shape = pixels.shape

    def framesize(self) -> int:
        return self._pixels.size

    def GetPtrToPlane(self, plane: int) -> int:
        assert plane == 0
        return self._pixels.ctypes.data

    def getPTS(self) -> int:
        return self._pts


class FakeDecoder:
    """Overwrites its last picture at each call, as a decoder with few surfaces may."""

    def __init__(self, library: FakeLibrary, codec: Codec) -> None:
        self._library = library
        self._context = av.CodecContext.create(codec.name.lower(), "r")
        self._context.flags |= av.codec.context.Flags.low_delay
        self._context.thread_count = 1
        self._last: list[np.ndarray] = []

    def Decode(self, packet: PacketData) -> list[Decoded]:
        library = self._library
        library.num_packets += 1
        for pixels in self._last:
            pixels.fill(0)
        if packet.decode_flag & Flag.ENDOFSTREAM:
            return []
        assert packet.decode_flag == Flag.ENDOFPICTURE | Flag.TIMESTAMP
        if library.num_packets == library.fails_at:
            raise CodecError("HW decoder lost\nand much more")
        data = ctypes.string_at(packet.bsl_data, packet.bsl)
        av_packet = av.Packet(data)
        av_packet.pts = packet.pts
        frames = self._context.decode(av_packet) if library.gives_pictures else []
        self._last = [np.array(frame.reformat(format="nv12").to_ndarray()) for frame in frames]
        if library.is_wrong:
            self._last = [np.ascontiguousarray(pixels[::-1]) for pixels in self._last]
        return [Decoded(pixels, frame.pts) for pixels, frame in zip(self._last, frames, strict=True)]


class FakeLibrary(SimpleNamespace):
    cudaVideoCodec, DisplayDecodeLatencyType, VideoPacketFlag, Pixel_Format = Codec, Latency, Flag, Format
    PyNvVCException = PyNvVCExceptionUnsupported = CodecError
    PacketData = PacketData
    num_packets, fails_at, gives_pictures, is_wrong, has_gpu = 0, 0, True, False, True

    def CreateDecoder(
        self, gpuid: int = 0, codec: Codec = Codec.H264, usedevicememory: bool = True, latency: Latency = Latency.NATIVE
    ) -> FakeDecoder:
        if not self.has_gpu:
            raise RuntimeError("CUDA driver API error CUDA_ERROR_NO_DEVICE")
        assert not usedevicememory and latency is Latency.LOW
        return FakeDecoder(self, codec)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()
    monkeypatch.setattr(nvdec, "PyNvVideoCodec", fake)
    return fake


@pytest.fixture(scope="module", params=["libx264", "libx265"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a camera sends it: start codes, no picture that waits for a later one."""
    options = NO_B_FRAMES if request.param == "libx264" else NO_B_FRAMES | {"x265-params": "log-level=none"}
    path = tmp_path_factory.mktemp("clip") / "clip.ts"
    return write_video(path, NUM_FRAMES, codec=request.param, options=options)


def config(decoder: str) -> CameraConfig:
    return CameraConfig("door", "rtsp://camera/1", decoder=decoder)  # type: ignore[arg-type]


def pictures(path: Path, wanted: str) -> Iterator[tuple[Picture, np.ndarray, Decoder]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = open_decoder(config(wanted), stream)
        for number, packet in enumerate(container.demux(stream)):
            items = decoder.decode(packet, Arrival(number, number)) if packet.size else decoder.flush()
            for item in items:
                assert isinstance(item, Picture)
                image_hwc = np.empty((item.height, item.width, 3), np.uint8)
                item.copy_into(image_hwc)
                yield item, image_hwc, decoder


@pytest.mark.parametrize("wanted", ["auto", "nvdec"])
def test_every_picture_comes_once_with_its_own_arrival_whoever_decodes_it(
    library: FakeLibrary, clip: Path, wanted: str
) -> None:
    found, by = [], []
    for item, image_hwc, decoder in pictures(clip, wanted):
        found.append((read_counter(image_hwc), item.arrival.ns))
        by.append(decoder.name)
        assert np.abs(image_hwc.astype(int) - numbered_picture(found[-1][0] or 0)).mean() < 12
    assert found == [(number, number) for number in range(NUM_FRAMES)]
    assert by == ["nvdec"] * NUM_FRAMES, "the first picture decides, and all later ones are NVDEC's"


def test_pictures_of_both_decoders_are_the_same_to_the_times_and_within_a_few_grey_levels(
    library: FakeLibrary, clip: Path
) -> None:
    for (one, one_hwc, _), (other, other_hwc, _) in zip(pictures(clip, "ffmpeg"), pictures(clip, "nvdec"), strict=True):
        assert (one.pts_ns, one.is_key) == (other.pts_ns, other.is_key)
        assert np.abs(one_hwc.astype(int) - other_hwc).mean() < 2


def test_ffmpeg_by_name_never_touches_nvdec(library: FakeLibrary, clip: Path) -> None:
    assert {decoder.name for _, _, decoder in pictures(clip, "ffmpeg")} == {"ffmpeg"}
    assert library.num_packets == 0


FAULTS: dict[str, dict[str, Any]] = {
    "no GPU": {"has_gpu": False},
    "fails at once": {"fails_at": 1},
    "other pictures": {"is_wrong": True},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_with_auto_a_decoder_that_fails_its_trial_costs_no_picture(
    library: FakeLibrary, clip: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    vars(library).update(FAULTS[fault])
    with caplog.at_level(logging.DEBUG):
        found = [(read_counter(image_hwc), decoder.name) for _, image_hwc, decoder in pictures(clip, "auto")]
    assert found == [(number, "ffmpeg") for number in range(NUM_FRAMES)]
    assert "FFmpeg" in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_nvdec_by_name_never_falls_back(library: FakeLibrary, clip: Path, fault: str) -> None:
    vars(library).update(FAULTS[fault])
    with pytest.raises(SourceError, match=r"source 'rtsp://camera/1': decoder nvdec: .*(expected|HW decoder lost)"):
        list(pictures(clip, "nvdec"))


def test_a_decoder_that_gives_nothing_is_given_up(
    library: FakeLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library.gives_pictures = False
    path = write_video(tmp_path / "long.ts", MAX_TRIAL_PACKETS + 5, options=NO_B_FRAMES)
    assert len(list(pictures(path, "auto"))) == MAX_TRIAL_PACKETS + 5
    assert library.num_packets == MAX_TRIAL_PACKETS
    assert f"no picture of {MAX_TRIAL_PACKETS} packets" in caplog.text


def test_a_decoder_that_breaks_later_ends_the_connection_and_hands_out_nothing_wrong(
    library: FakeLibrary, clip: Path
) -> None:
    library.fails_at = 12
    found: list[int | None] = []
    with pytest.raises(SourceError, match=r"decoder nvdec: HW decoder lost$"):
        for _, image_hwc, _ in pictures(clip, "auto"):
            found.append(read_counter(image_hwc))
    assert found == list(range(11))
    assert library.num_packets == 12


def test_what_is_missing_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.setattr(nvdec, "PyNvVideoCodec", None)
    with pytest.raises(SourceError, match="pip install PyNvVideoCodec"):
        list(pictures(clip, "nvdec"))


def test_a_stream_of_another_form_is_refused(library: FakeLibrary, tmp_path: Path) -> None:
    def opened(name: str, **options: Any) -> NvdecDecoder:
        with av.open(str(write_video(tmp_path / name, 3, **options))) as container:
            stream = container.streams.video[0]
            assert isinstance(stream, VideoStream)
            return NvdecDecoder(stream)

    with pytest.raises(NvdecFault, match="expected start codes"):
        opened("clip.mp4")
    with pytest.raises(NvdecFault, match="codec mpeg4, expected h264 or hevc"):
        opened("clip.avi", codec="mpeg4", options={})


def test_nvdec_is_for_network_streams() -> None:
    with pytest.raises(SourceError, match="nvdec is for network streams, expected auto or ffmpeg"):
        open_source(CameraConfig("door", "testsrc://", decoder="nvdec"))
