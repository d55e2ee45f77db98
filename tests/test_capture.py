"""Sources without a network: files, folders, generated clips, webcams' times, and what is said of bad ones."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from pathlib import Path

import av
import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from stream.capture import BackOff, SourceError, check_source
from stream.capture.address import Kind, parse_source, url_for_ffmpeg
from stream.capture.pacer import Pacer
from stream.capture.webcam import driver_time
from stream.config import CameraConfig, PromptFlags, config_from_flags, redact
from stream.frame import CameraCondition, CameraState, ClockSource
from tests.capture_rig import Rig, capture
from tests.clips import H264_WITH_B_FRAMES, numbered_picture, write_audio, write_video

NUM = 45


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-frames at 60 frames a second."""
    return write_video(tmp_path_factory.mktemp("movie") / "clip.mp4", NUM, fps=60)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> None:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("cam:")]


def packet_order(path: Path) -> list[float]:
    """Presentation times in the order of the packets."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [round(float(packet.pts * packet.time_base) * 1e9) for packet in packets]


def test_every_picture_of_a_file_with_b_frames_comes_once_in_order_with_its_own_arrival(movie: Path) -> None:
    with capture(str(movie), pace="offline") as rig:
        seen = rig.read()
    stamps = [item.stamp for item in seen]
    assert [item.number for item in seen] == list(range(NUM)), "the decoder puts B-frames in their place"
    assert [stamp.seq for stamp in stamps] == list(range(NUM)) and {stamp.epoch for stamp in stamps} == {0}
    assert [stamp.pts_ns for stamp in stamps] == sorted(stamp.pts_ns for stamp in stamps)
    assert stamps[0].frame_id == "cam_optical_frame" and stamps[0].clock_source is ClockSource.ARRIVAL
    by_arrival = sorted(stamps, key=lambda stamp: stamp.arrival_ns)
    order = packet_order(movie)
    assert order != sorted(order), "the file does have B-frames"
    assert [stamp.pts_ns for stamp in by_arrival] == pytest.approx(order, abs=1000), "each has its own packet's arrival"
    for item in seen:
        assert item.stamp.arrival_ns <= item.stamp.decoded_ns <= item.taken_ns
        skew_ns = (item.stamp.arrival_utc_ns - item.stamp.arrival_ns) - (time.time_ns() - time.monotonic_ns())
        assert abs(skew_ns) < 50e6, "both clocks were read at the same moment"
    assert not rig.ring.num_dropped and rig.thread.num_seen == NUM
    assert rig.states.conditions == [CameraCondition.OFFLINE, CameraCondition.ONLINE, CameraCondition.OFFLINE]
    assert rig.states.last.reason == "end of file" and rig.thread.error is None


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "ffv1"), ("a.avi", "mpeg4"), ("a.avi", "libx264"), ("a.webm", "libvpx"), ("a.h264", "libx264")],
)
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 20, codec=codec)
    with capture(str(path), pace="offline") as rig:
        seen = rig.read()
    assert [item.number for item in seen] == list(range(20))


def test_offline_waits_for_a_slow_reader_and_loses_nothing(movie: Path) -> None:
    with capture(str(movie), pace="offline") as rig:
        held = []
        rig.ring.doorbell.wait(5.0)
        for _ in range(rig.ring.num_slots):
            assert rig.ring.has_unread or rig.ring.doorbell.wait(5.0)
            held.append(rig.ring.take())
            rig.ring.doorbell.clear()
            time.sleep(0.05)
        assert not rig.ring.has_unread, "all slots are leased: the file waits"
        for lease in filter(None, held):
            lease.release()
        seen = rig.read(pause_s=0.002)
    assert sum(lease is not None for lease in held) + len(seen) == NUM and not rig.ring.num_dropped


def test_live_plays_at_the_files_own_rate(movie: Path) -> None:
    with capture(str(movie)) as rig:
        seen = rig.read()
    took_s = (seen[-1].taken_ns - seen[0].taken_ns) / 1e9
    assert took_s == pytest.approx((NUM - 1) / 60, abs=0.25)
    assert len(seen) + rig.ring.num_dropped.get("replaced", 0) == NUM and len(seen) > NUM / 2
    assert all(item.number == item.stamp.seq for item in seen)


def test_live_drops_what_a_slow_reader_leaves_and_counts_it(movie: Path) -> None:
    with capture(str(movie)) as rig:
        seen = rig.read(pause_s=0.1)
    assert len(seen) < NUM / 2 and seen[-1].number == NUM - 1, "the newest wins"
    assert dict(rig.ring.num_dropped) == {"replaced": NUM - len(seen)}
    assert all(item.number == item.stamp.seq for item in seen)


def test_a_file_that_loops_starts_a_new_epoch_and_goes_on_counting(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", 5)
    with capture(str(path), pace="offline", loop=True) as rig:
        seen = rig.read(12)
        assert not rig.thread.finished.is_set()
    assert [item.number for item in seen] == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert [item.stamp.epoch for item in seen] == [0] * 5 + [1] * 5 + [2] * 2
    assert [item.stamp.seq for item in seen] == list(range(12))


def test_a_change_of_size_keeps_the_epoch(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", 6)
    large = write_video(tmp_path / "large.h264", 6, size=(320, 240), first=6)
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with capture(str(both), pace="offline") as rig:
        seen = rig.read()
    assert [item.number for item in seen] == list(range(12))
    assert [item.size for item in seen] == [(160, 120)] * 6 + [(320, 240)] * 6
    assert {item.stamp.epoch for item in seen} == {0}


@pytest.mark.parametrize(("turn", "matrix"), [("clockwise", (0, 1, -1, 0)), ("anticlockwise", (0, -1, 1, 0))])
def test_a_telephones_rotation_is_respected(tmp_path: Path, turn: str, matrix: tuple[int, ...]) -> None:
    path = write_video(tmp_path / "upright.mp4", 3)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    assert content[at : at + 4] == b"\0\1\0\0", "the track header's matrix stands there"
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    rig = Rig(str(path), pace="offline")
    rig.thread.start()
    assert rig.ring.doorbell.wait(5.0)
    lease = rig.ring.take()
    rig.stop()
    assert lease is not None and (lease.frame.width, lease.frame.height) == (120, 160)
    upright = cv2.rotate(numbered_picture(0), getattr(cv2, f"ROTATE_90_{turn.upper().replace('ANTI', 'COUNTER')}"))
    assert np.abs(lease.frame.image_hwc.astype(int) - upright).mean() < 12


def test_max_fps_takes_every_second_picture(movie: Path) -> None:
    with capture(str(movie), pace="offline", max_fps=30.0) as rig:
        seen = rig.read()
    assert [item.number for item in seen] == list(range(0, NUM, 2))
    assert dict(rig.ring.num_dropped) == {"max_fps": NUM // 2}


def test_a_damaged_file_is_counted_and_played_to_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", 60, options={**H264_WITH_B_FRAMES, "bf": "0"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        spoilt = [bytes(packet) for packet in packets[20:24]]
    content = path.read_bytes()
    for data in spoilt:
        content = content.replace(data, data[:8] + bytes(len(data) - 8))
    path.write_bytes(content)
    with capture(str(path), pace="offline") as rig:
        seen = rig.read()
    lost = sum(rig.ring.num_dropped.values())
    assert set(rig.ring.num_dropped) <= {"corrupt", "undecodable"} and 1 <= lost <= 15
    assert seen[-1].number == 59 and len(seen) >= 45


def test_pictures_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    for number, name in enumerate(["1.png", "2.JPG", "10.bmp", "11.webp", "a2.jpeg", "a10.png"]):
        size = (320, 240) if number == 5 else (160, 120)
        cv2.imwrite(str(tmp_path / name.lower()), numbered_picture(number, width=size[0], height=size[1]))
    (tmp_path / "2.jpg").rename(tmp_path / "2.JPG")
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture either")
    (tmp_path / "folder.png").mkdir()
    with capture(f"{tmp_path}?fps=20", pace="offline") as rig:
        seen = rig.read()
    assert [item.number for item in seen] == list(range(6))
    assert seen[-1].size == (320, 240) and dict(rig.ring.num_dropped) == {"undecodable": 2}
    assert [item.stamp.pts_ns for item in seen] == [index * 50_000_000 for index in (0, 1, 4, 5, 6, 7)]


def test_a_folder_plays_at_its_rate(tmp_path: Path) -> None:
    given = config_from_flags(f"{tmp_path}?fps=25", PromptFlags(), options={})
    assert given.cameras[0].source == f"{tmp_path}?fps=25", "the command line lets the rate pass"
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered_picture(number))
    with capture(f"{tmp_path}?fps=25") as rig:
        seen = rig.read()
    assert (seen[-1].taken_ns - seen[0].taken_ns) / 1e9 == pytest.approx(9 / 25, abs=0.15)


def test_the_generated_clip_counts_its_pictures() -> None:
    with capture("testsrc://?width=160&height=120&fps=200&frames=20&objects=1&seed=3", pace="offline") as rig:
        seen = rig.read()
    assert [item.number for item in seen] == list(range(20)) and {item.size for item in seen} == {(160, 120)}
    with capture("testsrc://?width=160&height=120&fps=200") as rig:
        assert len(rig.read(30)) == 30, "without `frames` it has no end"


BAD = [
    ("nothing.mp4", "there is no such file"),
    ("notes.txt", "this is not a video but text"),
    ("empty.mp4", "this is not a video"),
    ("sound.wav", "it holds no video, only audio"),
    ("folder", "the folder holds no picture, expected .jpg"),
    ("folder?fps=0", "fps='0', expected a number from 0.01"),
    ("folder?rate=3", "option 'rate', expected one of fps"),
    ("ftp://user:secret@host/x", "expected a file, a folder"),
    ("rtsp://", "there is no host"),
    ("rtsp://user:secret@/x", "there is no host"),
    ("testsrc://?frames=1.5", "frames='1.5', expected a whole number"),
    ("testsrc://?widht=100", "option 'widht', expected one of width, height"),
    ("testsrc://?width=nan", "width='nan', expected a number from 64"),
    ("testsrc://name", "not a name"),
    ("push://", "expected push://NAME"),
    ("push://a/b", "expected push://NAME"),
    ("push://a?bind=tcp://0.0.0.0:5570", "expected ipc://PATH or tcp://127.0.0.1:PORT"),
    ("push://a?bind=tcp://127.0.0.1.example.com:1", "expected ipc://PATH"),
    ("/dev/video0?size=3", "option 'size', expected one of width"),
    ("/dev/video0?fps=fast", "fps='fast', expected a number"),
    ("", "expected a file"),
]


@pytest.mark.parametrize(("source", "reason"), BAD)
def test_a_bad_source_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("dear diary, " * 100)
    Path("empty.mp4").touch()
    Path("folder").mkdir()
    write_audio(Path("sound.wav"))
    with pytest.raises(SourceError) as caught:
        check_source(CameraConfig("cam", source))
    text = str(caught.value)
    assert reason in text and "\n" not in text and "secret" not in text
    assert text.startswith(f"source '{redact(source)}'")
    if source.startswith("rtsp"):
        return  # the thread keeps trying
    with capture(source) as rig:
        assert rig.thread.finished.wait(5.0) and rig.thread.ready.is_set()
    assert str(rig.thread.error) == text and rig.states.last.reason == text
    assert rig.states.last.condition is CameraCondition.OFFLINE


def test_good_sources_pass_the_check(movie: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), numbered_picture(1))
    for source in (
        str(movie),
        str(tmp_path),
        "0",
        "rtsp://user:p@ss/w@camera/1",
        "testsrc://",
        f"push://a?bind=ipc://{tmp_path}/a",
    ):
        check_source(CameraConfig("cam", source))


def test_a_file_without_one_good_picture_ends_with_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", 3, codec="mpeg4")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for data in packets:
        content = content.replace(data, bytes(len(data)))
    path.write_bytes(content)
    with capture(str(path), pace="offline", loop=True) as rig:
        assert rig.thread.finished.wait(5.0)
    assert "not one picture could be decoded" in str(rig.thread.error)


def test_a_webcam_that_is_not_there_is_tried_again() -> None:
    with capture("/dev/video250", backoff=BackOff(((100, 0.02),))) as rig:
        state = rig.wait(CameraCondition.OFFLINE)
        while rig.thread.num_reconnects < 3:
            state = rig.wait(CameraCondition.OFFLINE)
    assert "there is no webcam /dev/video250, expected" in state.reason or state.reason == "opening"
    assert any("there is no webcam" in state.reason for state in rig.states.states)
    assert rig.thread.error is None and not rig.thread.finished.is_set()


def test_a_drivers_stamp_is_kept_when_it_lies_on_one_of_our_clocks() -> None:
    for clock in (time.monotonic_ns, time.time_ns):
        arrival = driver_time((clock() - 30_000_000) // 1000)
        assert arrival.clock_source is ClockSource.DRIVER
        assert time.monotonic_ns() - arrival.ns == pytest.approx(30e6, abs=20e6)
        assert time.time_ns() - arrival.utc_ns == pytest.approx(30e6, abs=20e6)
    for strange in (None, 0, 12345, time.time_ns() // 1000 + 10**9, time.monotonic_ns() // 1000 + 10**7):
        arrival = driver_time(strange)
        assert arrival.clock_source is ClockSource.ARRIVAL
        assert abs(time.monotonic_ns() - arrival.ns) < 20e6


def test_sources_are_told_apart(tmp_path: Path) -> None:
    odd = tmp_path / "what?fps=3"
    odd.touch()
    kinds = {
        "0": Kind.WEBCAM,
        "/dev/video2?fps=5": Kind.WEBCAM,
        "a.mp4": Kind.FILE,
        str(odd): Kind.FILE,
        str(tmp_path): Kind.IMAGES,
        f"{tmp_path}?fps=3": Kind.IMAGES,
        "RTSP://x/y": Kind.STREAM,
        "https://x/y": Kind.STREAM,
        "testsrc://": Kind.TESTSRC,
        "push://robot": Kind.PUSH,
    }
    assert {source: parse_source(source).kind for source in kinds} == kinds
    assert parse_source("0").target == "/dev/video0"
    assert parse_source("/dev/video2?fps=5&width=1280").options == {"fps": "5", "width": "1280"}


odd_text = strategies.text(strategies.characters(codec="ascii", exclude_characters="\n\r"), min_size=8, max_size=20)


@hypothesis.given(odd_text, odd_text)
def test_no_character_of_a_password_is_shown(user: str, password: str) -> None:
    shown = redact(f"rtsp://{user}:{password}@camera:554/live")
    assert shown in ("rtsp://***@camera:554/live", "rtsp://***")
    shown = redact(f"https://{user}:{password}@[::1]/a?token={password}#{password}")
    assert shown in ("https://***@[::1]/a?...", "https://***")
    assert redact(f"rtsp://camera/a?token={password}") in ("rtsp://camera/a?...", "rtsp://***")


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("rtsp://camera/1", "rtsp://camera/1"),
        ("rtsp://camera:554/a@b?c@d", "rtsp://camera:554/a@b?c@d"),
        ("rtsp://[::1]:8554/a@b", "rtsp://[::1]:8554/a@b"),
        ("rtsp://u:p@camera/a@b", "rtsp://u:p@camera/a@b"),
        ("rtsp://u:p%2Fq@camera/1", "rtsp://u:p%2Fq@camera/1"),
        ("rtsp://u:p/a?s#s@w%o:rd@camera:8554/1", "rtsp://u:p%2Fa%3Fs%23s%40w%25o%3Ard@camera:8554/1"),
        ("rtsp://u@x:p@@camera/1", "rtsp://u%40x:p%40@camera/1"),
    ],
)
def test_odd_passwords_are_encoded_for_ffmpeg(written: str, given: str) -> None:
    assert url_for_ffmpeg(written) == given


def test_the_ladder_of_retries() -> None:
    backoff = BackOff()
    delays = [backoff.next_s() for _ in range(23)]
    for delay, step in zip(delays, [1.0] * 5 + [5.0] * 5 + [10.0] * 10 + [60.0] * 3, strict=True):
        assert 0.8 * step <= delay <= 1.2 * step
    assert len(set(delays)) > 15, "with jitter"
    backoff.reset()
    assert backoff.next_s() < 1.3


def test_a_jump_of_a_files_clock_does_not_stall_it() -> None:
    pacer = Pacer(threading.Event())
    start = time.monotonic()
    for time_ns in (0, 10_000_000, 10**15, 10**15 + 10_000_000, 5, 10_000_005):
        assert pacer.wait(time_ns)
    assert 0.02 < time.monotonic() - start < 0.5


@pytest.mark.parametrize("settings", [{"pace": "live"}, {"pace": "offline"}])
def test_stop_is_quick_wherever_the_thread_waits(tmp_path: Path, settings: dict[str, str]) -> None:
    slow = write_video(tmp_path / "slow.mp4", 5, fps=1)
    for source in (str(slow), "testsrc://?fps=0.1", f"push://a?bind=ipc://{tmp_path}/a", "/dev/video250"):
        rig = Rig(source, **settings)
        rig.thread.start()
        assert rig.thread.ready.wait(2.0)
        time.sleep(0.2)
        assert rig.stop() < 1.0
        assert rig.states.last.condition is CameraCondition.OFFLINE and rig.states.last.reason == "stopped"


def test_a_thread_that_breaks_says_so() -> None:
    class BrokenStates:
        def put_state(self, state: CameraState) -> None:
            if state.condition is CameraCondition.ONLINE:
                raise RuntimeError("the sink is broken")
            reasons.append(state.reason)

    reasons: list[str] = []
    rig = Rig("testsrc://?width=64&height=64&fps=100")
    rig.states = rig.thread._states = BrokenStates()  # type: ignore[assignment]
    rig.thread.start()
    rig.thread.join(5.0)
    assert not rig.thread.is_alive() and not rig.thread.finished.is_set()
    assert isinstance(rig.thread.error, RuntimeError) and reasons[-1] == "capture failed: RuntimeError"


def test_two_cameras_do_not_disturb_each_other(movie: Path) -> None:
    with (
        capture(str(movie), pace="offline") as one,
        capture("testsrc://?width=160&height=120&frames=9", pace="offline") as two,
    ):
        numbers = [[item.number for item in rig.read()] for rig in (one, two)]
    assert numbers == [list(range(NUM)), list(range(9))]
    assert list(itertools.chain(one.ring.num_dropped, two.ring.num_dropped)) == []
