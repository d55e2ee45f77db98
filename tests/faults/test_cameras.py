"""Cameras that fail: each test is a row of the fault table. A healthy camera beside them notices nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from faults import scene
from faults.camera import CameraServer
from faults.conftest import Record, World
from faults.lab import Lab
from faults.record import Row
from faults.relay import Relay
from stream.controller import Controller

CAMERA = "faulty"
PASSWORD = "p/w?#@%:d"
IN_URL = "p%2Fw%3F%23%40%25%3Ad"


@pytest.fixture
def camera(lab: Lab, world: World) -> Iterator[CameraServer]:
    """A camera of its own, not yet the daemon's."""
    with world.cameras({"/cam": {"offset": 1000}}) as server:
        yield server
        lab.drop(CAMERA)


@pytest.fixture
def relay(camera: CameraServer) -> Iterator[Relay]:
    with Relay(camera.port) as relay:
        yield relay


def watch(lab: Lab, url: str, **settings: Any) -> float:
    """Give the camera to the daemon; the moment from which on it delivers."""
    before_s = time.monotonic()
    lab.put(CAMERA, url, offset=1000, **{"stall_s": 1.0, **settings})
    return lab.witness.next(CAMERA, before_s, num=10)[0].masks.arrival_ns / 1e9


def recovery(lab: Lab, since_s: float, *, num: int = 10) -> float:
    """Seconds until the first picture that arrived after that moment was published; some more are awaited."""
    return lab.witness.next(CAMERA, since_s, num=num)[0].received_s - since_s


def epochs(lab: Lab, since_s: float) -> set[int]:
    return {item.masks.epoch for item in lab.witness.seen(CAMERA, since_s)}


def conditions(lab: Lab, since_s: float) -> set[str]:
    return {str(state.condition) for when_s, state in lab.witness.states[CAMERA] if when_s >= since_s}


def test_a_camera_that_loses_its_power_is_found_again(lab: Lab, camera: CameraServer, record: Record) -> None:
    start_s = watch(lab, camera.url("/cam"))
    camera.kill()
    lab.witness.wait_state(CAMERA, "offline", since_s=start_s)
    camera.start()
    back_s = time.monotonic()
    recovered_s = recovery(lab, back_s)
    assert len(epochs(lab, start_s)) == 1
    lab.check(CAMERA, start_s)
    promise = "found again at the next try (1 s at first), memory kept"
    row = Row("RTSP server killed and restarted", promise, recovered_s, lab.num_lost(CAMERA, back_s))
    record(row, lab.check_others(start_s))


def test_a_half_open_connection_is_given_up(lab: Lab, camera: CameraServer, relay: Relay, record: Record) -> None:
    start_s = watch(lab, relay.url("/cam"))
    num_before = len(relay.accepted_s)
    relay.hold()
    held_s = time.monotonic()
    recovered_s = recovery(lab, held_s + 0.3) + 0.3
    state = lab.witness.wait_state(CAMERA, "offline", since_s=held_s)
    assert len(relay.accepted_s) > num_before and len(epochs(lab, start_s)) == 1
    said = re.search(r"no answer within (\S+) s$", state.reason)
    assert said is not None and float(said[1]) < 1.5, f"{state.reason}: the silence itself must not raise the limit"
    lab.check(CAMERA, start_s)
    promise = "silence for stall_s (here 1 s) opens the camera again, memory kept"
    row = Row("half-open TCP: nothing comes, nothing closes", promise, recovered_s, lab.num_lost(CAMERA, held_s + 0.3))
    record(row, lab.check_others(start_s))


