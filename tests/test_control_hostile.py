"""What a hostile client sends neither ends the control thread, nor reaches an inbox, nor makes the process grow."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import random
import socket
import struct
import threading
import time
import typing
from collections.abc import Iterator

import msgspec
import pytest
import zmq
from control_rig import Rig, controlling, raw_client
from deliveries import wait_for
from hostile import KEYS, ODD_VALUES, PING, VALID, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.command import AnyRequest, Request
from stream.command_codec import decode_reply, decode_request, encode_request
from stream.controller import Controller

odd = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats()
        | st.text(max_size=20)
        | st.binary(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    ),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with controlling(cameras=("cam1", "cam2")) as running:
        yield running


def lives(rig: Rig) -> bool:
    """Whether another client is answered, and everything that was obeyed so far is a valid request."""
    assert all(isinstance(request, Request) for request in rig.obeying.taken)
    assert all(decode_request(encode_request(request)) == request for request in rig.obeying.taken)
    rig.obeying.taken.clear()
    with Controller(rig.endpoint, timeout_s=20) as controller:
        return controller.ping().ok


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(VALID)), min_size=1, max_size=5))
def test_random_parts_leave_the_next_ping_answered(rig: Rig, parts: list[bytes]) -> None:
    with raw_client(rig.endpoint) as client:
        before = sum(rig.control.num_commands.values())
        client.send_multipart(parts)
        wait_for(lambda: sum(rig.control.num_commands.values()) > before)
        assert lives(rig)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    valid=st.sampled_from(VALID),
    keys=st.lists(st.text(max_size=10) | st.sampled_from(KEYS), min_size=1, max_size=3),
    values=st.lists(odd, min_size=3, max_size=3),
)
def test_a_request_with_odd_values_is_answered_or_dropped_and_never_obeyed_unless_valid(
    rig: Rig, valid: bytes, keys: list[str], values: list[object]
) -> None:
    body = msgspec.msgpack.decode(valid) | dict(zip(keys, values, strict=False))
    try:
        payload = msgspec.msgpack.encode(body)
    except (OverflowError, UnicodeEncodeError):
        return
    with raw_client(rig.endpoint) as client:
        client.send(payload)
        client.send(PING)
        replies = {reply.id: reply for reply in map(decode_reply, iter_until(client, "p"))}
    assert replies["p"].ok or body.get("id") == "p"
    assert isinstance(decode_if_valid(payload), typing.get_args(AnyRequest)) or not rig.obeying.taken
    rig.obeying.taken.clear()


def iter_until(client: zmq.Socket[bytes], request_id: str) -> list[bytes]:
    payloads = [client.recv()]
    while decode_reply(payloads[-1]).id != request_id:
        payloads.append(client.recv())
    return payloads


def decode_if_valid(payload: bytes) -> object:
    try:
        return decode_request(payload)
    except ValueError:
        return None


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def num_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def bombard(rig: Rig, num: int, draw: random.Random) -> None:
    """Mutated requests from a dozen clients, which come and go, until the control thread has seen them all."""
    per_client = num // 12
    for _ in range(12):
        with raw_client(rig.endpoint) as client:
            before = sum(rig.control.num_commands.values())
            for _ in range(per_client):
                client.send(mutated(draw.choice(VALID), draw))
            wait_for(lambda before=before: sum(rig.control.num_commands.values()) >= before + per_client, 60)


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads /proc")
def test_tens_of_thousands_of_hostile_messages_cost_no_memory_and_no_files() -> None:
    draw = random.Random(5)
    with controlling(cameras=("cam1",)) as rig:
        bombard(rig, 4000, draw)
        assert lives(rig)
        resident, files = resident_bytes(), num_files()
        bombard(rig, 30_000, draw)
        assert lives(rig)
        wait_for(lambda: num_files() <= files + 4)
        assert resident_bytes() < resident + (16 << 20)
        assert len(rig.control._tickets) <= 256 and rig.control.num_commands["malformed"] > 300


def test_masks_of_a_megabyte_are_refused_without_growth() -> None:
    body = {"op": "add", "id": "m", "camera": "cam1", "mask": {"width": 9, "height": 9, "data": b"\x00" * 1_000_000}}
    payload = msgspec.msgpack.encode(body)
    with controlling() as rig, raw_client(rig.endpoint) as client:

        def refuse(num: int) -> None:
            for _ in range(num):
                client.send(payload)
                assert decode_reply(client.recv()).code == "refused"

        refuse(20)
        resident = resident_bytes()
        refuse(60)
        assert resident_bytes() < resident + (32 << 20) and lives(rig)


def test_a_flood_leaves_the_process_its_time_and_other_clients_their_answers() -> None:
    """Twenty clients that send as fast as they can are read at a limited pace; the rest waits with the senders."""
    with controlling() as rig, contextlib.ExitStack() as stack, Controller(rig.endpoint, timeout_s=30) as controller:
        controller.ping()
        stopping = threading.Event()

        def flood() -> None:
            with raw_client(rig.endpoint) as client:
                for number in itertools.count():
                    if stopping.is_set():
                        return
                    with contextlib.suppress(zmq.Again):
                        client.send(b"\xc1" * (number % 500), zmq.DONTWAIT)

        threads = [threading.Thread(target=flood) for _ in range(4)]
        stack.callback(lambda: [thread.join(10) for thread in threads])
        stack.callback(stopping.set)
        for thread in threads:
            thread.start()
        started, before = time.monotonic(), sum(rig.control.num_commands.values())
        waits_s = []
        while time.monotonic() < started + 2:
            asked = time.monotonic()
            assert controller.ping().ok
            waits_s.append(time.monotonic() - asked)
            stopping.wait(0.05)
        rate = (sum(rig.control.num_commands.values()) - before) / (time.monotonic() - started)
    assert rate < 7000 and sorted(waits_s)[len(waits_s) // 2] < 1.0


@pytest.fixture
def idle_sockets() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for item in sockets:
        item.close()


def test_a_hundred_silent_tcp_clients_and_garbage_starve_nobody(idle_sockets: list[socket.socket]) -> None:
    draw = random.Random(7)
    with controlling() as rig:
        host, port = rig.endpoint.removeprefix("tcp://").split(":")
        files = num_files()
        for number in range(100):
            idle = socket.create_connection((host, int(port)), timeout=10)
            idle_sockets.append(idle)
            if number % 4 == 1:
                idle.sendall(draw.randbytes(200))
            if number % 4 == 2:
                idle.sendall(b"\xff" + struct.pack(">Q", 2**62) + b"\x7f\x03\x00NULL")  # a greeting that lies
            if number % 4 == 3:
                idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(20):
            assert lives(rig)
        wait_for(lambda: num_files() <= files + 104, 30)  # our ends alone: who shakes no hand in 3 s is put out
        assert lives(rig)


def test_clients_that_come_and_go_without_a_word_are_forgotten() -> None:
    with controlling() as rig:
        assert lives(rig)
        files = num_files()
        for _ in range(60):
            with raw_client(rig.endpoint) as client:
                client.send(PING)
                client.recv()
        wait_for(lambda: num_files() <= files + 4)
        assert lives(rig)
