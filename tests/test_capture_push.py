"""push://: frames of another program over a real socket, and everything that a sender can get wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import strategies

from stream.capture.address import parse_source
from stream.capture.push import PushError, PushSource, decode_push, default_bind, jpeg_size
from stream.config import CameraConfig
from stream.frame import CameraCondition, ClockSource
from tests.capture_rig import capture
from tests.clips import numbered_picture

HEIGHT, WIDTH = 120, 160


def header(**changes: Any) -> dict[str, Any]:
    values = {"version": 1, "encoding": "raw_bgr", "height": HEIGHT, "width": WIDTH}
    values |= {"utc_ns": time.time_ns(), "frame_id": "robot_optical_frame", "seq": 0}
    return {key: value for key, value in (values | changes).items() if value is not None}


def message(number: int, **changes: Any) -> list[bytes]:
    image_hwc = numbered_picture(number)
    is_jpeg = changes.get("encoding") == "jpeg"
    body = cv2.imencode(".jpg", image_hwc)[1].tobytes() if is_jpeg else image_hwc.tobytes()
    return [msgspec.msgpack.encode(header(seq=number, **changes)), body]


@contextmanager
def sender(bind: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 1000
        socket.sndtimeo = 5000
        socket.sndhwm = 2
        socket.connect(bind)
        yield socket


@pytest.mark.parametrize("encoding", ["raw_bgr", "jpeg"])
@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_every_pushed_picture_arrives_offline(tmp_path: Path, unused_tcp_port: int, encoding: str, kind: str) -> None:
    bind = f"ipc://{tmp_path}/socket" if kind == "ipc" else f"tcp://127.0.0.1:{unused_tcp_port}"
    with capture(f"push://robot?bind={bind}", pace="offline") as rig, sender(bind) as socket:
        times_ns = []
        for number in range(8):
            times_ns.append(time.time_ns() - 40_000_000)
            socket.send_multipart(message(number, encoding=encoding, utc_ns=times_ns[-1]))
            seen = rig.read(1)[0]
            assert (seen.number, seen.size, seen.stamp.seq) == (number, (WIDTH, HEIGHT), number)
            assert seen.stamp.arrival_utc_ns == times_ns[-1] and seen.stamp.clock_source is ClockSource.SENDER
            assert seen.stamp.frame_id == "robot_optical_frame"
            assert 0 <= seen.taken_ns - seen.stamp.arrival_ns < 2e9, "the monotonic time is our own"
    assert not rig.ring.num_dropped


def test_a_sender_without_a_clock_gets_ours(tmp_path: Path) -> None:
    bind = f"ipc://{tmp_path}/socket"
    with capture(f"push://robot?bind={bind}") as rig, sender(bind) as socket:
        socket.send_multipart(message(7, utc_ns=None, frame_id=None))
        stamp = rig.read(1)[0].stamp
    assert stamp.clock_source is ClockSource.ARRIVAL and abs(time.time_ns() - stamp.arrival_utc_ns) < 5e9
    assert stamp.frame_id == "cam_optical_frame"


def test_live_keeps_the_newest_and_offline_makes_the_sender_wait(tmp_path: Path) -> None:
    bind = f"ipc://{tmp_path}/socket"
    with capture(f"push://robot?bind={bind}") as rig, sender(bind) as socket:
        for number in range(20):
            socket.send_multipart(message(number))
        deadline = time.monotonic() + 5
        while rig.thread.num_seen < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rig.read(1)[0].number == 19 and dict(rig.ring.num_dropped) == {"replaced": 19}
    with capture(f"push://robot?bind={bind}", pace="offline") as rig, sender(bind) as socket:
        socket.sndtimeo = 300
        num_sent = 0
        with pytest.raises(zmq.Again):
            while num_sent < 200:
                socket.send_multipart([message(0)[0], bytes(HEIGHT * WIDTH * 3)])
                num_sent += 1
        assert num_sent < 200
        assert len(rig.read(num_sent)) == num_sent and not rig.ring.num_dropped.keys() - {"sender_gap"}


REFUSED = [
    ([b""], "1 parts, expected 2"),
    ([b"", b"", b""], "3 parts, expected 2"),
    ([b"", b""], "header"),
    ([b"\xc1" * 10, b""], "header"),
    ([b"\x91" * 900, b""], "header"),
    ([bytes(2000), b""], "a header of 2000 bytes"),
    ([header(version=2), b""], "$.version"),
    ([header(encoding="png"), b""], "$.encoding"),
    ([header(height=0), b""], "$.height"),
    ([header(height=-1), b""], "$.height"),
    ([header(height=2.5), b""], "$.height"),
    ([header(height=2**40), b""], "$.height"),
    ([header(width=None), b""], "width"),
    ([header(height=65535, width=65535), b""], "65535x65535 pixels, expected at most"),
    ([header(colour="red"), b""], "colour"),
    ([header(utc_ns=-1), b""], "$.utc_ns"),
    ([header(utc_ns=2**63), b""], "$.utc_ns"),
    ([header(frame_id="x" * 129), b""], "$.frame_id"),
    ([header(seq="1"), b""], "$.seq"),
    ([header(), b"x" * (HEIGHT * WIDTH * 3 - 1)], f"expected {HEIGHT * WIDTH * 3}"),
    ([header(), b"x" * (HEIGHT * WIDTH * 3 + 1)], f"expected {HEIGHT * WIDTH * 3}"),
    ([header(encoding="jpeg"), b""], "no JPEG"),
    ([header(encoding="jpeg"), b"\xff\xd8" + bytes(100)], "no JPEG"),
    ([header(encoding="jpeg", height=HEIGHT + 1), message(0, encoding="jpeg")[1]], f"a JPEG of {WIDTH}x{HEIGHT}"),
    ([header(encoding="jpeg"), message(0, encoding="jpeg")[1][:700]], ""),
]


def encoded(parts: list[Any]) -> list[bytes]:
    return [msgspec.msgpack.encode(part) if isinstance(part, dict) else part for part in parts]


@pytest.mark.parametrize(("parts", "reason"), REFUSED)
def test_a_wrong_message_is_refused_in_one_line(parts: list[Any], reason: str) -> None:
    try:
        decode_push([memoryview(part) for part in encoded(parts)])
    except PushError as error:
        assert reason in str(error) and "\n" not in str(error)
    else:
        assert reason == "", "only a JPEG that ends early may still show its upper part"


def test_wrong_messages_are_counted_and_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bind = f"ipc://{tmp_path}/socket"
    with capture(f"push://robot?bind={bind}") as rig, sender(bind) as socket:
        wrong = [encoded(parts) for parts, reason in REFUSED if reason]
        for parts in [*wrong, *[wrong[-1]] * 20]:
            socket.send_multipart(parts)
        socket.send_multipart(message(5))
        assert rig.read(1)[0].number == 5
    assert dict(rig.ring.num_dropped) == {"refused": len(wrong) + 20}
    told = [record.message for record in caplog.records if "refused a message" in record.message]
    assert len(told) == len(set(told)) <= len(wrong), "a refusal that repeats is told once"
    assert rig.thread.num_reconnects == 0


def test_an_oversized_message_never_arrives_and_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.capture.push.MAX_PIXELS", 300_000)
    bind = f"ipc://{tmp_path}/socket"
    with capture(f"push://robot?bind={bind}") as rig, sender(bind) as bad:
        bad.send_multipart([msgspec.msgpack.encode(header(height=1000, width=1000)), bytes(3_000_000)])
        with sender(bind) as good:
            good.send_multipart(message(3))
            assert rig.read(1)[0].number == 3
    assert rig.thread.num_seen == 1 and rig.ring.num_dropped.get("refused", 0) <= 1


def test_what_the_sender_lost_is_counted(tmp_path: Path) -> None:
    bind = f"ipc://{tmp_path}/socket"
    with capture(f"push://robot?bind={bind}", pace="offline") as rig, sender(bind) as socket:
        for number in (0, 1, 5, 6, 2, 3, 60_000):
            socket.send_multipart(message(number))
            assert rig.read(1)[0].number == number
    assert dict(rig.ring.num_dropped) == {"sender_gap": 3}, "a step back, or a huge one, is another sender"


def test_an_address_that_is_taken_is_tried_again(unused_tcp_port: int) -> None:
    bind = f"tcp://127.0.0.1:{unused_tcp_port}"
    with capture(f"push://one?bind={bind}"), capture(f"push://two?bind={bind}") as two:
        time.sleep(0.5)
        states = {state.reason for state in two.states.states}
    assert any("cannot bind" in reason and "in use" in reason for reason in states)
    assert two.thread.error is None and two.states.last.condition is CameraCondition.OFFLINE


def test_without_bind_the_socket_lies_in_the_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = Path(default_bind("robot").removeprefix("ipc://")).parent
    assert own.parent == tmp_path and own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    with pytest.raises(Exception, match="expected it to be this user's alone"):
        default_bind("robot")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_bind("robot") == f"ipc://{tmp_path}/sam2-stream-push-robot"
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{own}:/other")
    assert default_bind("robot") == f"ipc://{own}/sam2-stream-push-robot"
    source = PushSource(parse_source("push://robot"), CameraConfig("cam", "push://robot"))
    assert source.bind.endswith("push-robot")


def test_the_example_sends_what_the_daemon_takes(unused_tcp_port: int) -> None:
    bind = f"tcp://127.0.0.1:{unused_tcp_port}"
    example = Path(__file__).with_name("push_example.py")
    with capture(f"push://robot?bind={bind}") as rig:
        process = subprocess.Popen([sys.executable, str(example), bind, "6"])
        seen = rig.read(3)
        assert process.wait(20) == 0
    assert seen[0].size == (640, 480) and seen[0].stamp.frame_id == "robot_camera_optical_frame"
    assert seen[0].stamp.clock_source is ClockSource.SENDER


@hypothesis.given(strategies.binary(max_size=200), strategies.binary(max_size=200))
def test_random_bytes_are_refused_and_never_crash(first: bytes, second: bytes) -> None:
    with pytest.raises(PushError):
        decode_push([memoryview(first), memoryview(second)])


@hypothesis.given(strategies.integers(0, 2000), strategies.binary(min_size=1, max_size=3))
def test_a_spoilt_jpeg_is_refused_or_has_the_announced_size(position: int, noise: bytes) -> None:
    head, body = message(1, encoding="jpeg")
    spoilt = body[:position] + noise + body[position + len(noise) :]
    try:
        _, image_hwc = decode_push([memoryview(head), memoryview(spoilt)])
    except PushError:
        return
    assert image_hwc.shape == (HEIGHT, WIDTH, 3) and image_hwc.dtype == np.uint8


def test_a_jpegs_size_is_read_before_it_is_decoded() -> None:
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        data = cv2.imencode(".jpg", numbered_picture(1, width=321, height=77), options)[1].reshape(-1)
        assert jpeg_size(data) == (77, 321)
    bomb = data.copy()
    at = bytes(data).index(b"\xff\xc2") + 5
    bomb[at : at + 4] = 255
    assert jpeg_size(bomb) == (65535, 65535)