def test_a_frozen_picture_is_said(lab: Lab, camera: CameraServer, record: Record) -> None:
    camera.kill()
    camera.cameras["/cam"] |= {"codec": "mjpeg"}  # the same picture in the same bytes
    camera.start()
    start_s = watch(lab, camera.url("/cam"), freeze_s=1.5)
    camera.tell("/cam", frozen=True)
    frozen_s = time.monotonic()
    lab.witness.wait_state(CAMERA, "frozen", since_s=frozen_s)
    noticed_s = time.monotonic() - frozen_s
    assert noticed_s > 1.0
    frozen = max(item.number or 0 for item in lab.witness.seen(CAMERA, start_s))
    camera.tell("/cam", frozen=False)
    thawed_s = time.monotonic()
    lab.witness.wait_state(CAMERA, "online", since_s=thawed_s)
    recovered_s = time.monotonic() - thawed_s
    fresh = [item for item in lab.witness.next(CAMERA, thawed_s, num=12) if (item.number or 0) > frozen]
    lab.check(CAMERA, start_s, is_frozen=True)
    lab.check(CAMERA, fresh[0].masks.arrival_ns / 1e9)
    promise = f"state frozen after freeze_s (here 1.5 s; {noticed_s:.1f} s), online again when it moves"
    record(Row("picture frozen, connection alive", promise, recovered_s, 0), lab.check_others(start_s))


def test_another_resolution_keeps_the_memory(lab: Lab, camera: CameraServer, record: Record) -> None:
    start_s = watch(lab, camera.url("/cam"))
    camera.tell("/cam", size=[256, 192])
    changed_s = time.monotonic()

    def small() -> list[float]:
        return [item.received_s for item in lab.witness.seen(CAMERA, changed_s) if item.masks.width == 256]

    lab.witness.wait(lambda: len(small()) >= 10, "pictures of the new size")
    recovered_s = small()[0] - changed_s
    assert len(epochs(lab, start_s)) == 1 and "offline" not in conditions(lab, start_s)
    lab.check(CAMERA, start_s)
    promise = "masks of the new size, memory kept (rescaled), nothing opened again"
    lost = num_missing(lab, start_s)
    record(Row("resolution changes in the stream", promise, recovered_s, lost), lab.check_others(start_s))


