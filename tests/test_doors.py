"""Who gets past the door: real sockets on every address of this machine, the right key in, everybody else out.

The guarded endpoints are bound to 0.0.0.0 and reached through 127.0.0.1: what counts is where a socket listens.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from control_rig import controlling
from deliveries import FakeDelivery, publishing, wait_for

from stream import client as client_module
from stream import wire
from stream.cli import main
from stream.client import MasksMessage, StateMessage, Subscriber
from stream.control_socket import ControlSocket
from stream.controller import Controller
from stream.doors import BindError, Doors
from stream.frame import CameraCondition, CameraState
from stream.keys import ClientKeys, KeyFolder, KeyRing
from stream.outlet import Outlet
from stream.publish import Publisher

CAMERA = "kitchen-of-a-secret-address"
INFO = wire.Info(model="nano", cameras=(wire.CameraInfo(name=CAMERA, width=64, height=48),))
EVERYWHERE = "tcp://0.0.0.0:*"


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    keys = KeyFolder(tmp_path / "keys")
    keys.new("alice", "view")
    keys.new("bob", "view")
    keys.new("carol", "control")
    return keys


@pytest.fixture
def strangers(tmp_path: Path, folder: KeyFolder) -> ClientKeys:
    """Keys of another house, with this daemon's public key: it answers them, and has to refuse."""
    other = KeyFolder(tmp_path / "other")
    stranger = ClientKeys.load(other.new("mallory", "control"))
    return ClientKeys(stranger.name, stranger.role, stranger.public, KeyRing.open(folder.path).public, stranger.secret)


def keys_of(folder: KeyFolder, name: str) -> ClientKeys:
    return ClientKeys.load(folder.path / f"{name}.key")


@contextlib.contextmanager
def daemon(folder: KeyFolder, *bind: str) -> Iterator[tuple[Publisher, str]]:
    """A publisher with one camera that is online, and where it can be reached with keys."""
    with publishing(*(bind or (EVERYWHERE,)), info=INFO, keys=KeyRing.open(folder.path)) as publisher:
        publisher.put_state(CameraState(CAMERA, 0, CameraCondition.ONLINE, "frames arrive", time.time_ns()))
        port = publisher.endpoints[-1].rpartition(":")[2]
        yield publisher, f"tcp://127.0.0.1:{port}"


def state_of(endpoint: str, keys: ClientKeys | None, *, timeout_s: float = 10.0) -> StateMessage:
    with Subscriber(endpoint, [CAMERA], keys=keys, timeout_s=timeout_s) as subscriber:
        return next(message for message in subscriber.messages() if isinstance(message, StateMessage))


# --- in and out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_the_right_key_gets_in_and_the_last_state_with_it(folder: KeyFolder, name: str) -> None:
    with daemon(folder) as (_, endpoint):
        assert state_of(endpoint, keys_of(folder, name)).reason == "frames arrive"


def test_everybody_else_stays_out_and_is_told_why(folder: KeyFolder, strangers: ClientKeys, tmp_path: Path) -> None:
    revoked = keys_of(folder, "bob")
    folder.revoke("bob")
    other_house = ClientKeys.load(tmp_path / "other" / "mallory.key")
    cases = [
        (strangers, "the daemon refuses the key mallory"),
        (revoked, r"the daemon refuses the key bob \(view\)"),
        (None, "does not talk to clients without a key; expected --key FILE"),
        (other_house, "not the one that the key mallory is for"),
    ]
    with daemon(folder) as (_, endpoint):
        for keys, why in cases:
            with pytest.raises(TimeoutError, match=why):
                state_of(endpoint, keys, timeout_s=1.0)
        assert state_of(endpoint, keys_of(folder, "alice")).reason == "frames arrive"


def test_a_plain_endpoint_beside_a_guarded_one_stays_plain(folder: KeyFolder, tmp_path: Path) -> None:
    with daemon(folder, f"ipc://{tmp_path}/s", "tcp://127.0.0.1:*", EVERYWHERE) as (publisher, endpoint):
        for plain in publisher.endpoints[:2]:
            assert state_of(plain, None).reason == "frames arrive"
        assert state_of(endpoint, keys_of(folder, "alice")).reason == "frames arrive"
        with pytest.raises(TimeoutError, match="takes no keys there"):
            state_of(publisher.endpoints[1], keys_of(folder, "alice"), timeout_s=1.0)


