"""The Subscriber against a real publisher: newest or everything, in order, each once, and told when nothing comes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from deliveries import SMALL, FakeDelivery, publishing, wait_for

from stream import wire
from stream.client import FrameMessage, Info, MasksMessage, StateMessage, Subscriber, WireError
from stream.frame import CameraCondition, CameraState
from stream.publish import Publisher

INFO = wire.Info(model="nano", cameras=(wire.CameraInfo(name="cam1"), wire.CameraInfo(name="cam10")))


def feed(publisher: Publisher, camera: str, seqs: range, **options: object) -> None:
    """Publish every one of these pictures."""
    for seq in seqs:
        publisher.put_masks(FakeDelivery(camera, seq, **options))  # type: ignore[arg-type]
        assert publisher.wait_drained(5)


@contextlib.contextmanager
def feeding(publisher: Publisher, *cameras: str, period_s: float = 0.01) -> Iterator[None]:
    """A thread that publishes pictures of these cameras until the block ends."""
    stopping = threading.Event()

    def run() -> None:
        seq = 0
        while not stopping.wait(period_s):
            for camera in cameras:
                publisher.put_masks(FakeDelivery(camera, seq))
            seq += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(5)


def take(subscriber: Subscriber, is_enough: Callable[[list[MasksMessage]], bool]) -> list[MasksMessage]:
    messages: list[MasksMessage] = []
    for message in subscriber:
        messages.append(message)
        if is_enough(messages):
            break
    return messages


def settle(subscriber: Subscriber) -> None:
    """Read until info came: from then on the publisher knows what this subscriber wants."""
    while subscriber.info is None:
        subscriber.receive()
    threading.Event().wait(0.1)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_the_ten_lines_of_the_readme_work() -> None:
    with (
        publishing(info=INFO) as publisher,
        feeding(publisher, "cam1"),
        Subscriber(publisher.endpoints[0]) as subscriber,
    ):
        for message in subscriber:
            mask = message.mask(1)
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, SMALL.masks_nhw[0])
            assert 0 < message.age_ms() < 5000
            break


@pytest.mark.parametrize("cameras", [None, ["cam1"]])
def test_everything_arrives_in_order(cameras: list[str] | None) -> None:
    with (
        publishing(info=INFO) as publisher,
        Subscriber(publisher.endpoints[0], cameras, newest_only=False) as subscriber,
    ):
        settle(subscriber)
        feed(publisher, "cam1", range(500))
        messages = take(subscriber, lambda got: got[-1].seq == 499)
        counts = subscriber.counts("cam1")
    assert [message.seq for message in messages] == list(range(500))
    assert (counts.num_received, counts.num_lost, counts.num_dropped) == (500, 0, 0)


def test_newest_only_skips_what_it_is_too_slow_for_and_counts_it() -> None:
    with publishing(info=INFO) as publisher, Subscriber(publisher.endpoints[0]) as subscriber:
        settle(subscriber)
        feed(publisher, "cam1", range(1))
        assert next(iter(subscriber)).seq == 0
        feed(publisher, "cam1", range(1, 300))
        threading.Event().wait(0.3)
        messages = take(subscriber, lambda got: got[-1].seq == 299)
        counts = subscriber.counts("cam1")
    assert len(messages) <= 3, "a slow reader was handed stale messages"
    assert counts.num_received + counts.num_lost == 300


def test_newest_only_keeps_one_message_of_every_topic() -> None:
    with publishing(info=INFO) as publisher, Subscriber(publisher.endpoints[0], ["cam1", "cam10"]) as subscriber:
        settle(subscriber)
        for seq in range(20):
            for camera in ("cam1", "cam10"):
                feed(publisher, camera, range(seq, seq + 1))
            publisher.put_state(CameraState("cam1", 0, CameraCondition.ONLINE, str(seq), 1))
        threading.Event().wait(0.3)
        newest: dict[str, wire.Message] = {}
        while len(newest) < 3:
            message = subscriber.receive().message
            if not isinstance(message, Info):
                newest[message.topic] = message
        assert isinstance(subscriber.states["cam1"], StateMessage) and subscriber.states["cam1"].reason == "19"
    assert {topic: getattr(message, "seq", None) for topic, message in newest.items()} == {
        "masks/cam1": 19, "masks/cam10": 19, "state/cam1": None,
    }  # fmt: skip


@pytest.mark.parametrize("newest_only", [True, False])
def test_cam1_alone_is_cam1_alone(newest_only: bool) -> None:
    with (
        publishing(info=INFO) as publisher,
        feeding(publisher, "cam1", "cam10"),
        Subscriber(publisher.endpoints[0], ["cam1"], newest_only=newest_only) as subscriber,
    ):
        messages = take(subscriber, lambda got: len(got) == 30)
    assert {message.camera for message in messages} == {"cam1"}


def test_cameras_are_found_through_info_also_later_ones_and_none_is_served_first_only() -> None:
    with publishing() as publisher, Subscriber(publisher.endpoints[0]) as subscriber, feeding(publisher, "a", "b"):
        messages = take(subscriber, lambda got: len(got) > 100)
        shares = [sum(message.camera == camera for message in messages) for camera in ("a", "b")]
        assert min(shares) > 30, f"one camera starves: {shares}"
        with feeding(publisher, "late"):
            take(subscriber, lambda got: got[-1].camera == "late")
        assert subscriber.info is not None
        assert [camera.name for camera in subscriber.info.cameras] == ["a", "b", "late"]


def test_pictures_join_their_masks_by_epoch_and_seq() -> None:
    with (
        publishing(info=INFO, frames_fps=1000.0) as publisher,
        Subscriber(publisher.endpoints[0], ["cam1"], newest_only=False, frames=True) as subscriber,
    ):
        settle(subscriber)
        wait_for(lambda: publisher.is_watched("cam1"))
        feed(publisher, "cam1", range(5), picture_hwc=np.full((48, 64, 3), 90, np.uint8), epoch=4)
        seen: dict[type, list[tuple[int, int]]] = {MasksMessage: [], FrameMessage: []}
        while len(seen[FrameMessage]) < 5:
            message = subscriber.receive().message
            if isinstance(message, MasksMessage | FrameMessage):
                seen[type(message)].append((message.epoch, message.seq))
    assert seen[FrameMessage] == seen[MasksMessage] == [(4, seq) for seq in range(5)]


# --- order, joins, restarts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_only", [True, False])
def test_a_living_reader_sees_each_message_once_during_100_joins(newest_only: bool) -> None:
    with publishing(info=INFO) as publisher, feeding(publisher, "cam1", period_s=0.004):
        publisher.put_state(CameraState("cam1", 0, CameraCondition.ONLINE, "frames arrive", 1))
        endpoint = publisher.endpoints[0]
        finished = threading.Event()

        def join_often() -> None:
            for _ in range(100):
                with zmq.Context() as context, context.socket(zmq.SUB) as joiner:
                    joiner.setsockopt(zmq.LINGER, 0)
                    joiner.subscribe(b"")
                    joiner.connect(endpoint)
                    joiner.poll(50)
            finished.set()

        with Subscriber(endpoint, newest_only=newest_only) as subscriber:
            settle(subscriber)
            joiner = threading.Thread(target=join_often)
            joiner.start()
            messages = [subscriber.receive().message]
            while not finished.is_set():
                messages.append(subscriber.receive().message)
            joiner.join(5)
            num_lost = subscriber.counts("cam1").num_lost
    seqs = [message.seq for message in messages if isinstance(message, MasksMessage)]
    assert len(seqs) > 50 and all(a < b for a, b in itertools.pairwise(seqs)), "seq must rise strictly"
    serials = [(message.topic, message.serial) for message in messages if not isinstance(message, MasksMessage)]
    assert len(set(serials)) == len(serials), "a state or info was handed out twice"
    assert newest_only or num_lost == 0


def test_old_and_equal_pictures_are_not_handed_out() -> None:
    with raw_publisher() as (socket, endpoint), Subscriber(endpoint, ["cam1"], newest_only=False) as subscriber:
        socket.recv()  # its subscriptions
        for serial, (epoch, seq) in enumerate([(0, 5), (0, 5), (0, 4), (0, 6), (1, 6), (0, 9), (1, 7)]):
            socket.send(masks_bytes(epoch=epoch, seq=seq, serial=serial + 1))
        order = [(message.epoch, message.seq) for message in take(subscriber, lambda got: got[-1].seq == 7)]
    assert order == [(0, 5), (0, 6), (1, 6), (1, 7)]


def test_a_restarted_daemon_is_followed_though_its_seq_begins_anew() -> None:
    with publishing(info=INFO) as publisher:
        endpoint = publisher.endpoints[0]
        subscriber = Subscriber(endpoint, ["cam1"], newest_only=False)
        settle(subscriber)
        feed(publisher, "cam1", range(50))
        take(subscriber, lambda got: got[-1].seq == 49)
    with subscriber, publishing(endpoint, info=INFO) as publisher, feeding(publisher, "cam1"):
        message = next(iter(subscriber))
        assert message.seq < 49
        assert subscriber.counts("cam1").num_lost == 0


def test_a_serial_that_jumps_is_a_loss_and_drops_are_summed() -> None:
    with raw_publisher() as (socket, endpoint), Subscriber(endpoint, ["cam1"], newest_only=False) as subscriber:
        socket.recv()
        for serial, seq in ((10, 20), (11, 24), (14, 30)):
            socket.send(masks_bytes(epoch=0, seq=seq, serial=serial, num_dropped=3))
        take(subscriber, lambda got: got[-1].seq == 30)
        counts = subscriber.counts("cam1")
    assert (counts.num_received, counts.num_lost, counts.num_dropped) == (3, 2, 6)


# --- asyncio ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_only", [True, False])
def test_async_for_gives_the_same_and_does_not_block_the_loop(newest_only: bool) -> None:
    async def main(endpoint: str) -> tuple[list[int], int]:
        seqs: list[int] = []
        num_ticks = 0

        async def tick() -> None:
            nonlocal num_ticks
            while True:
                await asyncio.sleep(0.005)
                num_ticks += 1

        ticking = asyncio.create_task(tick())
        with Subscriber(endpoint, newest_only=newest_only, timeout_s=5) as subscriber:
            async for message in subscriber:
                seqs.append(message.seq)
                if len(seqs) == 40:
                    break
        ticking.cancel()
        return seqs, num_ticks

    with publishing(info=INFO) as publisher, feeding(publisher, "cam1"):
        seqs, num_ticks = asyncio.run(main(publisher.endpoints[0]))
    assert all(a < b for a, b in itertools.pairwise(seqs)) and num_ticks > 20


def test_async_times_out_by_name() -> None:
    async def main() -> None:
        with Subscriber("tcp://127.0.0.1:9", timeout_s=0.2) as subscriber:
            async for _ in subscriber:
                raise AssertionError("nobody publishes there")

    with pytest.raises(TimeoutError, match=r"no message from tcp://127.0.0.1:9 for 0.2 s, expected a daemon"):
        asyncio.run(main())


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_silence_is_a_timeout_that_names_the_endpoint_and_reading_goes_on_afterwards() -> None:
    with publishing(info=INFO) as publisher, Subscriber(publisher.endpoints[0], timeout_s=0.3) as subscriber:
        settle(subscriber)
        publisher.put_state(CameraState("cam1", 0, CameraCondition.OFFLINE, "no answer for 3 s", 1))
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            next(iter(subscriber))
        assert 0.25 < time.monotonic() - started < 3
        assert publisher.endpoints[0] in str(caught.value) and "cam1 is offline (no answer for 3 s)" in str(
            caught.value
        )
        feed(publisher, "cam1", range(1))
        assert next(iter(subscriber)).seq == 0


def test_a_camera_that_the_daemon_does_not_have_is_named_in_the_timeout() -> None:
    with publishing(info=INFO) as publisher, Subscriber(publisher.endpoints[0], ["cam2"], timeout_s=0.3) as subscriber:
        settle(subscriber)
        with pytest.raises(TimeoutError, match=r"cam2 is not one of its cameras \['cam1', 'cam10'\]"):
            next(iter(subscriber))


@pytest.mark.parametrize("endpoint", ["", "5560", "tcp://", "http://127.0.0.1:80", "tcp://127.0.0.1:port", "ipc://"])
def test_an_endpoint_of_another_kind_is_refused_by_name(endpoint: str) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="expected tcp://HOST:PORT or ipc://PATH"):
        Subscriber(endpoint)
    assert threading.active_count() == before


@pytest.mark.parametrize("cameras", [["cam 1"], [""], ["a/b"], ["x" * 65]])
def test_a_camera_name_that_cannot_be_is_refused(cameras: list[str]) -> None:
    with pytest.raises(ValueError, match="camera"):
        Subscriber("tcp://127.0.0.1:5560", cameras)


@pytest.mark.parametrize("junk", [b"masks/cam1\0\xc1", b"masks/cam1\0", b"masks/cam1\0\x81\xa7version\x07"])
def test_a_message_against_the_specification_is_an_error_and_reading_goes_on(junk: bytes) -> None:
    with raw_publisher() as (socket, endpoint), Subscriber(endpoint, ["cam1"], newest_only=False) as subscriber:
        socket.recv()
        socket.send(junk)
        socket.send(masks_bytes(epoch=0, seq=3, serial=1))
        with pytest.raises(WireError, match="masks/cam1"):
            next(iter(subscriber))
        assert next(iter(subscriber)).seq == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files in /proc")
def test_closing_gives_every_file_back() -> None:
    with publishing(info=INFO) as publisher:
        num_files = []
        for _ in range(20):
            with Subscriber(publisher.endpoints[0]) as subscriber:
                settle(subscriber)
                subscriber.close()
            subscriber.close()
            num_files.append(len(os.listdir("/proc/self/fd")))
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= min(num_files[:5]) + 10)


def test_the_client_loads_no_heavy_package() -> None:
    code = """
import sys, stream.client, stream.subscribe, stream.replay, stream.recording
heavy = {"torch", "cv2", "av", "sam2", "stream.publish"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@contextlib.contextmanager
def raw_publisher() -> Iterator[tuple[zmq.Socket[bytes], str]]:
    """A socket that sends what the test wants, also what no publisher would."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 5000)
        socket.bind("tcp://127.0.0.1:*")
        yield socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def masks_bytes(*, epoch: int, seq: int, serial: int, num_dropped: int = 0) -> bytes:
    stamp = FakeDelivery("cam1", seq, epoch=epoch).stamp
    fields = wire.picture_fields(stamp, SMALL, inferred_ns=stamp.decoded_ns)
    message = wire.MasksMessage(serial=serial, num_dropped=num_dropped, model="", backend="", objects=(), **fields)
    return wire.encode(message)
