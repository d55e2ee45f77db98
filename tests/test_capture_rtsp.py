"""Streams from a real server: every picture, honest stamps, reconnects, reasons without passwords, quick stops."""

from __future__ import annotations

import functools
import http.server
import itertools
import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from stream.capture import BackOff
from stream.capture.interrupt import interruptible
from stream.capture.watch import Watch
from stream.frame import CameraCondition
from tests.capture_rig import Rig, Seen, capture
from tests.clips import write_video
from tests.rtsp import APT_PACKAGES, RtspServer

NUM = 300
PASSWORD = "p/a?s#s@w%o:rd&="


def quick() -> BackOff:
    return BackOff(((1000, 0.2),), last_s=0.2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("rtsp") / "clip.mkv", NUM, codec="ffv1")


@pytest.fixture
def serve(needs_apt: Callable[..., None], clip: Path) -> Iterator[Callable[..., RtspServer]]:
    needs_apt(*APT_PACKAGES)
    servers: list[RtspServer] = []

    def start(path: Path = clip, **options: object) -> RtspServer:
        servers.append(RtspServer(path, **options))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def mute_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"rtsp://user:secret@127.0.0.1:{listener.getsockname()[1]}/cam"


def assert_in_order(seen: list[Seen]) -> None:
    for before, after in itertools.pairwise(seen):
        assert before.number is not None and after.number is not None
        steps = after.stamp.seq - before.stamp.seq
        assert (after.number - before.number) % NUM == steps > 0, "a picture carries its own seq, whatever was lost"
        assert after.stamp.arrival_ns > before.stamp.arrival_ns


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_stream_gives_every_picture_with_its_own_number(serve: Callable[..., RtspServer], transport: str) -> None:
    server = serve()
    with capture(server.url, rtsp_transport=transport) as rig:
        seen = rig.read(60)
    assert len(seen) == 60
    assert_in_order(seen)
    assert seen[-1].stamp.seq <= 75, "nearly all of them"
    spacing_ms = [(b.stamp.arrival_ns - a.stamp.arrival_ns) / 1e6 for a, b in itertools.pairwise(seen[10:])]
    assert statistics.median(spacing_ms) == pytest.approx(33.3, abs=8)
    pts_ns = [item.stamp.pts_ns for item in seen if item.stamp.pts_ns is not None]
    assert len(pts_ns) >= 55 and pts_ns == sorted(pts_ns)
    assert set(rig.ring.num_dropped) <= {"replaced"}
    assert rig.states.conditions[:2] == [CameraCondition.OFFLINE, CameraCondition.ONLINE]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_senders_clock_is_known_from_the_servers_reports(serve: Callable[..., RtspServer], transport: str) -> None:
    server = serve(loop=True)
    with capture(server.url, rtsp_transport=transport, clock="sender") as rig:
        rig.until(lambda: rig.thread.clock_source == "sender", seconds=30)
        seen = rig.read(10)
    for item in seen:
        arrived_utc_ns = item.stamp.arrival_ns + time.time_ns() - time.monotonic_ns()
        assert abs(arrived_utc_ns - item.stamp.arrival_utc_ns) < 2e9, "the same clock, on the same machine"
    times = [item.stamp.arrival_utc_ns for item in seen]
    assert times == sorted(set(times))


def test_the_stamps_tell_the_frame_interval_that_the_parser_keeps_a_picture(
    serve: Callable[..., RtspServer], tmp_path: Path
) -> None:
    server = serve(write_video(tmp_path / "slow.mkv", 100, codec="ffv1", fps=10), loop=True)
    with capture(server.url) as rig:
        seen = rig.read(15)
    delays_ms = [(item.stamp.decoded_ns - item.stamp.arrival_ns) / 1e6 for item in seen[3:]]
    assert 80 < statistics.median(delays_ms) < 160


