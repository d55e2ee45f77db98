"""A camera that misbehaves: lost packets, silences, frozen and changed pictures, wrong clocks, refusals."""

from __future__ import annotations

import functools
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.synthetic import read_counter
from stream.capture import BackOff
from stream.capture.freeze import MOVED, FreezeWatch
from stream.capture.gate import Gate
from stream.capture.patience import Patience
from stream.capture.picture import SourceError
from stream.frame import CameraCondition, ClockSource
from tests.capture_rig import Rig, Seen, capture
from tests.clips import numbered_picture
from tests.scripted_camera import GOP, Programme, ScriptedCamera, decode, encode

NUM = 60
SIZE = (320, 240)


def quick() -> BackOff:
    return BackOff(((1000, 0.1),), last_s=0.1)


@pytest.fixture(scope="module")
def h264() -> Programme:
    return encode(NUM, size=SIZE, fps=60)


@pytest.fixture(scope="module")
def hevc() -> Programme:
    return encode(NUM, codec="hevc", size=SIZE, fps=60)


@pytest.fixture
def camera(h264: Programme) -> Iterator[ScriptedCamera]:
    with ScriptedCamera(h264) as camera:
        yield camera


@functools.cache
def truth(number: int, width: int, height: int) -> NDArray[np.uint8]:
    return numbered_picture(number, width=width, height=height)


