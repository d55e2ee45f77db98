"""`.masks` files come back, also after a crash; and the commands `subscribe` and `replay` around them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from deliveries import SMALL, FakeDelivery, publishing, wait_for
from hypothesis import given
from hypothesis import strategies as st

from stream import wire
from stream.client import FrameMessage, Subscriber
from stream.frame import CameraCondition, CameraState
from stream.outlet import BindError
from stream.recording import HEADER, Record, RecordingError, RecordingReader, RecordingWriter
from stream.replay import ReplayRequest, run_replay
from stream.subscribe import SubscribeRequest, run_subscribe

GOLDEN = pathlib.Path(__file__).parent / "golden"
GOLDEN_SHA256 = {
    1: "b77c166f52f453a653996904f6febab41c25786f4b8c2cee165f37b3ae425058"
}  # by version; see tests/golden/make.py
ROOT = pathlib.Path(__file__).resolve().parents[1]


def records(num: int, size: int = 50) -> list[Record]:
    return [Record(index * 1000, 10**18 + index, bytes([index % 256]) * size) for index in range(num)]


def written(path: pathlib.Path, items: list[Record]) -> pathlib.Path:
    with RecordingWriter(path) as writer:
        for item in items:
            writer.put(item)
    return path


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_golden_recording_changes_only_with_the_version() -> None:
    data = (GOLDEN / "recording.masks").read_bytes()
    assert hashlib.sha256(data).hexdigest() == GOLDEN_SHA256[HEADER[-1]]
    got = list(RecordingReader(GOLDEN / "recording.masks"))
    assert [wire.decode(record.payload).topic for record in got] == ["info", "state/cam1", "masks/cam1", "masks/cam1"]
    assert [record.received_ns - got[0].received_ns for record in got] == [0, 40_000_000, 80_000_000, 120_000_000]
    assert got[2].payload == (GOLDEN / "masks_bits.bin").read_bytes()


def test_records_come_back_as_often_as_asked(tmp_path: pathlib.Path) -> None:
    reader = RecordingReader(written(tmp_path / "a.masks", records(100)))
    assert list(reader) == list(reader) == records(100)
    assert reader.num_bytes_torn == 0


def test_a_file_cut_anywhere_keeps_every_whole_record(tmp_path: pathlib.Path) -> None:
    whole = written(tmp_path / "a.masks", records(3, size=20)).read_bytes()
    record_size = (len(whole) - len(HEADER)) // 3
    path = tmp_path / "cut.masks"
    for length in range(len(HEADER), len(whole)):
        path.write_bytes(whole[:length])
        reader = RecordingReader(path)
        num_whole = (length - len(HEADER)) // record_size
        assert list(reader) == records(3, size=20)[:num_whole]
        assert reader.num_bytes_torn == length - len(HEADER) - num_whole * record_size
        with RecordingWriter(path, resume=True) as writer:
            writer.put(Record(7, 8, b"after the crash"))
        assert list(RecordingReader(path)) == [*records(3, size=20)[:num_whole], Record(7, 8, b"after the crash")]


def test_a_record_whose_bytes_changed_ends_the_file(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "a.masks", records(3, size=20))
    data = bytearray(path.read_bytes())
    data[len(HEADER) + 24 + 20 + 30] ^= 1  # within the second record's message
    path.write_bytes(data)
    assert list(RecordingReader(path)) == records(1, size=20)


@given(tail=st.binary(max_size=64))
def test_any_tail_is_survived(tail: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.mktemp("tail") / "a.masks", records(2))
    with path.open("ab") as file:
        file.write(tail)
    assert list(RecordingReader(path))[:2] == records(2)


def test_resume_begins_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with RecordingWriter(tmp_path / "new.masks", resume=True) as writer:
        writer.put(records(1)[0])
    assert list(RecordingReader(tmp_path / "new.masks")) == records(1)


def test_an_existing_file_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "a.masks", records(2))
    with pytest.raises(FileExistsError, match=r"a\.masks"):
        RecordingWriter(path)
    assert list(RecordingReader(path)) == records(2)


@pytest.mark.parametrize(
    "data, expected",
    [(b"", "expected b'S2MASKS'"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"S2MASKS\x02", "version 2, expected 1")],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: pathlib.Path, data: bytes, expected: str) -> None:
    path = tmp_path / "foreign.masks"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=expected):
        RecordingReader(path)
    with pytest.raises(RecordingError, match=expected):
        RecordingWriter(path, resume=True)
    assert path.read_bytes() == data


def test_a_full_disk_leaves_a_whole_file_behind(tmp_path: pathlib.Path) -> None:
    code = """