def test_another_codec_is_opened(lab: Lab, camera: CameraServer, record: Record) -> None:
    start_s = watch(lab, camera.url("/cam"))
    recovered_s, lost = 0.0, 0
    for codec, fps in (("h265", 5), ("mjpeg", 10)):
        camera.kill()
        camera.cameras["/cam"] |= {"codec": codec, "fps": fps}
        camera.start()
        back_s = time.monotonic()
        recovered_s = max(recovered_s, recovery(lab, back_s))
        lost = max(lost, lab.num_lost(CAMERA, back_s, step=10 // fps))
    assert len(epochs(lab, start_s)) == 1
    lab.check(CAMERA, start_s)
    promise = "found again at the next try, memory kept"
    record(Row("codec changes: H.264, H.265, MJPEG", promise, recovered_s, lost), lab.check_others(start_s))


def test_another_frame_rate_is_no_stall(lab: Lab, camera: CameraServer, record: Record) -> None:
    start_s = watch(lab, camera.url("/cam"))
    camera.tell("/cam", fps=2)
    slow_s = time.monotonic()
    lab.witness.next(CAMERA, slow_s, num=5)
    camera.tell("/cam", fps=10)
    changed_s = time.monotonic()
    recovered_s = recovery(lab, changed_s)
    assert "offline" not in conditions(lab, start_s) and len(epochs(lab, start_s)) == 1
    lab.check(CAMERA, start_s)
    promise = "no stall is seen, nothing opened again"
    record(Row("frame rate changes: 10, 2, 10 a second", promise, recovered_s, 0), lab.check_others(start_s))


def test_a_wrong_password_is_said_and_not_hammered(
    lab: Lab, camera: CameraServer, relay: Relay, record: Record
) -> None:
    camera.kill()
    camera.login = ("viewer", PASSWORD)
    camera.start()
    start_s = time.monotonic()
    lab.put(CAMERA, relay.url("/cam").replace("rtsp://", "rtsp://viewer:wrong@"), offset=1000)
    state = lab.witness.wait_state(CAMERA, "offline", since_s=start_s)
    lab.witness.wait_refused(CAMERA)
    num_tries = len(relay.accepted_s)
    time.sleep(2.5)
    assert len(relay.accepted_s) == num_tries, "a wrong password is not tried again every second"
    right_s = time.monotonic()
    lab.put(CAMERA, relay.url("/cam").replace("rtsp://", f"rtsp://viewer:{IN_URL}@"), offset=1000)
    recovered_s = recovery(lab, right_s)
    lab.check(CAMERA, right_s)
    said = lab.log.read_text(encoding="utf-8") + str(lab.witness.states[CAMERA])
    assert not [secret for secret in (PASSWORD, IN_URL, "viewer:", "wrong@") if secret in said], state
    promise = "said with its reason, tried again each minute only; the right one in the file (HUP) works at once"
    record(Row("wrong password, then the right one", promise, recovered_s), lab.check_others(start_s))


def test_pictures_that_travel_out_of_order_come_in_order(lab: Lab, camera: CameraServer, record: Record) -> None:
    camera.kill()
    camera.cameras["/cam"] |= {"codec": "h264-b"}
    camera.start()
    start_s = watch(lab, camera.url("/cam"))
    recovery(lab, start_s, num=30)
    lab.check(CAMERA, start_s)
    lost = num_missing(lab, start_s)
    promise = "pictures in order, each with its own masks"
    record(Row("B-frames", promise, None, lost), lab.check_others(start_s))


def test_time_stamps_that_jump_lose_nothing(lab: Lab, camera: CameraServer, relay: Relay, record: Record) -> None:
    start_s = watch(lab, relay.url("/cam"))
    recovered_s = 0.0
    for jump_s in (3600.0, -7200.0):
        relay.set(jump_s=jump_s)
        recovered_s = max(recovered_s, recovery(lab, time.monotonic()))
    assert "offline" not in conditions(lab, start_s) and len(epochs(lab, start_s)) == 1
    lab.check(CAMERA, start_s)
    lost = num_missing(lab, start_s)
    row = Row("time stamps jump: an hour on, two hours back", "nothing opened again, nothing lost", recovered_s, lost)
    record(row, lab.check_others(start_s))


def test_one_camera_becomes_eight(lab: Lab, world: World, record: Record) -> None:
    offsets = {f"more{index}": 4000 + 1000 * index for index in range(7)}
    by_file, by_command = list(offsets)[:4], list(offsets)[4:]
    with world.cameras({f"/{name}": {"offset": offset, "fps": 2} for name, offset in offsets.items()}) as server:
        start_s = time.monotonic()
        for name in by_file:
            lab.describe(name, server.url(f"/{name}"), offset=offsets[name])
        lab.reload()
        with Controller(lab.control_endpoint, timeout_s=20) as controller:
            for name in by_command:
                lab.offsets[name] = offsets[name]
                controller.add_camera(name, server.url(f"/{name}"))
            for name in by_command:
                lab.witness.next(name, start_s, limit_s=60)
                controller.add(name, object_id=2, points=[scene.CLICKS[2]])
            arrivals_s = [lab.witness.next(name, start_s, limit_s=60)[0].received_s for name in offsets]
            recovered_s = max(arrivals_s) - start_s
            for name in offsets:
                lab.witness.next(name, start_s, num=8, limit_s=60)
                lab.check(name, lab.witness.first_with_objects_s(name, start_s))
            others = lab.check_others(start_s)
            for name in by_command:
                controller.remove_camera(name)
        lab.drop(*by_file)
        lab.witness.wait(lambda: not set(offsets) & set(lab.witness.cameras), "the cameras are gone")
    promise = "four by the file (HUP), three by command, all with masks; removed again the same ways"
    record(Row("1 camera becomes 8", promise, recovered_s), others)


def num_missing(lab: Lab, since_s: float) -> int:
    """Pictures without masks, by the numbers of those with: the worker may leave some out, a fault must not."""
    seen = lab.witness.seen(CAMERA, since_s)
    numbers = [item.number for item in seen if item.number is not None]
    return numbers[-1] - numbers[0] + 1 - len(numbers)