def test_only_a_control_key_commands(folder: KeyFolder, strangers: ClientKeys) -> None:
    saved = (folder.path / "clients.toml").read_text()
    with controlling(EVERYWHERE, keys=KeyRing.open(folder.path)) as rig:
        endpoint = rig.endpoint.replace("0.0.0.0", "127.0.0.1")
        viewing = r"refuses commands from the key alice \(view\); expected one with the role control"
        whys = (viewing, "refuses the key mallory", "without a key; expected --key FILE")
        for keys, why in zip((keys_of(folder, "alice"), strangers, None), whys, strict=True):
            with Controller(endpoint, keys=keys, timeout_s=0.5) as refused, pytest.raises(TimeoutError, match=why):
                refused.reset("cam1")
        assert not rig.obeying.taken
        with Controller(endpoint, keys=keys_of(folder, "carol"), timeout_s=10) as controller:
            assert controller.reset("cam1").ok and len(rig.obeying.taken) == 1
            folder.revoke("carol")
            controller.timeout_s = 1.0
            with pytest.raises(TimeoutError):
                controller.reset("cam1")
            assert len(rig.obeying.taken) == 1
            (folder.path / "clients.toml").write_text(saved)
            with contextlib.suppress(TimeoutError):  # the one that notices that the line is dead
                controller.reset("cam1")
            assert controller.reset("cam1").ok, "let in again, without a new Controller"


@pytest.mark.parametrize("is_revoked", [True, False])
def test_what_a_key_sent_before_it_was_revoked_is_not_obeyed(folder: KeyFolder, is_revoked: bool) -> None:
    """A message is looked at when it is taken, not when it came."""
    reader, writer = os.pipe()
    socket_ = ControlSocket([EVERYWHERE], fileno=reader, keys=KeyRing.open(folder.path))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        keys_of(folder, "carol").apply(dealer)
        dealer.connect(socket_.endpoints[0].replace("0.0.0.0", "127.0.0.1"))
        dealer.send(b"first")
        wait_for(lambda: socket_.wait(10, read=True) or socket_.take())
        dealer.send(b"second")
        started = time.monotonic()
        socket_.wait(10_000, read=True)
        assert time.monotonic() - started < 5, "the second message never came"
        if is_revoked:
            folder.revoke("carol")
        letter = socket_.take()
    socket_.close()
    os.close(reader), os.close(writer)
    assert (letter is None) == is_revoked and (letter is None or letter.payload == b"second")


def test_a_plain_text_client_is_told_nothing(folder: KeyFolder) -> None:
    """It gets at most the greeting, which has no content, and is cut off; at a plain endpoint it hears everything."""
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
    heard = {}
    with daemon(folder, "tcp://127.0.0.1:*", EVERYWHERE) as (publisher, endpoint):
        for address in (publisher.endpoints[0], endpoint):
            with raw(address) as connection, contextlib.suppress(ConnectionError):
                connection.settimeout(1.0)
                connection.sendall(greeting("NULL"))
                heard[address] = read_all(connection, 64)
                connection.sendall(ready)
                heard[address] += read_all(connection, 20)
                connection.sendall(b"\x00\x01\x01")  # a subscription to everything
                heard[address] += read_all(connection)
        assert CAMERA.encode() in heard[publisher.endpoints[0]]
        assert len(heard[endpoint]) <= 64 and CAMERA.encode() not in heard[endpoint]


@pytest.mark.parametrize("bind", [("tcp://127.0.0.1:*",), ("tcp://127.0.0.1:*", EVERYWHERE)])
def test_a_client_of_zmtp_1_is_cut_off_at_plain_endpoints_too(folder: KeyFolder, bind: tuple[str, ...]) -> None:
    """That version is what random bytes look like; a ROUTER would keep the files of two with the same name."""
    with daemon(folder, *bind) as (publisher, _), raw(publisher.endpoints[0]) as connection:
        connection.sendall(b"\x01\x00" + bytes(30))
        connection.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                continue  # at most a greeting; a timeout fails


