"""The publisher over real sockets: what arrives, what may be lost, and that nothing waits for anybody."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import zmq
from deliveries import SMALL, FakeDelivery, masks_of, publishing, wait_for

from stream import wire
from stream.frame import CameraCondition, CameraState
from stream.outlet import BindError
from stream.publish import Publisher

ROOT = pathlib.Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def raw_reader(endpoint: str, *prefixes: bytes, queued: int = 100_000) -> Iterator[zmq.Socket[bytes]]:
    """A SUB socket as any program would make one."""
    with zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.setsockopt(zmq.LINGER, 0)
        reader.setsockopt(zmq.RCVHWM, queued)
        for prefix in prefixes:
            reader.setsockopt(zmq.SUBSCRIBE, prefix)
        reader.connect(endpoint)
        yield reader


def read(reader: zmq.Socket[bytes], timeout_s: float = 5.0) -> wire.Message:
    assert reader.poll(int(timeout_s * 1000)), f"nothing came within {timeout_s} s"
    return wire.decode(reader.recv())


def joined(publisher: Publisher, reader: zmq.Socket[bytes]) -> wire.Info:
    """Wait until the reader's subscriptions are served: info comes to everybody who subscribes to it."""
    message = read(reader)
    assert isinstance(message, wire.Info)
    return message


def state(
    camera: str, condition: CameraCondition = CameraCondition.ONLINE, reason: str = "frames arrive"
) -> CameraState:
    return CameraState(camera, 0, condition, reason, time.time_ns())


# --- content ---------------------------------------------------------------------------------------------------------


def test_a_delivery_arrives_as_one_part_with_its_stamp_and_is_released_once() -> None:
    info = wire.Info(model="nano", backend="eager", cameras=(wire.CameraInfo(name="cam1"),))
    with publishing(info=info) as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/cam1\0") as reader:
        assert joined(publisher, reader).model == "nano"
        delivery = FakeDelivery("cam1", 7)
        publisher.put_masks(delivery)
        assert (told := read(reader)).topic == "info"
        assert isinstance(told, wire.Info) and told.cameras[0].width == 64  # its size is known now
        message = read(reader)
        assert not reader.getsockopt(zmq.RCVMORE)
        wait_for(lambda: delivery.num_released == 1)
    assert isinstance(message, wire.MasksMessage)
    stamp = delivery.stamp
    assert (message.camera, message.epoch, message.seq, message.frame_id) == ("cam1", 0, 7, stamp.frame_id)
    assert (message.model, message.backend, message.num_dropped, message.serial) == ("nano", "eager", 7, 1)
    assert (message.arrival_ns, message.arrival_utc_ns) == (stamp.arrival_ns, stamp.arrival_utc_ns)
    assert message.arrival_ns <= message.inferred_ns <= message.published_ns <= time.monotonic_ns()
    assert abs(message.published_utc_ns - time.time_ns()) < 10e9
    np.testing.assert_array_equal(message.masks().masks_nhw, SMALL.masks_nhw)
    assert message.objects[0].label == "cup"
    assert delivery.num_released == 1


def test_a_picture_without_objects_is_published_too() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        publisher.put_masks(FakeDelivery("cam1", 0, masks=masks_of(np.zeros((0, 20, 30), bool))))
        read(reader)
        message = read(reader)
    assert isinstance(message, wire.MasksMessage)
    assert (message.objects, message.width, message.height) == ((), 30, 20)


def test_drops_and_serials_are_counted_per_camera() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        for camera, seq in (("a", 0), ("b", 4), ("a", 1), ("a", 5), ("b", 5)):
            publisher.put_masks(FakeDelivery(camera, seq))
            assert publisher.wait_drained(5)
        messages = [message for message in (read(reader) for _ in range(7)) if isinstance(message, wire.MasksMessage)]
    told = [(message.camera, message.seq, message.num_dropped, message.serial) for message in messages]
    assert told == [("a", 0, 0, 1), ("b", 4, 4, 1), ("a", 1, 0, 2), ("a", 5, 3, 3), ("b", 5, 0, 2)]


