"""Recorded videos: every picture, its number, its time and its orientation; and one line about what cannot be read."""

from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import H264_WITH_B_FRAMES, numbered_picture, write_audio, write_video

from engines.synthetic import read_counter
from stream.footage import PictureFolder, VideoFile, open_footage
from stream.sequence import FootageError

NUM = 40
KINDS = [
    ("mp4", "libx264"), ("mov", "mpeg4"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("ts", "libx264"),
    ("h264", "libx264"), ("gif", "gif"),
]  # fmt: skip


def numbers(footage: VideoFile | PictureFolder, start: int = 0, *, time_ns: int | None = None) -> list[int]:
    """The number burnt into each picture, which must be the one that the picture claims."""
    pictures = list(footage.pictures(start, time_ns=time_ns))
    assert [picture.index for picture in pictures] == list(range(start, start + len(pictures)))
    return [read_counter(picture.image_hwc) for picture in pictures]  # type: ignore[misc]


def write_gif(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "rgb8"
        for number in range(NUM):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), "bgr24").reformat(format="rgb8")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_with_index_first(path: Path) -> Path:
    """A whole file whose index stands at its beginning, so that it can be cut off and still be read."""
    plain = write_video(path.with_name("plain.mp4"), NUM)
    with av.open(str(plain)) as source, av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(("ending", "codec"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_picture_comes_in_order_from_wherever_reading_begins(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"clip.{ending}"
    footage = open_footage(write_gif(path) if codec == "gif" else write_video(path, NUM, codec=codec))
    assert numbers(footage) == list(range(NUM)) and footage.remarks == ()
    times = [picture.time_ns for picture in footage.pictures()]
    assert times[0] == 0 and sorted(set(times)) == times
    for start in (1, 15, 16):
        assert numbers(footage, start) == list(range(start, NUM))
    assert numbers(footage, 14, time_ns=times[14]) == list(range(14, NUM))
    assert numbers(footage, NUM) == [] and numbers(footage, 3 * NUM) == []
    assert [footage.index_at(time_ns) for time_ns in (-5, 0, times[9], times[9] + 1, 10**15)] == [0, 0, 9, 10, NUM]


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    path, pts = tmp_path / "variable.mp4", [0, 1, 2, 10, 11, 40, 41, 42, 43, 100]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=dict(H264_WITH_B_FRAMES))
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 50)
        for number, time in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), "bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 50)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    footage = open_footage(path)
    assert [picture.time_ns for picture in footage.pictures()] == [time * 20_000_000 for time in pts]
    assert numbers(footage, 5) == [5, 6, 7, 8, 9]
    assert footage.index_at(300_000_000) == 5


@pytest.mark.parametrize(("turn", "matrix"), [("CLOCKWISE", (0, 1, -1, 0)), ("COUNTERCLOCKWISE", (0, -1, 1, 0))])
def test_pictures_are_upright_whatever_way_the_telephone_was_held(
    tmp_path: Path, turn: str, matrix: tuple[int, ...]
) -> None:
    path = write_video(tmp_path / "turned.mp4", 3)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    first = next(iter(open_footage(path).pictures())).image_hwc
    upright = cv2.rotate(numbered_picture(0), getattr(cv2, f"ROTATE_90_{turn}"))
    assert first.shape == (160, 120, 3) and np.abs(first.astype(int) - upright).mean() < 12


def test_a_change_of_size_in_the_middle_changes_the_pictures_and_nothing_else(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", 6)
    large = write_video(tmp_path / "large.h264", 6, size=(320, 240), first=6)
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    footage = open_footage(both)
    assert numbers(footage) == list(range(12))
    assert [picture.image_hwc.shape[:2] for picture in footage.pictures(4)] == [(120, 160)] * 2 + [(240, 320)] * 6


def test_odd_sizes_are_kept_to_the_pixel(tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 161, 121, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(7, width=161, height=121), "bgr24")))
        container.mux(stream.encode())
    (picture,) = open_footage(path).pictures()
    assert np.array_equal(picture.image_hwc, numbered_picture(7, width=161, height=121))


def test_what_a_cut_file_still_holds_is_read_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = write_with_index_first(tmp_path / "told.mp4")
    untold = write_video(tmp_path / "untold.mkv", NUM)
    for path, words in ((told, f"of {NUM} pictures"), (untold, "pictures are there")):
        footage = open_footage(cut(path, 0.7))
        found = numbers(footage)
        assert 0 < len(found) < NUM and found == list(range(len(found)))
        assert len(footage.remarks) == 1 and words in footage.remarks[0] and str(path) in footage.remarks[0]
        assert footage.remarks[0] in caplog.messages and "\n" not in footage.remarks[0]


def test_damage_in_the_middle_costs_no_numbers_after_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mp4", NUM, options={"g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    footage = open_footage(path)
    last = list(footage.pictures())[-1]
    assert read_counter(last.image_hwc) == NUM - 1
    assert last.index in range(NUM - 4, NUM)


def bad_inputs(folder: Path) -> list[tuple[Path, str]]:
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video " * 200)
    (folder / "notes.txt").write_text("hello " * 200)
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "nothing").mkdir()
    write_audio(folder / "sound.wav")
    cut(write_video(folder / "cut.mp4", 10), 0.5)
    return [
        (folder / "absent.mp4", "there is no such file"), (folder / "empty.mp4", "the file is empty"),
        (folder / "text.mp4", "this is not a video"), (folder / "notes.txt", "this is not a video but text"),
        (folder / "noise.avi", "this is not a video"), (folder / "sound.wav", "it holds no video, only audio"),
        (folder / "cut.mp4", "its index (moov) is missing"), (folder / "nothing", "the folder holds no picture"),
        (folder / "*.jpeg", "no picture has such a name"),
    ]  # fmt: skip


def test_each_bad_input_gets_one_line_that_names_it_and_what_was_expected(tmp_path: Path) -> None:
    for path, words in bad_inputs(tmp_path):
        with pytest.raises(FootageError) as caught:
            list(open_footage(path).pictures())
        text = str(caught.value)
        assert text.startswith(str(path)) and words in text and "expected" in text and "\n" not in text, text


def test_pictures_of_a_folder_come_in_natural_order_by_their_names(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"shot{number}.png"), numbered_picture(number))
    (tmp_path / "notes.txt").write_text("no picture")
    for source in (tmp_path, tmp_path / "*.png"):
        footage = open_footage(source)
        assert footage.name == tmp_path.name and footage.num_frames == 5
        names = ["shot1", "shot2", "shot10", "shot11"]
        assert [(p.index, p.name) for p in footage.pictures(1)] == list(enumerate(names, 1))
    assert [read_counter(picture.image_hwc) for picture in footage.pictures()] == [0, 1, 2, 10, 11]
    assert numbers(open_footage(tmp_path / "shot0.png")) == [0]


def test_a_picture_that_cannot_be_read_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered_picture(number))
    (tmp_path / "1.png").write_bytes(b"broken")
    footage = open_footage(tmp_path)
    assert [(p.index, p.name) for p in footage.pictures()] == [(0, "0"), (2, "2")]
    assert len(footage.remarks) == 1 and "1.png" in footage.remarks[0]


def test_reading_holds_no_more_of_a_long_video_than_of_a_short_one(tmp_path: Path) -> None:
    def peak(num: int) -> int:
        footage = open_footage(write_video(tmp_path / f"{num}.mp4", num, size=(320, 240)))
        tracemalloc.start()
        for _ in footage.pictures():
            continue
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(5)
    assert peak(60) < peak(15) + 100_000, "a picture has 230400 bytes"