def test_a_server_that_dies_and_comes_back_is_found_again(serve: Callable[..., RtspServer]) -> None:
    server = serve(loop=True)
    with capture(server.url, backoff=quick()) as rig:
        before = rig.read(10)
        server.kill()
        state = rig.wait(CameraCondition.OFFLINE)
        assert state.reason in ("the stream ended", f"source '{server.url}': nobody answers there (connection refused)")
        while rig.thread.num_reconnects < 2:
            time.sleep(0.02)
        assert "connection refused" in rig.states.last.reason
        rig.ring.doorbell.clear()
        server.start()
        rig.wait(CameraCondition.ONLINE)
        after = rig.read(10)
    assert_in_order(before)
    assert_in_order(after)
    assert after[0].stamp.seq > before[-1].stamp.seq and after[0].stamp.epoch == before[0].stamp.epoch == 0
    assert rig.thread.error is None and not rig.thread.finished.is_set()


def test_a_stream_that_falls_silent_goes_offline_and_comes_back(serve: Callable[..., RtspServer]) -> None:
    server = serve(loop=True)
    with capture(server.url, backoff=quick(), stall_s=0.7) as rig:
        rig.read(20)
        server.pause()
        state = rig.wait(CameraCondition.OFFLINE, seconds=5)
        assert "no answer within" in state.reason
        server.kill()
        server.start()
        rig.wait(CameraCondition.ONLINE)
        assert_in_order(rig.read(5))


def test_stop_interrupts_a_read_that_waits_for_a_silent_stream(serve: Callable[..., RtspServer]) -> None:
    server = serve(loop=True)
    with capture(server.url) as rig:
        rig.read(5)
        server.pause()
        time.sleep(0.5)
        assert rig.stop() < 1.0
    assert rig.states.last.reason == "stopped"


def test_stop_interrupts_an_open_that_waits_for_an_answer(mute_server: str) -> None:
    with capture(mute_server) as rig:
        time.sleep(0.5)
        assert rig.stop() < 1.0
    assert "secret" not in str(rig.states.states)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cam:")]


def test_why_a_stream_cannot_be_had_is_told_without_its_password(
    serve: Callable[..., RtspServer], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(loop=True, user="some body", password=PASSWORD)
    right = server.bare_url.replace("rtsp://", f"rtsp://some body:{PASSWORD}@")
    cases = {
        right.replace(PASSWORD, "wrong/" + PASSWORD): "the user name or password is wrong (401)",
        right.replace(f":{PASSWORD}", ""): "the user name or password is wrong (401)",
        server.bare_url: "the user name or password is wrong (401)",
        server.url + "/nothing": "the server has no such stream (404)",
        f"rtsp://some body:{PASSWORD}@127.0.0.1:1/cam": "nobody answers there (connection refused)",
    }
    said = ""
    for source, reason in cases.items():
        rig = Rig(source, backoff=quick())
        rig.thread.start()
        deadline = time.monotonic() + 5
        while rig.thread.num_reconnects < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        rig.stop()
        assert [state for state in rig.states.states if state.reason.endswith(reason)], (source, rig.states.states)
        said += str(rig.states.states)
    for source in (right, server.url):
        with capture(source) as rig:
            assert len(rig.read(3)) == 3
        said += str(rig.states.states)
    said += caplog.text + "".join(capfd.readouterr())
    for secret in (PASSWORD, "%2Fa%3Fs", "s#s", "some body", "some%20body"):
        assert secret not in said


def test_a_file_behind_http_is_a_stream_that_starts_again(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 30)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with capture(f"http://127.0.0.1:{server.server_port}/clip.mp4", pace="offline", backoff=quick()) as rig:
            seen = rig.read(40)
        with capture(f"http://127.0.0.1:{server.server_port}/none.mp4", backoff=quick()) as rig:
            while rig.thread.num_reconnects < 1:
                time.sleep(0.02)
        server.shutdown()
    assert [item.number for item in seen] == [*range(30), *range(10)]
    assert any("no such stream (404)" in state.reason for state in rig.states.states)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a line on the terminal for each."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_the_clock_that_ends_calls_never_goes_back() -> None:
    """PyAV takes that for an error, which it raises at some later call: then a camera's thread ended for good."""
    clock, watch = av.container.core.time, Watch()
    watch.expect(3600.0)
    with interruptible(watch):
        watch.set()
        leapt = [clock.monotonic() for _ in range(3)]
    with interruptible(Watch()):
        later = clock.monotonic()
    assert leapt == sorted(leapt) and leapt[2] - leapt[0] > 3600
    assert later >= leapt[-1] and clock.monotonic() >= later