def smear(image_hwc: NDArray[np.uint8]) -> float:
    """How far a picture is, at its worst place, from what its number says it shows."""
    number = read_counter(image_hwc)
    if number is None:
        return 255.0
    height, width = image_hwc.shape[:2]
    error = cv2.absdiff(image_hwc, truth(number, width, height))
    blocks = error[: height // 16 * 16, : width // 16 * 16].reshape(height // 16, 16, width // 16, 16, 3)
    return float(blocks.mean(axis=(1, 3, 4)).max())


@contextmanager
def watched(camera: ScriptedCamera, **settings: object) -> Iterator[Rig]:
    rig = Rig(camera.url, backoff=quick(), **settings)
    rig.look = smear
    rig.thread.start()
    try:
        yield rig
    finally:
        rig.stop()


def assert_in_order(seen: list[Seen]) -> None:
    for before, after in itertools.pairwise(seen):
        assert after.stamp.seq > before.stamp.seq and after.stamp.epoch == before.stamp.epoch


def worst(programme: Programme) -> float:
    """More than the encoder makes of an undamaged picture."""
    return max(map(smear, decode(programme))) * 1.3 + 2


@pytest.mark.parametrize(
    ("codec", "transport", "place"),
    [
        ("h264", "tcp", "first"),
        ("h264", "tcp", "middle"),
        ("h264", "udp", "last"),
        ("h264", "udp", "all"),
        ("hevc", "tcp", "middle"),
        ("hevc", "udp", "all"),
    ],
)
def test_after_a_lost_packet_no_smeared_picture_comes(
    request: pytest.FixtureRequest, codec: str, transport: str, place: str
) -> None:
    programme: Programme = request.getfixturevalue(codec)
    places = {"first": lambda i, n: i == 0, "middle": lambda i, n: i == n // 2, "last": lambda i, n: i == n - 1}
    hit = places.get(place, lambda i, n: True)
    lost = {number for number in range(18, 400) if number % GOP == 5}
    with ScriptedCamera(programme) as camera:
        camera.lose = lambda number, index, count: number in lost and hit(index, count)
        with watched(camera, rtsp_transport=transport) as rig:
            seen = rig.read(45, seconds=60)
    assert max(item.looked for item in seen) < worst(programme), "not one smeared picture"
    assert rig.ring.num_dropped["corrupt"] >= GOP and rig.thread.num_reconnects == 0
    assert rig.states.conditions[:2] == [CameraCondition.OFFLINE, CameraCondition.ONLINE]
    after = {item.number % GOP for item in seen if item.number is not None and item.stamp.seq > 20}
    assert {0, 1, 2} <= after and not after & set(range(6, GOP)), "from each key frame on, until the next loss"


def test_without_the_gate_the_same_loss_smears(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "loss_of", lambda self, **facts: "")
    monkeypatch.setattr("stream.capture.streams.take_damage", lambda lines: lines.clear())
    camera.lose = lambda number, index, count: number % GOP == 5 and index == count // 2
    with watched(camera) as rig:
        seen = rig.read(30)
    assert max(item.looked for item in seen) > worst(camera.programme), (
        "FFmpeg itself gives smeared pictures out as good ones"
    )


def test_nothing_comes_before_the_first_key_frame(camera: ScriptedCamera) -> None:
    camera.lose = lambda number, index, count: number == 0
    with watched(camera) as rig:
        seen = rig.read(5)
    assert seen[0].number == GOP + seen[0].stamp.seq and rig.ring.num_dropped["before_key"] >= GOP - 2


def test_the_gate_opens_again_where_no_key_frame_ever_comes() -> None:
    gate = Gate(0)
    assert gate.loss_of(is_key=False, is_damaged=False, now_ns=9 * 10**9) == "before_key"
    assert gate.loss_of(is_key=False, is_damaged=False, now_ns=11 * 10**9) == "", "a stream with intra refresh"
    gate = Gate(0)
    assert gate.loss_of(is_key=True, is_damaged=False, now_ns=1) == ""
    assert gate.loss_of(is_key=True, is_damaged=True, now_ns=2) == "corrupt"
    with pytest.raises(SourceError, match="no key frame within 10 s after a loss"):
        gate.loss_of(is_key=False, is_damaged=False, now_ns=11 * 10**9)


def test_a_silent_stream_is_noticed_although_reports_go_on(camera: ScriptedCamera) -> None:
    camera.clock_s = time.time
    with capture(camera.url, backoff=quick(), stall_s=0.8) as rig:
        rig.read(20)
        camera.is_silent = True
        start = time.monotonic()
        state = rig.wait(CameraCondition.OFFLINE)
        assert 0.5 < time.monotonic() - start < 4 and state.reason.endswith("no answer within 0.8 s")
        camera.is_silent = False
        before = rig.thread.num_seen
        rig.wait(CameraCondition.ONLINE)
        rig.until(lambda: rig.thread.num_seen > before + 5)
        assert rig.thread.numbering.epoch == 0


def test_a_half_open_connection_is_noticed_while_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.capture.streams.OPEN_LIMIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/cam"
        with capture(url, backoff=quick()) as rig:
            rig.until(lambda: rig.thread.num_reconnects >= 2)
        assert any("no answer within 0.5 s" in state.reason for state in rig.states.states)


def test_a_slow_camera_is_not_taken_for_a_silent_one(camera: ScriptedCamera, h264: Programme) -> None:
    camera.programme = Programme("h264", 4.0, h264.pictures)
    with capture(camera.url, backoff=quick(), stall_s=0.15) as rig:
        rig.until(lambda: rig.thread.num_seen >= 10)
        reconnects = rig.thread.num_reconnects
        rig.until(lambda: rig.thread.num_seen >= 18)
        assert rig.thread.num_reconnects == reconnects <= 6, "it learned the camera's rate"


def test_patience_is_ten_periods_or_the_setting() -> None:
    patience = Patience(3.0)
    patience.begin(3.0)
    assert patience.deadline_s == 3.0
    for index in range(30):
        patience.note(index * 33_000_000)
    assert patience.deadline_s == 3.0
    for index in range(30):
        patience.note(10**9 + index * 10**9)
    assert patience.deadline_s == pytest.approx(10.0)
    patience.begin(3.0)
    for limit_s in (3.0, 6.0, 12.0, 24.0, 48.0, 60.0, 60.0):
        assert patience.deadline_s == limit_s, "a connection that ended before it could be measured gets twice the time"
        patience.note(0)
        patience.begin(3.0)


def test_a_frozen_picture_is_told_opened_again_once_and_delivered_until_it_changes(
    camera: ScriptedCamera, caplog: pytest.LogCaptureFixture
) -> None:
    still = encode(6 * GOP, size=SIZE, fps=60, still=True)
    camera.programme = Programme("h264", 60, still.pictures[4 * GOP :])  # an encoder that has long settled
    with capture(camera.url, backoff=quick(), freeze_s=0.7) as rig:
        state = rig.wait(CameraCondition.FROZEN)
        assert state.reason == "the same picture for 0.7 s and longer"
        rig.until(lambda: camera.num_clients == 2)
        seen = rig.thread.num_seen
        rig.until(lambda: rig.thread.num_seen > seen + 60)
        assert camera.num_clients == 2 and rig.thread.num_reconnects == 1
        assert rig.states.conditions.count(CameraCondition.FROZEN) == 1
        assert rig.states.conditions[-1] is CameraCondition.FROZEN, "a new encoding of the same scene is no change"
        camera.programme = encode(30, size=SIZE)
        rig.wait(CameraCondition.ONLINE, seconds=30)
    assert len([record for record in caplog.records if "the same picture" in record.message]) == 1


SECOND = 10**9


def test_a_freeze_is_judged_to_the_last_bit_and_costs_little() -> None:
    watch, image_hwc = FreezeWatch(10.0), np.zeros((1080, 1920, 3), np.uint8)

    def reopens(at_s: int) -> bool:
        return watch.must_reopen(image_hwc, at_s * SECOND, is_key=False)

    assert not reopens(1) and not reopens(10)
    image_hwc[8, 1919] = 1
    assert not reopens(12), "it changed"
    assert not reopens(21) and reopens(22) and watch.is_frozen
    image_hwc[8, 0] = MOVED
    assert not reopens(23) and watch.is_frozen, "as little as a codec changes"
    image_hwc[8, 0] = 2 * MOVED + 1
    assert not reopens(24) and not watch.is_frozen
    assert not reopens(40) and watch.is_frozen, "not again so soon"
    image_hwc[8, 0] = 0
    assert not reopens(700) and not watch.is_frozen and reopens(710)
    start = time.thread_time()
    for index in range(200):
        watch.must_reopen(image_hwc, index, is_key=index % 30 == 0)
    assert (time.thread_time() - start) / 200 < 1e-3
    off = FreezeWatch(0.0)
    assert not any(off.must_reopen(image_hwc, at_s * SECOND, is_key=True) for at_s in (0, 99)) and not off.is_frozen


@pytest.mark.parametrize(("noise", "is_frozen"), [(2, True), (8, False)])
def test_key_frames_that_a_codec_could_make_of_one_picture_are_alike(noise: int, is_frozen: bool) -> None:
    watch, random = FreezeWatch(10.0), np.random.default_rng(1)
    for frame in range(15 * 30):
        level = 60 if frame % 30 == 0 else 60 + frame % 30
        image_hwc = random.integers(level - noise, level + noise, (240, 320, 3), dtype=np.uint8)
        watch.must_reopen(image_hwc, frame * SECOND // 30, is_key=frame % 30 == 0)
    assert watch.is_frozen is is_frozen


def test_another_size_codec_and_rate_are_taken_as_they_come(camera: ScriptedCamera, hevc: Programme) -> None:
    with watched(camera) as rig:
        assert rig.read(10)[-1].size == SIZE and rig.thread.codec.startswith("h264")
        camera.programme = encode(NUM, size=(160, 128), fps=15)
        rig.until(lambda: rig.read(1)[0].size == (160, 128))
        seen = rig.read(20)
        assert {item.size for item in seen} == {(160, 128)} and rig.thread.num_reconnects == 0
        camera.programme = hevc
        camera.drop_clients()
        rig.until(lambda: rig.thread.codec.startswith("hevc"))
        seen += rig.read(20)
    assert seen[-1].size == SIZE and max(item.looked for item in seen) < 25
    assert_in_order(seen)


def test_a_codec_that_changes_within_a_connection_leads_to_a_new_one(camera: ScriptedCamera, hevc: Programme) -> None:
    with watched(camera, stall_s=1.0) as rig:
        rig.read(10)
        camera.programme = hevc
        rig.until(lambda: rig.thread.codec.startswith("hevc"), seconds=60)
        assert rig.thread.num_reconnects >= 1 and len(rig.read(10)) == 10


@pytest.mark.parametrize("jump_s", [5000.0, -3.0])
def test_time_stamps_that_jump_lose_nothing(camera: ScriptedCamera, jump_s: float) -> None:
    with watched(camera) as rig:
        seen = rig.read(15)
        camera.jump_s = jump_s
        seen += rig.read(40)
    assert_in_order(seen)
    assert {(item.number - item.stamp.seq) % NUM for item in seen} == {0}, "not one picture is missing"
    spread = [(b.stamp.arrival_ns - a.stamp.arrival_ns) / 1e9 for a, b in itertools.pairwise(seen)]
    assert max(spread) < 2 and rig.thread.num_reconnects == 0
    assert rig.thread.numbering.epoch == 0


def test_a_step_of_the_systems_clock_stalls_nothing(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture(camera.url, backoff=quick(), stall_s=1.0) as rig:
        rig.read(10)
        for step_ns in (-(10**18), 10**17):
            now_ns = time.time_ns
            monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns, step_ns=step_ns: now_ns() + step_ns)
            seen = rig.read(30)
            assert len(seen) == 30 and rig.thread.num_reconnects == 0 and {item.stamp.epoch for item in seen} == {0}


def test_the_senders_clock_is_taken_from_its_reports(camera: ScriptedCamera) -> None:
    camera.clock_s = lambda: time.time() - 100.0
    with capture(camera.url, backoff=quick(), clock="sender") as rig:
        rig.until(lambda: rig.thread.clock_source == "sender")
        seen = rig.read(20)
    assert {item.stamp.clock_source for item in seen} == {ClockSource.SENDER}
    for item in seen:
        arrived_utc_ns = item.stamp.arrival_ns + time.time_ns() - time.monotonic_ns()
        assert (arrived_utc_ns - item.stamp.arrival_utc_ns) / 1e9 == pytest.approx(100.0, abs=1.0)
    steps = [(b.stamp.arrival_utc_ns - a.stamp.arrival_utc_ns) / 1e9 for a, b in itertools.pairwise(seen)]
    assert all(step == pytest.approx(round(step * 60) / 60, abs=0.01) and step > 0 for step in steps)


@pytest.mark.parametrize("off_s", [-7200.0, None])
def test_a_clock_that_was_never_set_does_not_count(
    camera: ScriptedCamera, off_s: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    camera.clock_s = None if off_s is None else lambda: time.time() + off_s
    with capture(camera.url, backoff=quick(), clock="sender") as rig:
        seen = rig.read(50)
    assert {item.stamp.clock_source for item in seen} == {ClockSource.ARRIVAL}
    told = [record.message for record in caplog.records if "its clock is" in record.message]
    assert len(told) == (off_s is not None), "one line"


def test_the_time_of_arrival_counts_unless_told_otherwise(camera: ScriptedCamera) -> None:
    camera.clock_s = time.time
    with capture(camera.url, backoff=quick()) as rig:
        assert {item.stamp.clock_source for item in rig.read(30)} == {ClockSource.ARRIVAL}


@pytest.mark.parametrize(
    ("status", "reason", "is_refusal"),
    [
        ("401 Unauthorized", "the user name or password is wrong (401)", True),
        ("403 Forbidden", "this user may not see it (403)", True),
        ("404 Not Found", "the server has no such stream (404)", True),
        ("503 Service Unavailable", "the server has a problem of its own (5xx)", False),
    ],
)
def test_refusals_are_told_apart_loud_and_slow(
    camera: ScriptedCamera, caplog: pytest.LogCaptureFixture, status: str, reason: str, is_refusal: bool
) -> None:
    camera.status = status
    with capture(camera.url, backoff=BackOff(((1000, 0.1),), last_s=0.9)) as rig:
        rig.until(lambda: rig.thread.num_reconnects >= 1)
        assert any(state.reason.endswith(reason) for state in rig.states.states)
        record = next(record for record in caplog.records if reason in record.message)
        assert (record.levelno == logging.ERROR) is is_refusal
        delay_s = float(record.message.rpartition("next try in ")[2].removesuffix(" s"))
        assert (delay_s > 0.6) is is_refusal
        camera.status = "200 OK"
        rig.wait(CameraCondition.ONLINE)


def test_refusals_wait_a_minute_and_do_not_climb_the_ladder() -> None:
    backoff = BackOff()
    delays = [backoff.next_s(is_slow=True) for _ in range(5)]
    assert all(48 <= delay <= 72 for delay in delays) and len(set(delays)) > 1
    assert backoff.next_s() < 1.3


def test_a_gap_longer_than_the_memory_starts_an_epoch(camera: ScriptedCamera) -> None:
    with capture(camera.url, backoff=quick(), stall_s=0.4, memory_gap_s=2.0) as rig:
        assert rig.read(10)[-1].stamp.epoch == 0
        camera.drop_clients()
        rig.until(lambda: rig.thread.num_reconnects >= 1)
        assert rig.read(5)[-1].stamp.epoch == 0, "soon found again"
        camera.is_silent = True
        threading.Event().wait(3.5)
        camera.is_silent = False
        seen = rig.read(10)
        assert seen[-1].stamp.epoch == 1 and [item.stamp.seq for item in seen] == sorted({i.stamp.seq for i in seen})
