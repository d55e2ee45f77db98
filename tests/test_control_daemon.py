"""A real daemon, commanded as its users do it, while hostile clients send what they like."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from control_rig import raw_client
from daemon_rig import DaemonProcess, daemon, write_clip
from deliveries import wait_for
from hostile import VALID, mutated
from rtsp import APT_PACKAGES, RtspServer

from engines.synthetic import ClipSpec, SyntheticClip
from stream.client import FrameMessage, MasksMessage, Message, StateMessage, Subscriber
from stream.command import Reply
from stream.controller import CommandRefused, Controller, control_endpoint
from stream.fleet import UNTOLD
from stream.status import CameraStatus

LEFT = ClipSpec(seed=1, num_frames=1, height=240, width=320, num_objects=2)  # as testsrc:// makes it
DOOR = ClipSpec(seed=3_000_000_326, num_frames=60, height=240, width=320, num_objects=2, speed=2.0)
LIMIT_S = 60.0
CONFIG = """
wire_schemes = ["rtsp"]
[[camera]]
name = "left"
source = "testsrc://?width=320&height=240&fps=4&seed=1"
[[camera]]
name = "right"
source = "testsrc://?width=320&height=240&fps=4&seed=2"
[[camera.prompt]]
object_id = 1
points = [[160, 120, 1]]
"""


class Watching:
    """Everything that the daemon publishes, read by the test's own thread; `arrivals_s` of the masks by camera."""

    def __init__(self, endpoint: str) -> None:
        self.subscriber = Subscriber(endpoint, newest_only=False, frames=True, timeout_s=LIMIT_S)
        self.arrivals_s: dict[str, list[float]] = {}
        self.requests: list[str] = []

    def read(self) -> Message:
        message = self.subscriber.receive().message
        if isinstance(message, MasksMessage):
            self.arrivals_s.setdefault(message.camera, []).append(time.monotonic())
            self.requests += message.requests
        return message

    def until(self, is_wanted: Callable[[Message], bool]) -> Message:
        deadline = time.monotonic() + LIMIT_S
        while not is_wanted(message := self.read()):
            assert time.monotonic() < deadline, f"not published within {LIMIT_S} s"
        return message

    def masks(self, camera: str, is_wanted: Callable[[MasksMessage], bool]) -> MasksMessage:
        message = self.until(lambda m: isinstance(m, MasksMessage) and m.camera == camera and is_wanted(m))
        assert isinstance(message, MasksMessage)
        return message

    def shows(self, reply: Reply, camera: str = "left") -> MasksMessage:
        """The first masks that show what a command did."""
        return self.masks(camera, lambda message: reply.id in message.requests)

    def picture(self, camera: str) -> FrameMessage:
        message = self.until(lambda m: isinstance(m, FrameMessage) and m.camera == camera)
        assert isinstance(message, FrameMessage)
        return message

    def state(self, camera: str, condition: str) -> None:
        self.until(lambda m: isinstance(m, StateMessage) and m.camera == camera and m.condition == condition)


@contextmanager
def bombarded(endpoint: str) -> Iterator[list[int]]:
    """Inside, a hostile client sends mutated requests without a pause; how many stands in the list."""
    stopping, num_sent = threading.Event(), [0]

    def bombard() -> None:
        draw = random.Random(11)
        while not stopping.is_set():
            with raw_client(endpoint) as client:
                client.setsockopt(zmq.SNDTIMEO, 1000)
                for _ in range(500):
                    if not stopping.wait(0.0005) and client.poll(0, zmq.POLLOUT):
                        client.send(mutated(draw.choice(VALID), draw))
                        num_sent[0] += 1

    thread = threading.Thread(target=bombard, name="hostile")
    thread.start()
    try:
        yield num_sent
    finally:
        stopping.set()
        thread.join(20)


def iou(message: MasksMessage, object_id: int, clip: SyntheticClip, truth: int) -> float:
    mask, true = message.mask(object_id), clip.masks(message.seq)[truth]
    return float((mask & true).sum() / (mask | true).sum())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[DaemonProcess]:
    with daemon(tmp_path, CONFIG) as process:
        yield process


