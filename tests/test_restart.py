"""A daemon that is killed goes on with the objects that a person added: a real process, a real model, `kill -9`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zmq
from daemon_rig import START_LIMIT_S, DaemonProcess, daemon, deliveries, mean_iou

from engines.synthetic import ClipSpec, SyntheticClip, draw_counter
from stream.client import Subscriber
from stream.controller import Controller
from stream.state_file import StateError, read_state

SPEC = ClipSpec(seed=3_000_000_326, num_frames=900, height=240, width=320, speed=0.3, leave_probability=0.0)


@contextmanager
def camera(address: str, clip: SyntheticClip, *, fps: float = 12.0) -> Iterator[None]:
    """A robot's camera, which goes on whatever the daemon does; its pictures show their numbers."""
    stopping = threading.Event()

    def send() -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.linger, socket.sndhwm, socket.immediate = 0, 1, True
            socket.connect(address)
            for number in range(clip.spec.num_frames):
                picture = clip.frame(number).copy()
                draw_counter(picture, number)
                header = {"version": 1, "encoding": "raw_bgr", "height": picture.shape[0], "width": picture.shape[1]}
                header |= {"utc_ns": time.time_ns(), "frame_id": "", "seq": number}
                if socket.poll(0, zmq.POLLOUT):
                    socket.send_multipart([msgspec.msgpack.encode(header), picture])
                if stopping.wait(1 / fps):
                    return

    thread = threading.Thread(target=send, name="camera")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(10)
        assert not thread.is_alive()


def wait_for_saved(file: Path, num_objects: int) -> None:
    deadline, tick = time.monotonic() + 30, threading.Event()
    while time.monotonic() < deadline:
        try:
            state = read_state(file)
        except StateError as error:
            raise AssertionError("a reader never sees half a file") from error
        if state is not None and sum(len(one.objects) for one in state.cameras) == num_objects:
            return
        tick.wait(0.05)
    raise AssertionError(f"{num_objects} objects were not saved within 30 s")


def add_objects(running: DaemonProcess, clip: SyntheticClip) -> dict[int, str]:
    """A click on each object, on a picture that the person saw; ids and labels."""
    (seen,) = deliveries(running.endpoint, 1, limit_s=START_LIMIT_S)
    assert seen.number is not None and seen.masks.objects == ()
    labels = {}
    with Controller(f"{running.endpoint}-control", timeout_s=20) as controller:
        for index in range(2):
            x, y = clip.click(index, seen.number)
            reply = controller.add("cam", points=[(x, y, 1)], label=f"thing {index}", seen=seen.masks)
            assert reply.object_id is not None
            labels[reply.object_id] = f"thing {index}"
    return labels


def test_a_daemon_that_was_killed_goes_on_with_the_objects_that_people_added(tmp_path: Path) -> None:
    clip = SyntheticClip(SPEC)
    address = f"ipc://{tmp_path}/push.sock"
    config = f'state = "{tmp_path}/state"\n[[camera]]\nname = "cam"\nsource = "push://cam?bind={address}"\n'
    with camera(address, clip):
        with daemon(tmp_path, config) as running:
            labels = add_objects(running, clip)
            assert labels == {1: "thing 0", 2: "thing 1"}
            before = deliveries(running.endpoint, 12, limit_s=60)
            wait_for_saved(tmp_path / "state" / "objects.state", 2)
            running.end(signal.SIGKILL)
        with daemon(tmp_path, config) as running:
            after = deliveries(running.endpoint, 20, limit_s=START_LIMIT_S)
            with Subscriber(running.endpoint) as subscriber:
                subscriber.receive()
            assert running.end()[0] == 0
        log = running.log.read_text(encoding="utf-8")
    assert len(after) == 20 and "going on with 2 saved objects" in log
    assert min(item.masks.epoch for item in after) > before[-1].masks.epoch
    for item in after:
        assert {entry.id: entry.label for entry in item.masks.objects} == labels
    found = [item for item in before if len(item.masks.objects) == 2]
    assert mean_iou(found, clip) >= 0.7 and mean_iou(after, clip) >= 0.7
    print(f"IoU before {mean_iou(found, clip):.3f}, after {mean_iou(after, clip):.3f}")
