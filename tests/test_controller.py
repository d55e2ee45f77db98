"""Controllers: every command as it was meant, no reply taken for another's, no call without an end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from control_rig import RUN, controlling
from deliveries import SMALL, FakeDelivery, wait_for

from stream import command, wire
from stream.command import Reply, Request, Seen, SentMask
from stream.controller import AsyncController, CommandRefused, Controller, control_endpoint

SEEN = Seen(epoch=2, seq=7, width=64, height=48, run=RUN)
MASK = np.eye(48, 64, dtype=bool)


def masks_message() -> wire.MasksMessage:
    stamp = FakeDelivery("cam1", 7, epoch=2).stamp
    fields = wire.picture_fields(stamp, SMALL, inferred_ns=stamp.decoded_ns)
    return wire.MasksMessage(run=RUN, serial=1, num_dropped=0, model="", backend="", objects=(), **fields)


CALLS: dict[str, tuple[Callable[[Controller], Reply], Request]] = {
    "add points": (
        lambda c: c.add("cam1", points=[(1, 2), (3.5, 4, 0)], label="cup", seen=SEEN),
        command.Add(camera="cam1", points=((1.0, 2.0, 1), (3.5, 4.0, 0)), label="cup", seen=SEEN),
    ),
    "add box": (
        lambda c: c.add("cam1", box=(1, 2, 3, 4), object_id=5),
        command.Add(camera="cam1", box=(1.0, 2.0, 3.0, 4.0), object_id=5),
    ),
    "add mask": (lambda c: c.add("cam1", mask=MASK), command.Add(camera="cam1", mask=SentMask.of(MASK))),
    "numbers of numpy": (
        lambda c: c.add("cam1", points=np.array([[1, 2]]), object_id=np.int64(3)),
        command.Add(camera="cam1", points=((1.0, 2.0, 1),), object_id=3),
    ),
    "refine": (
        lambda c: c.refine("cam1", 3, points=[(1, 2, 0)], seen=SEEN),
        command.Refine(camera="cam1", object_id=3, points=((1.0, 2.0, 0),), seen=SEEN),
    ),
    "remove": (lambda c: c.remove("cam1", 3), command.Remove(camera="cam1", object_id=3)),
    "rename": (
        lambda c: c.rename("cam1", 3, new_id=4, label="pan"),
        command.Rename(camera="cam1", object_id=3, new_id=4, label="pan"),
    ),
    "reset": (lambda c: c.reset("cam1"), command.Reset(camera="cam1")),
    "undo": (lambda c: c.undo("cam1"), command.Undo(camera="cam1")),
    "add camera": (
        lambda c: c.add_camera("new", "rtsp://h/1", rtsp_transport="udp", max_fps=5),
        command.CameraAdd(camera="new", source="rtsp://h/1", rtsp_transport="udp", max_fps=5),
    ),
    "remove camera": (lambda c: c.remove_camera("cam1"), command.CameraRemove(camera="cam1")),
    "pause camera": (lambda c: c.pause_camera("cam1"), command.CameraPause(camera="cam1")),
    "resume camera": (lambda c: c.resume_camera("cam1"), command.CameraResume(camera="cam1")),
}


def without_id(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in type(request).__struct_fields__ if name != "id"}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
def test_a_call_is_the_request_that_was_meant(call: Callable[[Controller], Reply], expected: Request) -> None:
    with controlling() as rig, Controller(rig.endpoint) as controller:
        reply = call(controller)
        (taken,) = rig.obeying.taken
        assert type(taken) is type(expected) and without_id(taken) == without_id(expected)
        assert reply.ok and reply.id == taken.id and len(taken.id) <= 64


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
def test_the_async_call_is_the_same_request(call: Callable[..., Reply], expected: Request) -> None:
    async def main(endpoint: str) -> Reply:
        async with AsyncController(endpoint) as controller:
            return await call(controller)  # type: ignore[misc]

    with controlling() as rig:
        assert asyncio.run(main(rig.endpoint)).ok
        assert without_id(rig.obeying.taken[0]) == without_id(expected)


def test_the_message_that_was_seen_names_its_picture() -> None:
    message = masks_message()
    with controlling() as rig, Controller(rig.endpoint) as controller:
        controller.add("cam1", points=[(1, 2)], seen=message)
        seen = rig.obeying.taken[0].seen  # type: ignore[attr-defined]
    assert seen == Seen(epoch=2, seq=7, width=message.width, height=message.height, run=RUN)


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ({}, "no points, box or mask"),
        ({"points": [(1,)]}, "expected \\(x, y\\)"),
        ({"points": [(1, 2, 2)]}, "expected label 1"),
        ({"points": [(1, 2, 0)]}, "one with label 1"),
        ({"box": (3, 1, 2, 4)}, "x0 < x1"),
        ({"mask": np.ones((2, 2))}, "expected bool"),
        ({"mask": MASK, "points": [(1, 2)]}, "one or the other"),
    ],
)
def test_marks_that_cannot_be_are_refused_before_anything_is_sent(marks: dict[str, object], text: str) -> None:
    with controlling() as rig, Controller(rig.endpoint) as controller:
        with pytest.raises(ValueError, match=text):
            controller.add("cam1", **marks)  # type: ignore[arg-type]
        assert controller.ping().ok and not rig.obeying.taken


def test_a_refusal_is_an_exception_with_its_code_and_text() -> None:
    with controlling() as rig, Controller(rig.endpoint) as controller:
        with pytest.raises(CommandRefused, match="camera cam9: expected one of: cam1, cam2") as caught:
            controller.reset("cam9")
        assert caught.value.code == "unknown" and caught.value.reply.run == RUN


def test_a_late_reply_is_never_taken_for_another_calls() -> None:
    waiting: list[object] = []
    with controlling() as rig, Controller(rig.endpoint, timeout_s=0.2) as controller:
        rig.obeying.answer = waiting.append
        with pytest.raises(TimeoutError, match=rf"no answer from {rig.endpoint} for 0.2 s"):
            controller.undo("cam1")
        controller.timeout_s = 10.0
        answer_both = threading.Timer(0.1, lambda: [item.answer(Reply(note=item.request.id)) for item in waiting])  # type: ignore[attr-defined]
        answer_both.start()
        reply = controller.reset("cam1")
        assert reply.note == reply.id == waiting[1].request.id  # type: ignore[attr-defined]
        answer_both.join(5)


def test_a_command_that_timed_out_is_not_sent_to_a_daemon_that_starts_later(unused_tcp_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{unused_tcp_port}"
    with Controller(endpoint, timeout_s=0.3) as controller:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="expected a daemon that takes commands there"):
            controller.remove("cam1", 1)
        assert 0.25 < time.monotonic() - started < 5
        with controlling(endpoint) as rig:
            controller.timeout_s = 20.0
            assert controller.ping().ok and not rig.obeying.taken


def test_a_restarted_daemon_is_found_again() -> None:
    with controlling() as rig:
        endpoint = rig.endpoint
        controller = Controller(endpoint, timeout_s=20.0)
        assert controller.ping().ok
    with controller, controlling(endpoint) as rig:
        assert controller.reset("cam1").ok and len(rig.obeying.taken) == 1


@pytest.mark.parametrize("endpoint", ["", "5561", "tcp://", "http://127.0.0.1:80", "tcp://127.0.0.1:port", "ipc://"])
def test_an_endpoint_of_another_kind_is_refused_by_name(endpoint: str) -> None:
    for kind in (Controller, AsyncController):
        with pytest.raises(ValueError, match="expected tcp://HOST:PORT or ipc://PATH"):
            kind(endpoint)


def test_a_mask_too_large_to_send_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).random((3000, 4000)) > 0.5
    with controlling() as rig, Controller(rig.endpoint) as controller:
        with pytest.raises(ValueError, match="expected at most"):
            controller.add("cam1", mask=noise)
        assert controller.ping().ok


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_many_calls_at_a_time_each_get_their_own_answer_and_the_loop_goes_on() -> None:
    async def main(endpoint: str) -> tuple[list[Reply], int]:
        num_ticks, finished = 0, asyncio.Event()

        async def tick() -> None:
            nonlocal num_ticks
            while not finished.is_set():
                await asyncio.sleep(0.005)
                num_ticks += 1

        async with AsyncController(endpoint, timeout_s=20) as controller:
            ticking = asyncio.create_task(tick())
            replies = await asyncio.gather(*(controller.remove("cam1", number) for number in range(12)))
            finished.set()
            await ticking
        return list(replies), num_ticks

    waiting: list[object] = []
    with controlling() as rig:
        rig.obeying.answer = waiting.append

        def answer_backwards() -> None:
            wait_for(lambda: len(waiting) == 12)
            for item in reversed(waiting):
                item.answer(Reply(object_id=item.request.object_id))  # type: ignore[attr-defined]

        answering = threading.Thread(target=answer_backwards)
        answering.start()
        replies, num_ticks = asyncio.run(main(rig.endpoint))
        answering.join(5)
    assert [reply.object_id for reply in replies] == list(range(12)) and num_ticks >= 1


def test_async_calls_time_out_one_by_one_and_may_be_cancelled() -> None:
    async def main(endpoint: str) -> None:
        async with AsyncController(endpoint, timeout_s=0.3) as controller:
            with pytest.raises(TimeoutError, match="no answer from"):
                await controller.undo("cam1")
            controller.timeout_s = 20.0
            calling = asyncio.create_task(controller._ask(command.Undo(camera="cam1")))
            await controller.ping()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert not controller._waiting
            with pytest.raises(CommandRefused):
                await controller.reset("cam9")
            assert [camera.name for camera in (await controller.status()).cameras] == ["cam1", "cam2"]

    with controlling() as rig:
        rig.obeying.answer = lambda command: None
        asyncio.run(main(rig.endpoint))


def test_one_async_controller_may_be_used_in_one_loop_after_another() -> None:
    with controlling() as rig:
        controller = AsyncController(rig.endpoint, timeout_s=20)
        for _ in range(3):
            assert asyncio.run(asyncio.wait_for(controller.ping(), 30)).ok
        controller.close()
        controller.close()


# --- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "told", "expected"),
    [
        ("tcp://127.0.0.1:5560", "tcp://127.0.0.1:5561", "tcp://127.0.0.1:5561"),
        ("tcp://robot.local:5560", "tcp://0.0.0.0:6000", "tcp://robot.local:6000"),
        ("tcp://10.0.0.7:5560", "tcp://*:5561", "tcp://10.0.0.7:5561"),
        ("tcp://[fe80::1]:5560", "tcp://[::]:5561", "tcp://[fe80::1]:5561"),
        ("tcp://10.0.0.7:5560", "tcp://[::]:5561", "tcp://10.0.0.7:5561"),
        ("ipc:///run/s.sock", "ipc:///run/s.sock-control", "ipc:///run/s.sock-control"),
        ("tcp://127.0.0.1:5560", "ipc:///run/c", "ipc:///run/c"),
        ("ipc:///run/s.sock", "tcp://127.0.0.1:5561", "tcp://127.0.0.1:5561"),
        ("ipc:///run/s.sock", "tcp://0.0.0.0:5561", "tcp://127.0.0.1:5561"),
    ],
)
def test_commands_go_to_the_host_that_publishes(endpoint: str, told: str, expected: str) -> None:
    assert control_endpoint(endpoint, wire.Info(control=told)) == expected


@pytest.mark.parametrize("info", [None, wire.Info(), wire.Info(control="")])
def test_a_daemon_without_control_is_said_to_be_one(info: wire.Info | None) -> None:
    with pytest.raises(ValueError, match="tcp://h:1 does not say where it takes commands"):
        control_endpoint("tcp://h:1", info)


def test_the_controller_loads_no_heavy_package() -> None:
    code = """
import sys, stream.controller
heavy = {"torch", "cv2", "av", "sam2", "prometheus_client", "engines", "stream.control"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_heavy_packages_it_commands() -> None:
    code = """
import sys
for name in ("torch", "cv2", "av", "sam2", "prometheus_client"):
    sys.modules[name] = None
import numpy as np
from stream.controller import Controller
with Controller(sys.argv[1], timeout_s=30) as controller:
    assert controller.add("cam1", mask=np.eye(9, dtype=bool)).object_id == 3
    print(controller.status().cameras[0].name)
"""
    with controlling() as rig:
        line = [sys.executable, "-c", code, rig.endpoint]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "cam1"), done.stderr