def test_the_mask_encoding_is_chosen_and_told() -> None:
    with (
        publishing(mask_encoding="coco_rle") as publisher,
        raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader,
    ):
        assert joined(publisher, reader).mask_encoding == "coco_rle"
        publisher.put_masks(FakeDelivery("cam1", 0))
        messages = [read(reader), read(reader)]
    assert isinstance(messages[1], wire.MasksMessage)
    assert messages[1].objects[0].sent_patch().encoding == "coco_rle"


def test_the_newest_masks_of_a_camera_win_and_replaced_ones_are_released() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        gated = FakeDelivery("a", 0)
        gated.gate = threading.Event()
        publisher.put_masks(gated)
        wait_for(lambda: publisher.wait_drained(0.0))  # pub took it and is held up in resolve
        waiting = [FakeDelivery("a", seq) for seq in range(1, 6)] + [FakeDelivery("b", 0)]
        started = time.monotonic()
        for delivery in waiting:
            publisher.put_masks(delivery)
        assert time.monotonic() - started < 0.5, "putting waited for the publisher"
        assert not publisher.wait_drained(0.01)
        assert publisher.num_replaced == 4
        gated.gate.set()
        seqs = []
        while len(seqs) < 3:
            if isinstance(message := read(reader), wire.MasksMessage):
                seqs.append((message.camera, message.seq))
        wait_for(lambda: all(delivery.num_released == 1 for delivery in (gated, *waiting)))
    assert seqs == [("a", 0), ("a", 5), ("b", 0)]


def test_what_waits_is_published_before_the_end_and_what_comes_later_is_released() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        last = FakeDelivery("cam1", 0)
        publisher.put_masks(last)
        publisher.stop()
        publisher.join(5)
        late = FakeDelivery("cam1", 1)
        publisher.put_masks(late)
        publisher.put_state(state("cam1"))
        messages = [read(reader), read(reader)]
    assert isinstance(messages[1], wire.MasksMessage)
    assert (last.num_released, late.num_released) == (1, 1)


def test_a_delivery_that_fails_ends_the_thread_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeDelivery):
        def resolve(self):  # type: ignore[no-untyped-def]
            raise RuntimeError("the device is gone")

    publisher = Publisher(["tcp://127.0.0.1:*"])
    publisher.start()
    publisher.wait_ready()
    deliveries = [Broken("a", 0), FakeDelivery("b", 0)]
    for delivery in deliveries:
        publisher.put_masks(delivery)
    publisher.join(5)
    assert not publisher.is_alive() and str(publisher.error) == "the device is gone"
    assert [delivery.num_released for delivery in deliveries] == [1, 1]
    assert "the device is gone" in caplog.text


def test_a_picture_out_of_order_is_a_broken_invariant(caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(["tcp://127.0.0.1:*"])
    publisher.start()
    publisher.wait_ready()
    for seq in (5, 5):
        publisher.put_masks(FakeDelivery("a", seq))
        publisher.wait_drained(5)
    publisher.join(5)
    assert isinstance(publisher.error, AssertionError) and "must keep order" in str(publisher.error)


# --- pictures --------------------------------------------------------------------------------------------------------


def picture(value: int) -> np.ndarray:
    image_hwc = np.full((48, 64, 3), value, np.uint8)
    image_hwc[10:20, 10:30] = (0, 0, 255)
    return image_hwc


def test_pictures_are_wanted_and_sent_only_while_somebody_subscribes() -> None:
    with publishing(frames_fps=1000.0) as publisher:
        assert not publisher.wants_frames("cam1") and not publisher.is_watched("cam1")
        with raw_reader(publisher.endpoints[0], b"frames/cam1\0") as reader:
            wait_for(lambda: publisher.wants_frames("cam1"))
            assert not publisher.wants_frames("cam10")
            delivery = FakeDelivery("cam1", 3, picture_hwc=picture(80))
            publisher.put_masks(delivery)
            message = read(reader)
            wait_for(lambda: delivery.num_released == 1)
        wait_for(lambda: not publisher.is_watched("cam1"))
    assert isinstance(message, wire.FrameMessage)
    assert (message.epoch, message.seq, message.width, message.height) == (0, 3, 64, 48)
    image_hwc = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(image_hwc.astype(int) - picture(80)).mean() < 4


def test_pictures_go_on_when_one_of_two_viewers_leaves() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"frames/cam1\0"):
        with raw_reader(publisher.endpoints[0], b"info\0", b"frames/cam1\0") as second:
            joined(publisher, second)
        threading.Event().wait(0.3)
        assert publisher.is_watched("cam1")