import pathlib, resource, signal, sys
from stream.recording import Record, RecordingWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with RecordingWriter(pathlib.Path(sys.argv[1])) as writer:
    try:
        for index in range(100):
            writer.put(Record(index, index, bytes(60)))
    except OSError:
        writer.put(Record(99, 99, b"!"))
        print(writer.num_records)
"""
    path = tmp_path / "a.masks"
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    reader = RecordingReader(path)
    got = list(reader)
    assert len(got) == int(process.stdout) == (1000 - len(HEADER)) // 84 + 1
    assert got[-1].payload == b"!" and reader.num_bytes_torn == 0


def test_a_killed_recorder_loses_nothing_that_it_had_received(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "killed.masks"
    code = """
import pathlib, sys
from stream.subscribe import SubscribeRequest, run_subscribe
run_subscribe(SubscribeRequest(sys.argv[1], save=pathlib.Path(sys.argv[2])))
"""
    with publishing() as publisher:
        command = [sys.executable, "-c", code, publisher.endpoints[0], str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            assert "cameras: none" in process.stdout.readline()
            threading.Event().wait(0.2)
            for seq in range(50):
                publisher.put_masks(FakeDelivery("cam1", seq))
                publisher.wait_drained(5)
            while " 0/49 " not in (line := process.stdout.readline()):
                assert line, "the recorder ended"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            process.stdout.close()
    messages = [wire.decode(record.payload) for record in RecordingReader(path)]
    assert [message.seq for message in messages if isinstance(message, wire.MasksMessage)] == list(range(50))


# --- subscribe -------------------------------------------------------------------------------------------------------


def subscribing(request: SubscribeRequest) -> tuple[threading.Thread, io.StringIO]:
    out = io.StringIO()
    thread = threading.Thread(target=run_subscribe, args=(request, out))
    thread.start()
    wait_for(lambda: out.getvalue())  # info came
    threading.Event().wait(0.1)
    return thread, out


def test_subscribe_prints_lines_for_people_and_ends_after_count() -> None:
    with publishing(info=wire.Info(model="nano", backend="eager")) as publisher:
        thread, out = subscribing(SubscribeRequest(publisher.endpoints[0], count=3))
        publisher.put_state(CameraState("cam1", 0, CameraCondition.ONLINE, "frames arrive", 1))
        for seq in range(3):
            publisher.put_masks(FakeDelivery("cam1", seq))
            publisher.wait_drained(5)
        thread.join(5)
        assert not thread.is_alive()
    text = out.getvalue()
    assert "nano on eager" in text and "cam1  online: frames arrive" in text and "cameras: cam1 64x48" in text
    assert "cam1  0/2  " in text and "1:cup tracked" in text


def test_subscribe_prints_json_and_only_the_cameras_asked_for() -> None:
    with publishing() as publisher:
        request = SubscribeRequest(publisher.endpoints[0], cameras=("cam1",), count=2, as_json=True)
        thread, out = subscribing(request)
        for seq in range(2):
            publisher.put_masks(FakeDelivery("cam2", seq))
            publisher.put_masks(FakeDelivery("cam1", seq))
            publisher.wait_drained(5)
        thread.join(5)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    masks = [line for line in lines if line["topic"].startswith("masks/")]
    assert [(line["camera"], line["seq"]) for line in masks] == [("cam1", 0), ("cam1", 1)]
    assert masks[0]["objects"][0]["box"] == SMALL.boxes_n4[0].tolist() and masks[0]["version"] == 1


def test_subscribe_says_when_nothing_comes_and_leaves_no_empty_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.masks"
    with pytest.raises(TimeoutError, match=r"tcp://127\.0\.0\.1:9 for 0\.2 s"):
        run_subscribe(SubscribeRequest("tcp://127.0.0.1:9", save=path, timeout_s=0.2), io.StringIO())
    with pytest.raises(ValueError, match="endpoint 'nowhere'"):
        run_subscribe(SubscribeRequest("nowhere", save=path), io.StringIO())
    assert not path.exists()


# --- replay ----------------------------------------------------------------------------------------------------------


def record_twenty(path: pathlib.Path) -> None:
    with publishing() as publisher:
        thread, _ = subscribing(SubscribeRequest(publisher.endpoints[0], count=20, save=path))
        publisher.put_state(CameraState("cam1", 0, CameraCondition.ONLINE, "frames arrive", 1))
        for seq in range(20):
            publisher.put_masks(FakeDelivery("cam1", seq))
            assert publisher.wait_drained(5)
            threading.Event().wait(0.02)
        thread.join(5)


class Replay:
    """`replay` in a thread, bound to a free port."""

    def __init__(self, path: pathlib.Path, **options: object) -> None:
        self.num_sent = 0
        self.endpoints: tuple[str, ...] = ()
        self._stopping = threading.Event()
        self._bound = threading.Event()
        request = ReplayRequest(path, bind=("tcp://127.0.0.1:*",), **options)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._run, args=(request,))

    def _run(self, request: ReplayRequest) -> None:
        self.num_sent = run_replay(request, self._stopping, self._on_bound)

    def _on_bound(self, endpoints: tuple[str, ...]) -> None:
        self.endpoints = endpoints
        self._bound.set()

    def __enter__(self) -> Replay:
        self._thread.start()
        assert self._bound.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


def test_a_recording_is_replayed_in_its_own_time(tmp_path: pathlib.Path) -> None:
    record_twenty(tmp_path / "a.masks")
    with (
        Replay(tmp_path / "a.masks") as replay,
        Subscriber(replay.endpoints[0], newest_only=False, timeout_s=5) as subscriber,
    ):
        arrivals, messages = [], []
        for message in subscriber:
            arrivals.append(time.monotonic_ns())
            messages.append(message)
            if message.seq == 19:
                break
        assert subscriber.info is not None and "cam1" in subscriber.states
    assert [message.seq for message in messages] == list(range(20))
    np.testing.assert_array_equal(messages[0].mask(1), SMALL.masks_nhw[0])
    pace_then = (messages[-1].published_ns - messages[0].published_ns) / 1e9
    pace_now = (arrivals[-1] - arrivals[0]) / 1e9
    assert abs(pace_now - pace_then) < 0.15, f"{pace_now:.2f} s instead of {pace_then:.2f} s"


def test_pictures_are_recorded_and_replayed_with_their_masks(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.masks"
    with publishing(frames_fps=1000.0) as publisher:
        thread, out = subscribing(SubscribeRequest(publisher.endpoints[0], count=5, save=path, frames=True))
        wait_for(lambda: publisher.is_watched("cam1"))
        for seq in range(5):
            publisher.put_masks(FakeDelivery("cam1", seq, picture_hwc=np.full((48, 64, 3), 9, np.uint8)))
            assert publisher.wait_drained(5)
            threading.Event().wait(0.05)
        thread.join(5)
    assert "frames/" not in out.getvalue()
    with (
        Replay(path) as replay,
        Subscriber(replay.endpoints[0], newest_only=False, frames=True, timeout_s=5) as subscriber,
    ):
        seqs = [
            message.seq
            for message, _ in zip(subscriber.messages(), range(10), strict=False)
            if isinstance(message, FrameMessage)
        ]
    assert seqs[:4] == [0, 1, 2, 3]


def test_a_loop_goes_on_for_the_same_subscriber_and_speed_shortens_it(tmp_path: pathlib.Path) -> None:
    record_twenty(tmp_path / "a.masks")
    started = time.monotonic()
    with Replay(tmp_path / "a.masks", speed=20.0, loop=True) as replay, Subscriber(replay.endpoints[0]) as subscriber:
        num_passes, last = 0, 99
        for message in subscriber:
            num_passes += message.seq < last
            last = message.seq
            if num_passes == 5:
                break
    assert time.monotonic() - started < 10


def test_a_late_joiner_of_a_replay_gets_info_and_state(tmp_path: pathlib.Path) -> None:
    record_twenty(tmp_path / "a.masks")
    with Replay(tmp_path / "a.masks", wait_s=0.0, loop=True) as replay:
        threading.Event().wait(0.3)
        with Subscriber(replay.endpoints[0], timeout_s=5) as subscriber:
            next(iter(subscriber))
            wait_for(lambda: subscriber.receive() and "cam1" in subscriber.states)


def test_a_replay_that_cannot_be_says_why(tmp_path: pathlib.Path) -> None:
    empty = tmp_path / "empty.masks"
    empty.write_bytes(HEADER)
    with pytest.raises(RecordingError, match="holds no message"):
        run_replay(ReplayRequest(empty))
    with pytest.raises(FileNotFoundError, match=r"missing\.masks"):
        run_replay(ReplayRequest(tmp_path / "missing.masks"))
    with pytest.raises(ValueError, match=r"speed 0\.0, expected a number above 0"):
        run_replay(ReplayRequest(GOLDEN / "recording.masks", speed=0.0))
    with pytest.raises(BindError, match="other machines"):
        run_replay(ReplayRequest(GOLDEN / "recording.masks", bind=("tcp://*:5560",)))
    foreign = written(tmp_path / "foreign.masks", [Record(0, 0, os.urandom(30))])
    with pytest.raises(wire.WireError):
        run_replay(ReplayRequest(foreign, bind=("tcp://127.0.0.1:*",), wait_s=0.0))
