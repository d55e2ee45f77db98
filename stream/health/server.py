"""`HealthServer`: a small HTTP server that a scrape always gets through to.

Owns: the listening socket and its connections; all are made and closed in the thread `http`. Thread: `http` runs the
loop. Never: waits for a client, serves more than one request a connection, or listens beyond the loopback.

Loses: of more than `MAX_CONNECTIONS` at a time the one that came first, and one that does not say or take what it
should in time (`num_lost`). So a client that asks at once gets its answer, however many others only hold the port.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

from stream.config.checks import is_local
from stream.health.answers import MAX_REQUEST_BYTES, Answers
from stream.metrics import Metrics
from stream.outlet import BindError
from stream.status import Status

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
BACKLOG = 128
MAX_DRAINED_BYTES = 1 << 20  # of a body that nobody asked for
READ_LIMIT_S, WRITE_LIMIT_S, DRAIN_LIMIT_S = 5.0, 10.0, 1.0
IDLE_LIMIT_S = 0.25
CHUNK_BYTES = 65536


class Connection:
    """One request and its answer. Written by `http` alone."""

    __slots__ = ("deadline", "is_answered", "num_drained", "received", "sending", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.deadline = time.monotonic() + READ_LIMIT_S
        self.received = b""
        self.sending = memoryview(b"")
        self.is_answered = False  # what is still unread would make the kernel take the answer back
        self.num_drained = 0


class HealthServer:
    """Started and stopped by the daemon; `http` writes every field, `_stopping` excepted.

    `address` is HOST:PORT of the loopback; with port 0 any free one is taken, and `address` tells it once `ready` is
    set. `hanging` names what does not turn, without waiting for it; where it is not given, /live tells what the
    status says. `num_loops` moves also when nobody asks.
    """

    def __init__(
        self,
        address: str,
        *,
        status: Callable[[], Status],
        metrics: Metrics,
        hanging: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.address = address
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.num_loops = 0
        self.num_answered = 0
        self.num_lost = 0  # connections that ended without an answer
        self._answers = Answers(status, metrics, hanging)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._connections: dict[Connection, None] = {}  # in the order in which they came

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return when the port is bound; raise what prevented it."""
        if not self.ready.wait(timeout_s):
            raise TimeoutError(f"http on {self.address} is not ready after {timeout_s} s")
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as exc:
            self.error = exc
            log.error("http: %s", exc, exc_info=not isinstance(exc, BindError))
        finally:
            self.ready.set()

    def _serve(self) -> None:
        with listen(self.address) as listener, selectors.DefaultSelector() as selector:
            host, port = listener.getsockname()[:2]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            selector.register(listener, selectors.EVENT_READ)
            self.ready.set()
            try:
                while not self._stopping.is_set():
                    self.num_loops += 1
                    self._turn(selector, listener)
            finally:
                for connection in self._connections:
                    connection.socket.close()

    def _turn(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        for key, _ in selector.select(IDLE_LIMIT_S):
            if key.data is None:
                self._accept(selector, listener)
            elif key.data in self._connections:  # else it made room for another a moment ago
                self._advance(selector, key.data)
        now = time.monotonic()
        for late in [connection for connection in self._connections if connection.deadline <= now]:
            self._close(selector, late)

    def _accept(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it left again
        except OSError as error:  # no file or no memory is left
            log.warning("http: cannot accept: %s", error.strerror)
            self._make_room(selector, 0)
            self._stopping.wait(IDLE_LIMIT_S)
            return
        self._make_room(selector, MAX_CONNECTIONS - 1)
        accepted.setblocking(False)
        connection = Connection(accepted)
        self._connections[connection] = None
        selector.register(accepted, selectors.EVENT_READ, connection)

    def _make_room(self, selector: selectors.BaseSelector, limit: int) -> None:
        while len(self._connections) > limit:
            self._close(selector, next(iter(self._connections)))

    def _close(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        self.num_lost += not connection.is_answered
        del self._connections[connection]
        selector.unregister(connection.socket)
        connection.socket.close()

    def _advance(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        """Read, answer, write, or wait for the other side to close; whichever is next."""
        try:
            goes_on = _send(selector, connection) if connection.sending else _receive(connection)
        except BlockingIOError:
            return
        except OSError:  # the client left
            goes_on = False
        if not goes_on:
            self._close(selector, connection)
        elif not connection.sending and not connection.is_answered:
            self._answer(selector, connection)

    def _answer(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        answer = self._answers.answer(connection.received)
        if answer is None:
            return
        self.num_answered += 1
        connection.sending = memoryview(answer)
        connection.received = b""
        connection.deadline = time.monotonic() + WRITE_LIMIT_S
        selector.modify(connection.socket, selectors.EVENT_WRITE, connection)


def _receive(connection: Connection) -> bool:
    """False when the client closed, or sends without end."""
    if not connection.is_answered:
        data = connection.socket.recv(MAX_REQUEST_BYTES + 1 - len(connection.received))
        connection.received += data
        return bool(data)
    data = connection.socket.recv(CHUNK_BYTES)
    connection.num_drained += len(data)
    return bool(data) and connection.num_drained <= MAX_DRAINED_BYTES


def _send(selector: selectors.BaseSelector, connection: Connection) -> bool:
    connection.sending = connection.sending[connection.socket.send(connection.sending) :]
    if not connection.sending:
        connection.is_answered = True
        connection.deadline = time.monotonic() + DRAIN_LIMIT_S
        connection.socket.shutdown(socket.SHUT_WR)
        selector.modify(connection.socket, selectors.EVENT_READ, connection)
    return True


def listen(address: str) -> socket.socket:
    """A listening socket on a loopback HOST:PORT; raises BindError."""
    host, _, port = address.rpartition(":")
    if not is_local(f"tcp://{address}") or not port.isdecimal():
        raise BindError(f"http address {address!r}, expected a loopback address and a port, such as 127.0.0.1:9464")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise BindError(f"cannot serve http on {address}: {reason}; expected a free port") from error
    return listener