def test_masks_do_not_wait_for_the_pictures_of_other_cameras() -> None:
    image_hwc = np.random.default_rng(0).integers(0, 255, (2160, 3840, 3), np.uint8)  # noise: slow to encode
    cameras = [f"cam{index}" for index in range(6)]
    with (
        publishing(frames_fps=1000.0) as publisher,
        raw_reader(publisher.endpoints[0], b"info\0", b"masks/", b"frames/") as reader,
    ):
        joined(publisher, reader)
        deliveries = [FakeDelivery(camera, 0, picture_hwc=image_hwc) for camera in cameras]
        for delivery in deliveries:
            publisher.put_masks(delivery)
        assert publisher.wait_drained(10)
        publisher.put_masks(FakeDelivery("urgent", 0))
        topics = []
        while sum(topic.startswith("frames/") for topic in topics) < len(cameras):
            topics.append(read(reader).topic)
        wait_for(lambda: all(delivery.num_released == 1 for delivery in deliveries))
    assert sum(topic.startswith("frames/") for topic in topics[: topics.index("masks/urgent")]) <= 2, topics


def test_a_publisher_that_was_never_started_stops_quietly() -> None:
    publisher = Publisher()
    publisher.put_masks(FakeDelivery("cam1", 0))
    publisher.stop()
    publisher.join(1)
    assert not publisher.is_alive()


def test_pictures_keep_to_their_rate() -> None:
    with publishing(frames_fps=20.0) as publisher, raw_reader(publisher.endpoints[0], b"frames/") as reader:
        wait_for(lambda: publisher.is_watched("cam1"))
        started, num_wanted = time.monotonic(), 0
        for seq in range(50):
            is_wanted = publisher.wants_frames("cam1")
            num_wanted += is_wanted
            publisher.put_masks(FakeDelivery("cam1", seq, picture_hwc=picture(9) if is_wanted else None))
            threading.Event().wait(0.01)
        lasted_s = time.monotonic() - started
        num_received = 0
        while reader.poll(300):
            reader.recv()
            num_received += 1
    assert num_received <= 20 * lasted_s + 2
    assert num_received >= 0.5 * 20 * lasted_s
    assert num_wanted <= num_received + 5, "pictures were leased that were not due"


def test_pictures_can_be_switched_off() -> None:
    with publishing(frames_fps=0.0) as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"frames/") as reader:
        joined(publisher, reader)
        assert not publisher.wants_frames("cam1")


# --- the known traps -------------------------------------------------------------------------------------------------


def test_cam1_does_not_bring_cam10() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", wire.prefix("masks/cam1")) as reader:
        joined(publisher, reader)
        for seq in range(20):
            for camera in ("cam10", "cam1", "cam"):
                publisher.put_masks(FakeDelivery(camera, seq))
            publisher.wait_drained(5)
        messages = []
        while reader.poll(300):
            messages.append(read(reader))
    cameras = [message.camera for message in messages if isinstance(message, wire.MasksMessage)]
    assert cameras == ["cam1"] * 20


def test_a_burst_of_32_cameras_loses_nothing_for_a_live_reader() -> None:
    cameras = [f"cam{index}" for index in range(32)]
    info = wire.Info(cameras=tuple(wire.CameraInfo(name=camera, width=64, height=48) for camera in cameras))
    num_rounds = 40
    with publishing(info=info) as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        for seq in range(num_rounds):
            for camera in cameras:
                publisher.put_masks(FakeDelivery(camera, seq))
            assert publisher.wait_drained(10)
        serials: dict[str, list[int]] = {camera: [] for camera in cameras}
        while sum(map(len, serials.values())) < num_rounds * len(cameras):
            if isinstance(message := read(reader), wire.MasksMessage):
                serials[message.camera].append(message.serial)
        assert publisher.num_replaced == 0
    assert all(got == list(range(1, num_rounds + 1)) for got in serials.values())


READER = """
import sys, zmq
from stream import wire
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 2)
socket.setsockopt(zmq.RCVBUF, 4096)
socket.subscribe(b"masks/")
socket.connect(sys.argv[1])
while True:
    message = wire.decode(socket.recv())
    print(message.seq, flush=True)
"""