def objects_are_commanded(watching: Watching, controller: Controller) -> None:
    """Add by click on the picture that was seen, rename, refine, undo, remove, reset."""
    clip = SyntheticClip(LEFT)
    seen = watching.picture("left")
    added = controller.add("left", points=[clip.click(0, seen.seq)], label="cup", seen=seen)
    message = watching.shows(added)
    assert added.seen is not None and (added.seen.epoch, added.seen.seq) == (seen.epoch, seen.seq) and not added.note
    assert [item.label for item in message.objects] == ["cup"] and iou(message, added.object_id or 0, clip, 0) > 0.5

    renamed = controller.rename("left", added.object_id or 0, new_id=7, label="pan")
    message = watching.shows(renamed)
    assert [(item.id, item.label) for item in message.objects] == [(7, "pan")] and iou(message, 7, clip, 0) > 0.5

    point = clip.click(0, message.seq)
    watching.shows(controller.refine("left", 7, points=[point], seen=message))
    watching.shows(controller.undo("left"))
    watching.shows(controller.remove("left", 7))
    assert watching.masks("left", lambda _: True).objects == ()
    assert [item.id for item in watching.shows(controller.undo("left")).objects] == [7]
    wait_for(lambda: [(item.id, item.label) for item in status_of(controller, "left").objects] == [(7, "pan")], LIMIT_S)
    watching.shows(controller.reset("left"))
    assert watching.masks("left", lambda _: True).objects == ()
    for call in (lambda: controller.remove("left", 7), lambda: controller.refine("left", 7, points=[point])):
        with pytest.raises(CommandRefused) as caught:
            call()
        assert caught.value.code == "unknown"


def cameras_are_commanded(watching: Watching, controller: Controller, url: str) -> None:
    """Add an RTSP camera, prompt it, pause it, resume it with its object, remove it."""
    assert controller.add_camera("door", url).ok
    mask_hw = np.zeros((240, 320), bool)
    mask_hw[60:180, 80:240] = True
    watching.picture("door")
    reply = controller.add("door", mask=mask_hw, label="box")
    assert [item.label for item in watching.shows(reply, "door").objects] == ["box"]
    controller.pause_camera("door")
    watching.state("door", "paused")
    assert status_of(controller, "door").condition == "paused"
    controller.resume_camera("door")
    assert [item.label for item in watching.masks("door", lambda _: True).objects] == ["box"]
    wait_for(lambda: status_of(controller, "door").codec.startswith("h264"), LIMIT_S)
    assert status_of(controller, "door").num_decoded > 0 and "heim" not in str(controller.status())
    controller.remove_camera("door")
    watching.until(lambda m: watching.subscriber.info is not None and len(watching.subscriber.info.cameras) == 2)
    assert [camera.name for camera in controller.status().cameras] == ["left", "right"]


def nothing_tells_what_can_be_reached(watching: Watching, controller: Controller, closed_port: int) -> None:
    """A camera at a closed port, and one at a port that speaks another language, are offline in the same words."""
    told = set()
    with socket.create_server(("127.0.0.1", 0)) as other:
        for name, port in (("closed", closed_port), ("open", other.getsockname()[1])):
            controller.add_camera(name, f"rtsp://127.0.0.1:{port}/x")
        accepted, _ = other.accept()
        accepted.close()
        for name in ("closed", "open"):
            wait_for(lambda name=name: status_of(controller, name).reason not in ("", "opening"), LIMIT_S)
            told.add(status_of(controller, name).reason)
            controller.remove_camera(name)
    assert told == {UNTOLD}


def status_of(controller: Controller, name: str) -> CameraStatus:
    return next(camera for camera in controller.status().cameras if camera.name == name)


def test_a_daemon_obeys_every_command_while_it_is_bombarded_and_other_masks_flow(
    running: DaemonProcess, tmp_path: Path, needs_apt: Callable[..., None], unused_tcp_port: int
) -> None:
    needs_apt(*APT_PACKAGES)
    write_clip(tmp_path / "door.mkv", DOOR, codec="ffv1", fps=4)
    watching = Watching(running.endpoint)
    with RtspServer(tmp_path / "door.mkv", loop=True, user="joe", password="ge/heim") as server, watching.subscriber:
        watching.masks("right", lambda message: bool(message.objects))
        endpoint = control_endpoint(running.endpoint, watching.subscriber.info)
        with Controller(endpoint, timeout_s=LIMIT_S) as controller, bombarded(endpoint) as num_hostile:
            started = time.monotonic()
            objects_are_commanded(watching, controller)
            cameras_are_commanded(watching, controller, server.url)
            nothing_tells_what_can_be_reached(watching, controller, unused_tcp_port)
            counts = controller.status().num_commands
            took_s = time.monotonic() - started
    right_s = [at for at in watching.arrivals_s["right"] if at >= started]
    assert num_hostile[0] > 100 and counts["malformed"] > 20 and counts["ok"] >= 12
    assert len(right_s) > 1.0 * took_s and max(np.diff(right_s)) < 10, (took_s, np.diff(right_s))
    assert len(watching.requests) == len(set(watching.requests)), "each command shows first in one message"
    assert running.end()[0] == 0
    log = running.log.read_text()
    assert "heim" not in log and "Traceback" not in log, log
