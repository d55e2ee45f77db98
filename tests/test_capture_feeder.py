"""A camera's feeder: numbers that outlive threads, threads that hang, pause and resume."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.capture import CameraFeeder, CameraStuck, Numbering, Watch
from stream.capture.picture import Arrival, Items, Picture
from stream.config import CameraConfig
from stream.frame import CameraCondition, Stamp
from tests.capture_rig import States


class Native:
    """A source whose calls hang when told so, deaf to any stop, and go on when released."""

    retries = True
    can_freeze = False
    codec = decoder = ""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.num_opened = 0
        self.num_hanging = 0
        self.limit_s = 0.2

    def check(self) -> None:
        """Nothing."""

    def pictures(self, watch: Watch) -> Items:
        self.num_opened += 1
        image_hwc = np.zeros((8, 8, 3), np.uint8)
        while not watch.is_set():
            watch.expect(self.limit_s)
            if self.hangs.is_set():
                self.num_hanging += 1
                self.released.wait(60)
            yield Picture.of_array(image_hwc, arrival=Arrival.now())
            watch.wait(0.005)


class Bench:
    """A feeder with a main thread's loop and a reader."""

    def __init__(self, numbering: Numbering | None = None, **settings: object) -> None:
        self.states, self.stamps = States(), list[Stamp]()
        config = CameraConfig("cam", "rtsp://user:secret@camera/1", **settings)  # type: ignore[arg-type]
        self.feeder = CameraFeeder(config, states=self.states, doorbell=threading.Event(), numbering=numbering)

    def turn(self) -> None:
        self.feeder.check(time.monotonic_ns())
        lease = self.feeder.ring.take()
        if lease is not None:
            self.stamps.append(lease.frame.stamp)
            lease.release()

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.states.states, self.stamps[-3:])
            self.turn()
            time.sleep(0.005)

    def until_more(self, num: int = 5) -> None:
        wanted = len(self.stamps) + num
        self.until(lambda: len(self.stamps) >= wanted)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[Native]:
    source = Native()
    monkeypatch.setattr("stream.capture.thread.open_source", lambda config: source)
    yield source
    source.released.set()
    deadline = time.monotonic() + 10
    while [thread for thread in threading.enumerate() if thread.name.startswith("cam:")]:
        assert time.monotonic() < deadline, "a thread is left"
        time.sleep(0.01)


@pytest.fixture
def bench(native: Native) -> Iterator[Bench]:
    bench = Bench(Numbering(epoch=7, seq=100))
    bench.feeder.start()
    yield bench
    bench.feeder.stop()


def assert_rising(stamps: list[Stamp]) -> None:
    places = [(stamp.epoch, stamp.seq) for stamp in stamps]
    assert places == sorted(set(places)) and [seq for _, seq in places] == sorted({seq for _, seq in places})


def test_a_thread_that_hangs_is_replaced_and_the_numbers_go_on(bench: Bench, native: Native) -> None:
    bench.until_more()
    first_ring = bench.feeder.ring
    native.hangs.set()
    bench.until(lambda: native.num_hanging == 1)
    native.hangs.clear()
    bench.until(lambda: bench.feeder.num_abandoned == 1)
    before = bench.feeder.num_seen
    bench.until_more()
    bench.until(lambda: bench.feeder.num_seen >= before + 5)
    assert bench.feeder.ring is not first_ring
    assert bench.stamps[0].seq == 100 and {stamp.epoch for stamp in bench.stamps} == {7}
    assert bench.feeder.seq is not None and bench.feeder.seq >= bench.stamps[-1].seq
    assert "a call did not come back; opening anew" in [state.reason for state in bench.states.states]
    assert_rising(bench.stamps)


def test_an_abandoned_thread_that_wakes_up_changes_nothing(bench: Bench, native: Native) -> None:
    bench.until_more()
    old_ring = bench.feeder.ring
    native.hangs.set()
    bench.until(lambda: native.num_hanging == 1)
    native.hangs.clear()
    bench.until(lambda: bench.feeder.num_abandoned == 1)
    bench.until_more()
    written, states = old_ring.num_written, len(bench.states.states)
    native.released.set()
    bench.until(lambda: sum(thread.name == "cam:cam" for thread in threading.enumerate()) == 1)
    bench.until_more()
    assert old_ring.num_written == written and not old_ring.has_unread
    assert len(bench.states.states) == states, "it reports nothing more"
    seen = bench.feeder.num_seen
    assert bench.feeder.numbering.seq - 100 in (seen, seen + 1), "nobody else took a number"
    assert_rising(bench.stamps)


def test_three_threads_that_hang_at_once_are_too_many(bench: Bench, native: Native) -> None:
    bench.until_more()
    native.hangs.set()
    with pytest.raises(CameraStuck, match="camera 'cam': 3 capture threads hang"):
        bench.until(lambda: False)
    assert bench.feeder.num_abandoned == 3 and native.num_opened == 3