def test_a_stopped_subscriber_does_not_delay_a_live_one_and_comes_back() -> None:
    command = [sys.executable, "-c", READER]
    with publishing() as publisher:
        endpoint = publisher.endpoints[0]
        process = subprocess.Popen(
            [*command, endpoint], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        try:
            assert process.stdout is not None
            stopped_after = feed_until_line(publisher, process)
            process.send_signal(signal.SIGSTOP)
            with raw_reader(endpoint, b"info\0", b"masks/") as reader:
                joined(publisher, reader)
                ages_ms = []
                for seq in range(stopped_after, stopped_after + 2000):
                    publisher.put_masks(FakeDelivery("cam1", seq))
                    message = read(reader)
                    while not isinstance(message, wire.MasksMessage):
                        message = read(reader)
                    assert message.seq == seq
                    ages_ms.append(message.age_ms())
            assert np.percentile(ages_ms, 99) < 50, f"p99 {np.percentile(ages_ms, 99):.1f} ms beside a stopped reader"
            process.send_signal(signal.SIGCONT)
            assert feed_until_line(publisher, process, first=stopped_after + 2000), "the reader did not come back"
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()


def feed_until_line(publisher: Publisher, process: subprocess.Popen[bytes], first: int = 0) -> int:
    """Publish until the process prints the seq of a message that is at least `first`; the next free seq."""
    seen = threading.Event()

    def watch() -> None:
        for line in process.stdout or ():
            if int(line) >= first:
                seen.set()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    seq = first
    deadline = time.monotonic() + 30
    while not seen.wait(0.02) and time.monotonic() < deadline:
        publisher.put_masks(FakeDelivery("cam1", seq))
        seq += 1
    assert seen.is_set(), "the reader's process printed nothing"
    watcher.join(5)
    return seq


def test_a_late_joiner_gets_state_and_info_at_once() -> None:
    info = wire.Info(cameras=(wire.CameraInfo(name="cam1"),))
    with publishing(info=info) as publisher:
        publisher.put_state(state("cam1"))
        publisher.put_state(state("cam1", CameraCondition.OFFLINE, "no answer for 3 s"))
        wait_for(lambda: publisher.num_loops > 1)
        threading.Event().wait(0.2)
        started = time.monotonic()
        with raw_reader(publisher.endpoints[0], b"info\0", b"state/") as reader:
            messages = {message.topic: message for message in (read(reader), read(reader))}
            assert time.monotonic() - started < 1.0
    late = messages["state/cam1"]
    assert isinstance(late, wire.StateMessage) and late.condition is CameraCondition.OFFLINE
    assert late.reason == "no answer for 3 s" and late.serial == 2
    assert isinstance(messages["info"], wire.Info)


def test_late_joiners_make_a_state_repeat_at_most_every_100_ms() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0") as reader:
        started = time.monotonic()
        for _ in range(60):
            with raw_reader(publisher.endpoints[0], b"info\0"):
                threading.Event().wait(0.01)
        lasted_s = time.monotonic() - started
        num_received = 0
        while reader.poll(300):
            message = read(reader)
            num_received += 1
            assert message.serial == 1
    assert 2 <= num_received <= lasted_s / 0.1 + 2


def test_the_state_of_a_camera_that_is_gone_is_no_longer_repeated() -> None:
    info = wire.Info(cameras=(wire.CameraInfo(name="a"), wire.CameraInfo(name="b")))
    with publishing(info=info) as publisher:
        publisher.put_state(state("a"))
        publisher.put_state(state("b"))
        wait_for(lambda: publisher.wait_drained(0.0))
        with raw_reader(publisher.endpoints[0], b"state/") as reader:
            assert {read(reader).topic, read(reader).topic} == {"state/a", "state/b"}
        publisher.put_info(wire.Info(cameras=(wire.CameraInfo(name="b"),)))
        threading.Event().wait(0.2)
        with raw_reader(publisher.endpoints[0], b"state/") as reader:
            assert read(reader).topic == "state/b"
            assert not reader.poll(300)


def test_more_states_than_fit_keep_the_newest() -> None:
    publisher = Publisher(["tcp://127.0.0.1:*"])
    for index in range(50):
        publisher.put_state(state("cam1", reason=str(index)))
    publisher.start()
    publisher.wait_ready()
    with raw_reader(publisher.endpoints[0], b"state/") as reader:
        message = read(reader)
    publisher.stop()
    publisher.join(5)
    assert isinstance(message, wire.StateMessage) and message.reason == "49"


# --- endpoints, and the end ------------------------------------------------------------------------------------------


def test_it_serves_tcp_and_ipc_at_once_and_takes_its_file_away(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "masks.sock"
    threads = threading.active_count()
    with publishing("tcp://127.0.0.1:*", f"ipc://{path}") as publisher:
        assert path.is_socket()
        for endpoint in publisher.endpoints:
            with raw_reader(endpoint, b"info\0") as reader:
                joined(publisher, reader)
    assert not path.exists()
    assert threading.active_count() == threads


def test_a_socket_file_left_by_a_killed_daemon_is_taken_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "masks.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with publishing(f"ipc://{path}") as publisher, raw_reader(publisher.endpoints[0], b"info\0") as reader:
        joined(publisher, reader)


def failing(*bind: str) -> str:
    publisher = Publisher(bind)
    publisher.start()
    with pytest.raises(BindError) as caught:
        publisher.wait_ready()
    publisher.join(5)
    assert not publisher.is_alive()
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    return str(caught.value)


def test_an_endpoint_that_cannot_be_bound_is_named(tmp_path: pathlib.Path) -> None:
    with publishing("tcp://127.0.0.1:*", f"ipc://{tmp_path}/a.sock") as publisher:
        assert publisher.endpoints[0] in failing(publisher.endpoints[0])
        assert "is in use" in failing(f"ipc://{tmp_path}/a.sock")
        assert (tmp_path / "a.sock").is_socket(), "the second publisher took the first one's file"
    (tmp_path / "notes.txt").write_text("mine")
    assert "is in use" in failing(f"ipc://{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert "a directory that exists" in failing(f"ipc://{tmp_path}/nowhere/a.sock")
    assert "at most 100" in failing(f"ipc://{tmp_path}/{'x' * 120}")
    assert "tcp://127.0.0.1:PORT" in failing("5560")
    assert "tcp://127.0.0.1:PORT" in failing("tcp://5560")


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "192.168.1.5", "[::]", "eth0", "example.org"])
def test_nothing_listens_beyond_this_machine(host: str) -> None:
    assert "can be reached from other machines" in failing(f"tcp://{host}:5560")


def test_loops_move_while_idle() -> None:
    with publishing() as publisher:
        before = publisher.num_loops
        wait_for(lambda: publisher.num_loops >= before + 3, 3.0)


def test_garbage_from_a_client_changes_nothing() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/") as reader:
        joined(publisher, reader)
        host, _, port = publisher.endpoints[0].removeprefix("tcp://").rpartition(":")
        for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"", b"\xff" + bytes(8) + b"\x7f" + bytes(200)):
            with socket.create_connection((host, int(port)), 5) as client, contextlib.suppress(OSError):
                client.sendall(junk)
        with zmq.Context() as context, context.socket(zmq.XSUB) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(publisher.endpoints[0])
            for request in (b"", b"\1", b"\0never", b"hello", b"\1" + b"x" * 100_000, b"\1" + b"y" * 900):
                client.send(request)
            threading.Event().wait(0.2)
        publisher.put_masks(FakeDelivery("cam1", 0))
        message = read(reader)
        while not isinstance(message, wire.MasksMessage):
            message = read(reader)
        assert message.seq == 0


def test_twenty_thousand_messages_do_not_grow_the_memory() -> None:
    with publishing() as publisher, raw_reader(publisher.endpoints[0], b"info\0", b"masks/", queued=100) as reader:
        joined(publisher, reader)
        sizes = []
        for seq in range(1250):
            for index in range(16):
                publisher.put_masks(FakeDelivery(f"cam{index}", seq))
            assert publisher.wait_drained(5)
            if seq % 250 == 249:
                gc.collect()
                sizes.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/dev/fd"))))
        wait_for(lambda: publisher.num_published == 20_000)
    kib, num_files = zip(*sizes, strict=True)
    assert kib[-1] - kib[1] < 3000, f"peak memory grew: {kib} KiB"
    assert num_files[-1] <= max(num_files[:2]), f"open files grew: {num_files}"
