"""The video that is written is the pictures that were put, at their times, and every player can open it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stream.movie import MovieError, MovieWriter


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(float(frame.time or 0), frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def test_pictures_come_back_at_their_own_times(tmp_path: Path) -> None:
    times_ms = [0, 33, 70, 500, 533, 1000]
    with MovieWriter(tmp_path / "a.mp4") as writer:
        for index, time_ms in enumerate(times_ms):
            image_hwc = np.full((120, 160, 3), (40 * index, 200, 255 - 40 * index), np.uint8)
            writer.put(image_hwc, 7_000_000_000 + time_ms * 1_000_000)
    back = pictures_of(tmp_path / "a.mp4")
    assert [round(time * 1000) for time, _ in back] == times_ms
    for index, (_, image_hwc) in enumerate(back):
        assert image_hwc.shape == (120, 160, 3)
        assert np.abs(image_hwc.astype(int).mean(axis=(0, 1)) - (40 * index, 200, 255 - 40 * index)).max() < 6


def test_the_file_is_h264_that_every_player_takes(tmp_path: Path) -> None:
    with MovieWriter(tmp_path / "a.mp4") as writer:
        writer.put(np.zeros((121, 161, 3), np.uint8), 0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (160, 120)
    head = (tmp_path / "a.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # the index in front: it plays while it loads


def test_time_that_stands_or_goes_back_is_moved_up(tmp_path: Path) -> None:
    with MovieWriter(tmp_path / "a.mp4") as writer:
        for time_ns in (10**9, 10**9, 5 * 10**8, 2 * 10**9):
            writer.put(np.zeros((32, 32, 3), np.uint8), time_ns)
    times = [time for time, _ in pictures_of(tmp_path / "a.mp4")]
    assert times == sorted(set(times)) and len(times) == 4 and times[3] == pytest.approx(1.0, abs=0.002)


def test_a_picture_of_another_size_is_scaled(tmp_path: Path) -> None:
    with MovieWriter(tmp_path / "a.mp4") as writer:
        writer.put(np.zeros((100, 200, 3), np.uint8), 0)
        writer.put(np.full((50, 60, 3), 255, np.uint8), 10**8)
    assert [image_hwc.shape for _, image_hwc in pictures_of(tmp_path / "a.mp4")] == [(100, 200, 3)] * 2


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MovieError, match=r"none/a\.mp4: No such file or directory, expected a path"):
        MovieWriter(tmp_path / "none" / "a.mp4")


def test_no_picture_leaves_no_broken_writer(tmp_path: Path) -> None:
    MovieWriter(tmp_path / "a.mp4").close()