def test_without_a_guard_nobody_gets_in(folder: KeyFolder) -> None:
    """libzmq lets every key in when nobody answers its question, unless it is told otherwise: it is."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket_:
        doors = Doors(socket_, "view", keys=KeyRing.open(folder.path))
        doors.open([EVERYWHERE])
        endpoint = doors.endpoints[0].replace("0.0.0.0", "127.0.0.1")
        doors.close()
        with pytest.raises(TimeoutError):
            state_of(endpoint, keys_of(folder, "alice"), timeout_s=1.0)
        assert not socket_.poll(0)


# --- where it may listen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:*", "tcp://*:*", "tcp://[::]:*", "tcp://robot.example:5560"])
def test_without_keys_nothing_listens_beyond_this_machine(endpoint: str) -> None:
    with pytest.raises(BindError, match=r"can be reached from other machines; .*sam2-stream keys new NAME --role view"):
        Outlet([endpoint])


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "[::]", socket.gethostname()])
def test_with_keys_any_address_is_guarded(folder: KeyFolder, host: str) -> None:
    """Also a host's name, which may stand for the loopback today."""
    with daemon(folder, f"tcp://{host}:*") as (_, endpoint):
        if host == "[::]":
            endpoint = endpoint.replace("127.0.0.1", "[::1]")
        with raw(endpoint) as connection:
            connection.sendall(greeting("CURVE"))
            assert b"CURVE\x00" in read_all(connection, 64)