def test_a_native_call_that_really_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.capture.files.OPEN_LIMIT_S", 0.1)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)  # FFmpeg's open() waits for a writer, and nothing interrupts it
    feeder = CameraFeeder(CameraConfig("cam", str(pipe)), states=States(), doorbell=threading.Event())
    feeder.start()
    deadline = time.monotonic() + 20
    with pytest.raises(CameraStuck, match="camera 'cam': 3 capture threads hang"):
        while time.monotonic() < deadline:
            feeder.check(time.monotonic_ns())
            time.sleep(0.01)
    assert sum(thread.name == "cam:cam" for thread in threading.enumerate()) == 3
    os.close(os.open(pipe, os.O_WRONLY))
    while [thread for thread in threading.enumerate() if thread.name == "cam:cam"]:
        assert time.monotonic() < deadline, "they go when their call comes back"
        time.sleep(0.01)


def test_a_process_that_was_stopped_blames_no_thread(bench: Bench) -> None:
    bench.until_more()
    in_a_minute_ns = time.monotonic_ns() + 60 * 10**9
    bench.feeder.check(in_a_minute_ns)
    assert bench.feeder.num_abandoned == 0
    bench.until_more()


def test_pause_closes_the_source_at_once_and_resume_goes_on_with_the_numbers(bench: Bench, native: Native) -> None:
    bench.until_more()
    bench.feeder.pause()
    seq, num_seen = bench.feeder.seq, bench.feeder.num_seen
    bench.until(lambda: not bench.feeder.is_alive())
    assert bench.states.last.condition is CameraCondition.PAUSED and bench.feeder.is_paused
    assert bench.feeder.seq == seq and bench.feeder.num_seen == num_seen == seq - 99
    assert bench.feeder.error is None and not bench.feeder.finished
    bench.feeder.resume()
    bench.until_more()
    assert bench.states.last.condition is CameraCondition.ONLINE and native.num_opened == 2
    assert_rising(bench.stamps)


def test_a_thread_that_hangs_does_not_hold_up_pause_and_resume(bench: Bench, native: Native) -> None:
    bench.until_more()
    native.hangs.set()
    bench.until(lambda: native.num_hanging == 1)
    native.hangs.clear()
    bench.feeder.pause()
    assert bench.states.last.condition is CameraCondition.PAUSED
    bench.feeder.resume()
    bench.until_more()
    assert bench.feeder.num_abandoned == 1


def test_a_thread_that_hangs_while_its_camera_is_removed_is_silenced(bench: Bench, native: Native) -> None:
    bench.until_more()
    native.hangs.set()
    bench.until(lambda: native.num_hanging == 1)
    bench.feeder.stop()
    bench.feeder.join(0.05)
    assert bench.feeder.is_alive() and bench.feeder.num_seen == bench.feeder.numbering.seq - 100
    states, seq = len(bench.states.states), bench.feeder.numbering.seq
    native.released.set()
    bench.feeder.join(10.0)
    assert not bench.feeder.is_alive() and len(bench.states.states) == states and bench.feeder.numbering.seq == seq


def test_a_gap_longer_than_the_memory_starts_an_epoch_and_a_shorter_one_does_not(native: Native) -> None:
    bench = Bench(memory_gap_s=1.0)
    native.limit_s = 30
    bench.feeder.start()
    bench.until_more()
    for seconds, epochs in ((0.2, {0}), (1.3, {0, 1})):
        bench.feeder.pause()
        bench.until(lambda: not bench.feeder.is_alive())
        time.sleep(seconds)
        bench.feeder.resume()
        bench.until_more()
        if seconds > 1 or time.monotonic_ns() - bench.stamps[-1].arrival_ns < 1e9:
            assert {stamp.epoch for stamp in bench.stamps} == epochs
    assert_rising(bench.stamps)
    bench.feeder.stop()


def test_a_file_that_is_resumed_starts_over_in_a_new_epoch() -> None:
    states, doorbell = States(), threading.Event()
    config = CameraConfig("cam", "testsrc://?width=64&height=64&fps=50", memory_gap_s=0.001)
    feeder = CameraFeeder(config, states=states, doorbell=doorbell)
    feeder.start()
    deadline = time.monotonic() + 20
    while feeder.num_seen < 3 and time.monotonic() < deadline:
        feeder.check(time.monotonic_ns())
    assert feeder.epoch == 0, "a slow file has no gaps"
    feeder.pause()
    feeder.join(5.0)
    num_seen = feeder.num_seen
    feeder.resume()
    while feeder.num_seen < num_seen + 3 and time.monotonic() < deadline:
        feeder.check(time.monotonic_ns())
    assert feeder.epoch == 1 and feeder.seq is not None and feeder.seq >= num_seen + 2
    feeder.stop()
    feeder.join(5.0)
    assert not feeder.is_alive() and states.last.reason == "stopped"


def test_the_rate_and_the_supervisor_are_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.until(lambda: bench.feeder.fps_in > 20)
    assert not bench.feeder.is_overdue and bench.feeder.last_seen_ns is not None
    assert bench.feeder.clock_source == "arrival"
    monkeypatch.setattr("stream.capture.feeder.OVERDUE_NS", 0)
    assert bench.feeder.is_overdue
