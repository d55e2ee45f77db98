"""stream.health over real sockets: right answers, and a scrape that always gets through."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.health import HealthServer, server
from stream.health.answers import Answers, why_not_ready
from stream.metrics import Metrics
from stream.outlet import BindError
from stream.status import CameraStatus, Status

READY = Status(model="nano", device="cpu", is_live=True, is_ready=True, cameras=(CameraStatus(name="a", source="x"),))


class Served:
    """A server whose status, and what hangs, may be changed."""

    def __init__(self, *, names_what_hangs: bool = True) -> None:
        self.status = READY
        self.hanging: tuple[str, ...] = ()
        self.server = HealthServer(
            "127.0.0.1:0",
            status=lambda: self.status,
            metrics=Metrics(lambda: self.status),
            hanging=(lambda: self.hanging) if names_what_hangs else None,
        )

    def change(self, **changes: Any) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
        host, _, port = self.server.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            assert response.getheader("Server") is None and response.getheader("Connection") == "close"
            return response.status, response.read().decode()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        host, _, port = self.server.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def say(self, request: bytes) -> bytes:
        """What is answered to these bytes; "" when the connection just ends."""
        with self.connect() as client:
            client.sendall(request)
            return everything(client)


def everything(client: socket.socket) -> bytes:
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionResetError:
        return found
    return found


@contextmanager
def serving(served: Served | None = None) -> Iterator[Served]:
    served = served or Served()
    served.server.start()
    try:
        served.server.wait_ready()
        yield served
        assert served.server.is_alive() and served.server.error is None
    finally:
        served.server.stop()
        served.server.join(10)
    assert not served.server.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def test_live_names_what_hangs(served: Served) -> None:
    assert served.ask("/live") == (200, "live\n")
    served.hanging = ("gpu", "cam:door")
    assert served.ask("/live") == (503, "hanging: gpu, cam:door\n")


def test_live_without_names_tells_what_the_status_says() -> None:
    served = Served(names_what_hangs=False)
    with serving(served):
        assert served.ask("/live") == (200, "live\n")
        served.change(is_live=False)
        assert served.ask("/live") == (503, "hanging: the daemon\n")


def test_ready_says_why_not(served: Served) -> None:
    assert served.ask("/ready") == (200, "ready\n")
    served.change(problem="daemon.toml: fps = 'x':\nexpected a number")
    assert served.ask("/ready") == (200, "ready; problem: daemon.toml: fps = 'x': expected a number\n")
    served.change(is_ready=False, problem="", cameras=(CameraStatus(name="a", source="x", reason="no route"),))
    assert served.ask("/ready") == (503, "not ready: a is offline (no route)\n")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": ""}, "the model is not loaded"),
        ({"is_live": False, "cameras": ()}, "a thread hangs, see /live"),
        ({"cameras": ()}, "the model is on cpu, which is not where it should be"),
        ({"cameras": (CameraStatus(name="a", source="x", condition="lost"),)}, "the model is on cpu"),
        ({"cameras": (CameraStatus(name="a", source="x", condition="paused"),)}, "a is paused (no reason known)"),
    ],
)
def test_there_is_always_a_reason_not_to_be_ready(changes: dict[str, Any], reason: str) -> None:
    [told] = why_not_ready(msgspec.structs.replace(READY, is_ready=False, **changes))
    assert told.startswith(reason)


def test_status_is_the_whole_status_as_json(served: Served) -> None:
    code, body = served.ask("/status")
    assert code == 200 and msgspec.json.decode(body, type=Status) == READY
    assert json.loads(body)["cameras"][0]["name"] == "a"


def test_metrics_are_told_in_the_asked_format(served: Served) -> None:
    code, body = served.ask("/metrics?ignored=1")
    assert code == 200 and "sam2_stream_ready 1.0\n" in body and "# EOF" not in body
    answer = served.say(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nACCEPT: application/openmetrics-text; version=1.0.0\r\n\r\n"
    )
    assert b"Content-Type: application/openmetrics-text" in answer and answer.endswith(b"# EOF\n")


def test_head_is_get_without_the_body(served: Served) -> None:
    for path in ("/live", "/ready", "/status"):
        get, head = (served.say(f"{method} {path} HTTP/1.0\r\n\r\n".encode()) for method in ("GET", "HEAD"))
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"\r\n\r\n")
        length = len(get.partition(b"\r\n\r\n")[2])
        assert length > 0 and f"Content-Length: {length}\r\n".encode() in head


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /livex HTTP/1.1\r\n\r\n", 404),
        (b"GET /../live HTTP/1.1\r\n\r\n", 404),
        (b"POST /live HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /status HTTP/1.1\n\n", 405),
        (b"GET /live HTTP/2.0\r\n\r\n", 505),
        (b"get /live HTTP/1.1\r\n\r\n", 400),
        (b"GET live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n\xff", 400),
        (b"GET /li\x00ve HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 3000, 414),
        (b"GET /live HTTP/1.1\r\n" + b"X: y\r\n" * 2000, 431),
        (b"GET /live HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431),
    ],
)
def test_a_request_that_is_none_gets_one_line(served: Served, request_bytes: bytes, code: int) -> None:
    answer = served.say(request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {code} ".encode()) and body.count(b"\n") == 1 and b"expected" in body
    assert (b"Allow: GET, HEAD" in head) == (code == 405)
    assert served.ask("/live")[0] == 200


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, path, rest: f"{method} {path} HTTP/1.1{rest}".encode("utf-8", "replace"),
            st.sampled_from(["GET", "HEAD", "POST", "get", ""]),
            st.one_of(st.sampled_from(["/live", "/metrics", "/status?x=1"]), st.text(max_size=20)),
            st.text(alphabet="\r\n :Aacept/\x00\u2028é", max_size=40),
        ),
    ),
    st.sampled_from([b"", b"\r\n\r\n", b"\n\n", b"x" * 9000]),
)
def test_whatever_comes_is_answered_in_one_piece_or_waited_for(said: bytes, end: bytes) -> None:
    answer = Answers(lambda: READY, Metrics(lambda: READY), lambda: ()).answer(said + end)
    if answer is None:
        assert b"\n\n" not in said + end and b"\r\n\r\n" not in said + end and len(said + end) <= 8192
        return
    head, separator, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (200|400|404|405|414|431|505) [A-Za-z ]+\r\n", head)
    length = re.search(rb"Content-Length: (\d+)", head)
    assert found is not None and separator and length is not None
    assert len(body) == (
        0 if said.startswith(b"HEAD ") and found[1] != b"414" and found[1] != b"431" else int(length[1])
    )


def test_a_status_that_fails_ends_the_thread_with_its_error() -> None:
    def fails() -> Status:
        raise RuntimeError("no status")

    failing = HealthServer("127.0.0.1:0", status=fails, metrics=Metrics(fails))
    failing.start()
    failing.wait_ready()
    connection = http.client.HTTPConnection(failing.address, timeout=30)
    connection.request("GET", "/status")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.getresponse()
    connection.close()
    failing.join(30)
    assert not failing.is_alive() and isinstance(failing.error, RuntimeError)


def test_a_body_that_nobody_asked_for_does_not_hide_the_answer(served: Served) -> None:
    assert served.ask("/status", "POST", b"x" * 500_000) == (405, "expected GET or HEAD\n")


def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    with served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
        assert everything(client).endswith(b"live\n")


def test_a_hundred_slow_clients_do_not_stop_a_scrape(served: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(100)]
        for index, client in enumerate(clients):
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-" if index % 2 else b"G")
        for _ in range(3):
            assert served.ask("/metrics")[0] == 200
        assert served.server.num_lost >= 100 - server.MAX_CONNECTIONS


def test_clients_that_do_not_read_their_answer_do_not_stop_a_scrape(served: Served) -> None:
    served.change(cameras=tuple(CameraStatus(name=f"camera{n}", source="x" * 1000) for n in range(1000)))
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, _, port = served.server.address.rpartition(":")
            client.connect((host, int(port)))
            client.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        code, body = served.ask("/status")
        assert code == 200 and len(json.loads(body)["cameras"]) == 1000


def test_a_client_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_LIMIT_S", 0.2)
    with serving() as served, served.connect() as client:
        client.sendall(b"GET /live HTTP/1.1\r\n")
        assert everything(client) == b""
        assert served.server.num_lost == 1


def test_a_client_that_never_stops_sending_is_let_go(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /live HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 60
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < deadline:
                client.sendall(b"x" * 65536)


def test_many_scrapes_at_once_all_get_their_answer(served: Served) -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(served.ask("/metrics")[0])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 20 and served.server.num_answered == 20 and served.server.num_lost == 0


def test_no_file_is_left_open_and_the_loop_moves_when_idle() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with serving() as served:
        num_loops = served.server.num_loops
        for _ in range(3):
            served.ask("/live")
        clients = [served.connect() for _ in range(5)]
        deadline = time.monotonic() + 30
        while served.server.num_loops < num_loops + 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert served.server.num_loops >= num_loops + 12
    for client in clients:
        client.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_port_in_use_is_told_in_one_line(served: Served) -> None:
    second = HealthServer(served.server.address, status=lambda: READY, metrics=Metrics(lambda: READY))
    second.start()
    expected = f"cannot serve http on {served.server.address}: Address already in use; expected a free port"
    with pytest.raises(BindError, match=expected):
        second.wait_ready()
    second.join(10)
    assert not second.is_alive()


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.168.0.1:1", "example.org:80", "127.0.0.1", "127.0.0.1:x", ""])
def test_only_the_loopback_is_served(address: str) -> None:
    with pytest.raises(BindError, match="expected a loopback address and a port"):
        server.listen(address)


@pytest.mark.parametrize(("address", "host"), [("[::1]:0", "::1"), ("localhost:0", "127.0.0.1")])
def test_every_name_of_the_loopback_is_served(address: str, host: str) -> None:
    if not can_bind(host):
        pytest.skip(f"this machine has no {host}")
    with server.listen(address) as listener:
        assert listener.getsockname()[0] == host


def can_bind(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