def test_the_command_line_takes_a_key(folder: KeyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    key = folder.path / "alice.key"
    with daemon(folder) as (publisher, endpoint), publishing_masks(publisher):
        assert main(["subscribe", endpoint, "--count", "2", "--key", str(key)]) == 0
        assert capsys.readouterr().out.count("1:cup tracked") == 2
        assert main(["subscribe", endpoint, "--count", "2", "--timeout", "1"]) == 1
        key.chmod(0o644)
        assert main(["subscribe", endpoint, "--count", "2", "--key", str(key)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "expected --key FILE" in told[0] and told[1].endswith(f"chmod 600 {key}")


# --- revocation ------------------------------------------------------------------------------------------------------


class Reader:
    """Counts the masks that a subscriber gets, in a thread of its own, until closed."""

    def __init__(self, endpoint: str, keys: ClientKeys | None) -> None:
        self.serials: list[int] = []
        self.last_s = 0.0
        self._arguments = endpoint, keys
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        endpoint, keys = self._arguments
        with Subscriber(endpoint, [CAMERA], keys=keys, newest_only=False, timeout_s=0.05) as subscriber:
            while not self._ending.is_set():
                with contextlib.suppress(TimeoutError):
                    message = subscriber.receive().message
                    if isinstance(message, MasksMessage):
                        self.serials.append(message.serial)
                        self.last_s = time.monotonic()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def reading(endpoint: str, keys: ClientKeys | None) -> Iterator[Reader]:
    reader = Reader(endpoint, keys)
    try:
        yield reader
    finally:
        reader.close()


@contextlib.contextmanager
def publishing_masks(publisher: Publisher, period_s: float = 0.01) -> Iterator[None]:
    ending = threading.Event()

    def put() -> None:
        seq = 0
        while not ending.wait(period_s):
            publisher.put_masks(FakeDelivery(CAMERA, seq))
            seq += 1

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(20)


def test_a_revoked_key_is_cut_off_at_once_and_nobody_else(folder: KeyFolder) -> None:
    alice, bob = keys_of(folder, "alice"), keys_of(folder, "bob")
    with (
        daemon(folder, "tcp://127.0.0.1:*", EVERYWHERE) as (publisher, endpoint),
        reading(endpoint, alice) as revoked, reading(endpoint, bob) as other,
        reading(publisher.endpoints[0], None) as local, publishing_masks(publisher),
    ):  # fmt: skip
        wait_for(lambda: min(len(reader.serials) for reader in (revoked, other, local)) > 20)
        folder.revoke("alice")
        revoked_s = time.monotonic()
        num_before = len(other.serials)
        wait_for(lambda: len(other.serials) > num_before + 150)
        assert time.monotonic() - revoked.last_s > 1.0 > revoked.last_s - revoked_s - 1.5, "cut off, and soon"
        with pytest.raises(TimeoutError, match="refuses the key alice"):
            state_of(endpoint, alice, timeout_s=1.0)
    assert local.serials == list(range(local.serials[0], local.serials[-1] + 1)), "a plain reader may not notice"
    gaps = [after - before for before, after in zip(other.serials, other.serials[1:], strict=False)]
    assert sum(gap > 1 for gap in gaps) <= 1, f"one hole at most while it shook hands anew: {gaps}"


def test_a_new_key_gets_in_without_a_restart_and_disturbs_nobody(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose client has been waiting, refused."""
    monkeypatch.setattr(client_module, "REOPEN_S", 0.3)
    late = keys_of(folder, "bob")
    saved = (folder.path / "clients.toml").read_text()
    folder.revoke("bob")
    with (
        daemon(folder) as (publisher, endpoint),
        reading(endpoint, keys_of(folder, "alice")) as reader, reading(endpoint, late) as waiting,
        publishing_masks(publisher),
    ):  # fmt: skip
        wait_for(lambda: len(reader.serials) > 50)
        assert not waiting.serials
        (folder.path / "clients.toml").write_text(saved)
        wait_for(lambda: len(waiting.serials) > 10)
        assert reader.serials == list(range(reader.serials[0], reader.serials[-1] + 1))


@pytest.mark.parametrize("num_left", [0, -20])
def test_a_broken_allow_list_lets_nobody_in_until_it_is_mended(
    folder: KeyFolder, caplog: pytest.LogCaptureFixture, num_left: int
) -> None:
    """Half written, or emptied, as an editor leaves it for a moment."""
    path = folder.path / "clients.toml"
    whole = path.read_text()
    with (
        daemon(folder) as (publisher, endpoint), publishing_masks(publisher),
        reading(endpoint, keys_of(folder, "alice")) as reader,
    ):  # fmt: skip
        wait_for(lambda: len(reader.serials) > 10)
        path.write_text(whole[:num_left])
        wait_for(lambda: time.monotonic() - reader.last_s > 1.0)
        num_read = len(reader.serials)
        path.write_text(whole)
        wait_for(lambda: len(reader.serials) > num_read + 10)
    assert ("nobody is let in until this is mended" in caplog.text) == (num_left != 0)


# --- crowds ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def raw(endpoint: str) -> Iterator[socket.socket]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as connection:
        yield connection


def greeting(mechanism: str) -> bytes:
    """The first 64 bytes of ZMTP 3.0."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.encode().ljust(20, b"\0") + bytes(32)


def read_all(connection: socket.socket, limit: int = 1 << 16) -> bytes:
    """Until the other side closes, or `limit`."""
    received = b""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while len(received) < limit and (part := connection.recv(4096)):
            received += part
    return received


def num_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_hundred_strangers_starve_nobody_and_leave_nothing_behind(folder: KeyFolder) -> None:
    """They say nothing, half a greeting, noise, or a greeting and then noise, and stay as long as they are let."""
    noise = random.Random(7)
    sayings = (b"", greeting("CURVE")[:12], noise.randbytes(2000), greeting("CURVE") + noise.randbytes(5000))
    with daemon(folder) as (publisher, endpoint), publishing_masks(publisher):
        with reading(endpoint, keys_of(folder, "bob")) as early:
            wait_for(lambda: early.serials)
        before = num_files()
        with contextlib.ExitStack() as stack:
            for index in range(200):
                connection = stack.enter_context(raw(endpoint))
                with contextlib.suppress(ConnectionError):
                    connection.sendall(sayings[index % len(sayings)])
            with reading(endpoint, keys_of(folder, "alice")) as reader:
                wait_for(lambda: len(reader.serials) > 50)
            assert reader.serials == list(range(reader.serials[0], reader.serials[-1] + 1))
        wait_for(lambda: num_files() <= before, 20)


def test_a_hundred_wrong_keys_that_come_again_and_again_do_not_hurt_the_right_one(
    folder: KeyFolder, strangers: ClientKeys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ending = threading.Event()

    def knock(endpoint: str) -> None:
        with zmq.Context() as context:
            while not ending.is_set():
                with contextlib.ExitStack() as stack:
                    for _ in range(100):
                        wrong = stack.enter_context(context.socket(zmq.SUB))
                        wrong.setsockopt(zmq.LINGER, 0)
                        strangers.apply(wrong)
                        wrong.connect(endpoint)
                    ending.wait(0.5)

    with daemon(folder) as (publisher, endpoint), publishing_masks(publisher, 0.02):
        crowd = threading.Thread(target=knock, args=(endpoint,))
        crowd.start()
        try:
            wait_for(lambda: "unknown key" in caplog.text)
            with reading(endpoint, keys_of(folder, "alice")) as reader:
                wait_for(lambda: len(reader.serials) > 100, 30)
            assert reader.serials == list(range(reader.serials[0], reader.serials[-1] + 1))
        finally:
            ending.set()
            crowd.join(20)
    assert caplog.text.count("refused a client from 127.0.0.1") <= 3, "the log may not fill"
