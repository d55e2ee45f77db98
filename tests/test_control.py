"""The control thread: every request gets its answer, nothing that comes over the wire ends or stops it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import msgspec
import pytest
import zmq
from control_rig import RUN, Rig, asked, controlling, is_silent, raw_client
from deliveries import wait_for

from stream import admission, command, control, outbox
from stream.command import Add, CameraAdd, CameraRemove, Ping, Remove, Reply, Reset, Seen, Undo
from stream.command_codec import decode_reply, encode_request
from stream.control import ControlThread
from stream.controller import CommandRefused, Controller
from stream.doors import BindError

PING = encode_request(Ping(id="p"))


def reset(number: int) -> bytes:
    return encode_request(Reset(id=f"r{number}", camera="cam1"))


def replies_of(socket: zmq.Socket[bytes], num: int) -> list[Reply]:
    return [decode_reply(socket.recv()) for _ in range(num)]


# --- what is right ---------------------------------------------------------------------------------------------------


def test_the_loop_moves_four_times_a_second_though_nothing_comes() -> None:
    with controlling() as rig:
        before, started = rig.control.num_loops, time.monotonic()
        wait_for(lambda: rig.control.num_loops >= before + 8)
        assert time.monotonic() - started < 6


def test_a_command_is_obeyed_by_its_thread_and_answered_with_id_and_run() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        reply = asked(client, encode_request(Add(id="a1", camera="cam1", points=((1.0, 2.0, 1),))))
        assert (reply.id, reply.ok, reply.object_id, reply.run) == ("a1", True, 3, RUN)
        assert asked(client, encode_request(CameraRemove(id="c1", camera="cam2"))).id == "c1"
        assert [type(request) for request in rig.obeying.taken] == [Add, CameraRemove]
        assert rig.control.num_commands["ok"] == 2


def test_ping_and_status_need_no_other_thread() -> None:
    with controlling() as rig, Controller(rig.endpoint) as controller:
        rig.obeying.gate.clear()
        assert controller.ping().ok
        assert [camera.name for camera in controller.status().cameras] == ["cam1", "cam2"]
        assert not rig.obeying.taken


def test_a_req_socket_is_answered_too() -> None:
    with controlling() as rig, raw_client(rig.endpoint, zmq.REQ) as client:
        for _ in range(3):
            client.send(PING)
            assert decode_reply(client.recv()).id == "p"


def test_one_thread_serves_several_endpoints(tmp_path: Path) -> None:
    with controlling("tcp://127.0.0.1:*", f"ipc://{tmp_path}/c.sock") as rig:
        for endpoint in rig.control.endpoints:
            with raw_client(endpoint) as client:
                assert asked(client, PING).ok
    assert not (tmp_path / "c.sock").exists()


def test_replies_find_their_client_in_whatever_order_they_are_given() -> None:
    waiting: list[object] = []
    with controlling() as rig, raw_client(rig.endpoint) as one, raw_client(rig.endpoint) as two:
        rig.obeying.answer = waiting.append
        one.send(encode_request(Undo(id="one", camera="cam1")))
        two.send(encode_request(Undo(id="two", camera="cam1")))
        wait_for(lambda: len(waiting) == 2)
        for item in reversed(waiting):
            item.answer(Reply(note=item.request.id))  # type: ignore[attr-defined]
        for client, name in ((two, "two"), (one, "one")):
            (reply,) = replies_of(client, 1)
            assert (reply.id, reply.note) == (name, name)
        assert is_silent(one) and is_silent(two)


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(rig: Rig, request: command.Request) -> Reply:
    with raw_client(rig.endpoint) as client:
        reply = asked(client, encode_request(request))
    assert not reply.ok and not rig.obeying.taken
    return reply


def test_an_unknown_camera_is_told_the_known_ones() -> None:
    with controlling() as rig:
        reply = refused(rig, Reset(camera="cam9"))
        assert reply.code == "unknown" and reply.error == "camera cam9: expected one of: cam1, cam2"
    with controlling(cameras=tuple(f"c{number:04}" for number in range(1000))) as rig:
        assert len(refused(rig, Reset(camera="cam9")).error) <= 300


def test_a_picture_of_an_earlier_run_is_stale() -> None:
    seen = Seen(epoch=0, seq=1, width=64, height=48, run=RUN - 1)
    with controlling() as rig:
        reply = refused(rig, Add(camera="cam1", points=((1.0, 2.0, 1),), seen=seen))
        assert reply.code == "stale" and str(RUN) in reply.error
        with raw_client(rig.endpoint) as client:
            now = msgspec.structs.replace(seen, run=RUN)
            assert asked(client, encode_request(Add(camera="cam1", points=((1.0, 2.0, 1),), seen=now))).ok


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd", "/etc/passwd", "0", "/dev/video0", "http://10.0.0.1/",
        "concat:rtsp://a|file:///etc/passwd", "testsrc://", "push://x?bind=tcp://0.0.0.0:1",
        "rtmp://h/x", "rtsp:/h/x", "file:rtsp://h", " rtsp://h", "://", "rtsp",
    ],
)  # fmt: skip
def test_a_camera_by_command_may_only_have_the_schemes_of_the_configuration(source: str) -> None:
    with controlling() as rig:
        reply = refused(rig, CameraAdd(camera="new", source=source))
        assert reply.code == "refused" and reply.error.endswith("expected rtsp://, rtsps://, https://")


@pytest.mark.parametrize("source", ["rtsp://u:p@h/1", "RTSPS://h/1", "https://h/a.m3u8"])
def test_a_camera_of_an_allowed_scheme_reaches_the_main_thread(source: str) -> None:
    with controlling() as rig, Controller(rig.endpoint) as controller:
        assert controller.add_camera("new", source, max_fps=5).ok
        assert rig.obeying.taken[0].source == source  # type: ignore[attr-defined]


def test_a_refused_source_shows_no_password_in_reply_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with controlling(schemes=("rtsps",)) as rig, Controller(rig.endpoint) as controller:
        for password in ("geheim", "ge/heim", "ge@heim", "ge?heim", "ge#heim", "ge:heim%"):
            with pytest.raises(CommandRefused) as caught:
                controller.add_camera("new", f"rtsp://joe:{password}@10.0.0.7:554/1")
            assert "heim" not in str(caught.value) and "joe" not in str(caught.value)
            assert controller.add_camera("new", f"rtsps://joe:{password}@10.0.0.7:554/1").ok
    assert "heim" not in caplog.text and "CameraAdd new" in caplog.text


def test_no_scheme_allowed_means_no_camera_by_command() -> None:
    with controlling(schemes=()) as rig:
        assert "no source at all" in refused(rig, CameraAdd(camera="new", source="rtsp://h/1")).error


HOSTILE = {
    "empty": (b"",), "two empty parts": (b"", b""), "a part too many": (b"", PING, b""), "two requests": (PING, PING),
    "a filled delimiter": (b"x", PING), "100 empty parts": (b"",) * 100, "3000 requests": (PING,) * 3000,
    "no msgpack": (b"\xff" * 70_000,), "nested": (b"\x91" * 200_000,), "a rest": (b"\x81\xa2id\xa1x" + b"\x00",),
    "an array": (msgspec.msgpack.encode([1, 2]),), "a megabyte": (b"\x00" * 1_000_000,),
    "a long id": (msgspec.msgpack.encode({"op": "ping", "id": "x" * 65}),),
}  # fmt: skip


@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_what_has_no_readable_id_is_dropped_and_counted(parts: tuple[bytes, ...]) -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        client.send_multipart(parts)
        wait_for(lambda: rig.control.num_commands["malformed"] == 1)
        assert is_silent(client, 50) and asked(client, PING).ok


def test_what_has_an_id_is_told_what_is_wrong_with_it() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        reply = asked(client, msgspec.msgpack.encode({"op": "ping", "id": "x", "version": 2}))
        assert (reply.id, reply.code, reply.error) == ("x", "refused", "version 2, expected 1")
        reply = asked(
            client, msgspec.msgpack.encode({"op": "add", "id": "y", "camera": "cam1", "points": [[1e9, 0, 1]]})
        )
        assert (reply.id, reply.code) == ("y", "refused") and "$.points[0][0]" in reply.error
        assert rig.control.num_commands["malformed"] == 2 and not rig.obeying.taken


def test_an_oversized_message_ends_its_connection_and_no_other() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as other, raw_client(rig.endpoint) as client:
        client.send(b"\xc4" * (command.MAX_REQUEST_BYTES + 1))
        assert is_silent(client) and asked(other, PING).ok
        assert asked(client, PING).ok  # ZeroMQ connected again
        assert sum(rig.control.num_commands.values()) == 2


# --- too much --------------------------------------------------------------------------------------------------------


def test_a_client_that_asks_too_often_is_limited_and_another_is_not() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as hasty, raw_client(rig.endpoint) as calm:
        started = time.monotonic()
        for _ in range(300):
            hasty.send(PING)
        codes = [reply.code for reply in replies_of(hasty, 300)]
        took_s = time.monotonic() - started
        num_served = codes.count("")
        assert 100 <= num_served <= 100 + 50 * took_s + 1 and num_served + codes.count("limited") == 300
        assert asked(calm, PING).ok
        deadline = time.monotonic() + 10
        while not asked(hasty, PING).ok:  # a token comes every 20 ms
            assert time.monotonic() < deadline


def test_the_seventeenth_unanswered_request_of_a_client_is_busy_and_a_full_inbox_too() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        rig.obeying.gate.clear()
        for number in range(17):
            client.send(reset(number))
        (reply,) = replies_of(client, 1)
        assert (reply.id, reply.code) == ("r16", "busy")
        others = [raw_client(rig.endpoint) for _ in range(4)]
        clients = [other.__enter__() for other in others]
        for other in clients[:3]:
            for number in range(16):
                other.send(reset(number))
        wait_for(lambda: len(rig.obeying.objects) == 64)
        reply = asked(clients[3], reset(0))
        assert reply.code == "busy" and "too many commands wait" in reply.error
        rig.obeying.gate.set()
        for socket in (client, *clients[:3]):
            assert all(reply.ok for reply in replies_of(socket, 16))
        assert len(rig.obeying.taken) == 64 and asked(client, reset(99)).ok
        for other in others:
            other.__exit__(None, None, None)


def test_what_nobody_takes_in_time_is_taken_back_and_never_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TAKE_LIMIT_NS", 200_000_000)
    with controlling() as rig, raw_client(rig.endpoint) as client:
        rig.obeying.gate.clear()
        reply = asked(client, reset(1))
        assert reply.code == "busy" and "was dropped" in reply.error
        rig.obeying.gate.set()
        assert asked(client, reset(2)).ok and [request.id for request in rig.obeying.taken] == ["r2"]


def test_what_was_taken_and_never_answered_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_LIMIT_NS", 200_000_000)
    waiting: list[object] = []
    with controlling() as rig, raw_client(rig.endpoint) as client:
        rig.obeying.answer = waiting.append
        reply = asked(client, reset(1))
        assert reply.code == "busy" and "it may have been obeyed" in reply.error
        waiting[0].answer(Reply())  # type: ignore[attr-defined]
        assert asked(client, PING).id == "p" and is_silent(client, 50)
        assert not rig.control._tickets


def test_the_answer_to_a_client_that_left_is_dropped_and_others_are_served() -> None:
    waiting: list[object] = []
    with controlling() as rig:
        rig.obeying.answer = waiting.append
        for number in range(20):
            with raw_client(rig.endpoint) as client:
                client.send(reset(number))
                wait_for(lambda number=number: len(waiting) == number + 1)
        for item in waiting:
            item.answer(Reply())  # type: ignore[attr-defined]
        wait_for(lambda: not rig.control._tickets)
        with raw_client(rig.endpoint) as client:
            assert asked(client, PING).ok


def test_a_client_that_never_reads_its_replies_holds_nobody_up() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as deaf, raw_client(rig.endpoint) as client:
        deaf.setsockopt(zmq.RCVHWM, 1)
        for _ in range(2000):
            deaf.send(encode_request(command.GetStatus(id="s")))
        for _ in range(20):
            assert asked(client, PING).ok


# --- the end ---------------------------------------------------------------------------------------------------------


def test_who_waits_at_the_end_is_told() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        rig.obeying.gate.clear()
        client.send(reset(1))
        wait_for(lambda: len(rig.obeying.objects) == 1)
        rig.control.stop()
        (reply,) = replies_of(client, 1)
        assert (reply.id, reply.code) == ("r1", "stopping")
        late = rig.obeying.objects.take()
        assert late is not None
        rig.control.join(10)
        late.answer(Reply())  # nobody is there any more: dropped


def test_an_endpoint_that_is_taken_is_a_bind_error() -> None:
    with controlling() as rig:
        second = ControlThread(rig.control.endpoints, rig.control._rooms)
        second.start()
        with pytest.raises(BindError, match="Address already in use"):
            second.wait_ready()
        second.join(10)
        assert not second.is_alive()


def test_a_control_thread_that_was_never_started_can_be_joined() -> None:
    with controlling() as rig:
        idle = ControlThread(("tcp://127.0.0.1:*",), rig.control._rooms)
        idle.stop()
        idle.join(1)


def test_what_was_not_obeyed_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(control, "REPORT_NS", 100_000_000)
    with controlling() as rig, raw_client(rig.endpoint) as client:
        for _ in range(50):
            client.send(b"\xc1")
        wait_for(lambda: sum(int(line.split()[3]) for line in caplog.messages if "malformed" in line) == 50)
    assert len(caplog.messages) < 10


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_the_table_of_clients_is_bounded_and_keeps_those_that_come() -> None:
    table = admission.Admission()
    for number in range(5000):
        assert table.admit(b"%d" % number, number) and table.admit(b"always", number) is (number < 100)
    assert len(table) == admission.MAX_CLIENTS


def test_a_bucket_fills_at_its_rate_and_never_beyond_its_size() -> None:
    table, second = admission.Admission(), 1_000_000_000
    assert [table.admit(b"a", 0) for _ in range(101)] == [True] * 100 + [False]
    assert [table.admit(b"a", second) for _ in range(51)] == [True] * 50 + [False]
    assert [table.admit(b"a", 10_000 * second) for _ in range(101)] == [True] * 100 + [False]


def test_all_clients_together_are_read_at_one_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_A_WINDOW", 1)  # a hundred messages a second
    with controlling() as rig, raw_client(rig.endpoint) as one, raw_client(rig.endpoint) as two:
        started = time.monotonic()
        for _ in range(30):
            one.send(PING)
            two.send(PING)
        assert all(reply.ok for reply in replies_of(one, 30) + replies_of(two, 30))
        assert time.monotonic() - started > 0.5


def test_a_window_is_full_after_so_many_messages_or_bytes_and_then_opens_again() -> None:
    pace = admission.Pace()
    for now_ns, num_messages, num_bytes in ((0, 64, 10), (admission.WINDOW_NS, 5, 1 << 20)):
        for _ in range(num_messages):
            assert pace.wait_ns(now_ns) == 0 or num_bytes == 1 << 20
            pace.note(num_bytes)
        assert pace.wait_ns(now_ns + 1) == admission.WINDOW_NS - 1
    assert pace.wait_ns(2 * admission.WINDOW_NS) == 0


def test_an_outbox_that_nobody_empties_loses_and_counts_but_never_grows_or_waits() -> None:
    box = outbox.Outbox()
    fileno = box.open()
    for number in range(outbox.CAPACITY + 10):
        box.put(number, Reply())
    assert box.num_lost == 10 and len(box.take()) == outbox.CAPACITY and box.take() == ()
    threads = [threading.Thread(target=box.put, args=(number, Reply())) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert fileno >= 0 and len(box.take()) == 8
    box.close()
    box.put(1, Reply())
    assert box.take() == () and box.num_lost == 11


def test_remove_is_obeyed_in_the_order_it_was_sent() -> None:
    with controlling() as rig, raw_client(rig.endpoint) as client:
        for number in range(16):
            client.send(encode_request(Remove(id=str(number), camera="cam1", object_id=number)))
        replies_of(client, 16)
        assert [request.object_id for request in rig.obeying.taken] == list(range(16))  # type: ignore[attr-defined]
