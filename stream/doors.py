"""`Doors`: where a socket can be reached: open within this machine, guarded by keys beyond it.

Owns: the endpoints that one socket has bound, their files, and the guard. Thread: the one that owns the socket.
Never: binds an address that other machines reach without keys, or takes a path that a file or a program has.

Loopback and ipc endpoints are bound before the socket is told of keys, and stay plain: libzmq gives an endpoint the
options that the socket has when it is bound. A revoked client is cut off by closing the guarded endpoints and
opening them again, which takes milliseconds: everybody else shakes hands anew, and the plain ones notice nothing.
Random bytes are a ZMTP 1.0 client to libzmq, whose first ones name it; of two with the same name, a ROUTER never reads
the second, nor sees it leave. A domain, which that version cannot have, keeps such strangers out.
"""

from __future__ import annotations

import errno
import os
import pathlib
import socket as sockets
import time
from collections.abc import Sequence

import zmq

from stream.config.checks import is_local
from stream.keys import PLAIN, Domain, Guard, KeyRing

MAX_IPC_PATH = 100  # bytes; the kernel's limit is 107
REOPEN_LIMIT_S = 10.0
WITH_KEYS = (
    "expected tcp://127.0.0.1:PORT, ipc://PATH, or keys: sam2-stream keys new NAME --role view --keys FOLDER, "
    "then --keys FOLDER, or keys = 'FOLDER' in the configuration"
)


class BindError(OSError):
    """An endpoint cannot be bound; the text says which, why, and what was expected."""


class Doors:
    """Written by the thread that made it. `guard` is None where every endpoint is plain."""

    def __init__(self, socket: zmq.Socket[bytes], domain: Domain, *, keys: KeyRing | None = None) -> None:
        self.guard: Guard | None = None
        self._socket, self._domain, self._keys = socket, domain, keys
        self._opened: dict[int, str] = {}  # by place in `bind`: what was bound, with its port
        self._guarded: tuple[str, ...] = ()
        self._shut: list[str] = []  # guarded endpoints that are to be opened again
        self._reopen_by_s = 0.0

    def open(self, bind: Sequence[str]) -> None:
        """Raises BindError, KeysError; `endpoints` then holds the real ports."""
        for endpoint in bind:
            check_endpoint(endpoint, has_keys=self._keys is not None)
        beyond = [place for place, endpoint in enumerate(bind) if not is_local(endpoint)]
        if beyond:
            assert self._keys is not None, "an endpoint beyond this machine was let through without keys"
            self.guard = Guard(self._keys, self._socket.context, self._domain)
        self._socket.setsockopt_string(zmq.ZAP_DOMAIN, PLAIN)  # everybody is let in, but ZMTP 1.0 is refused
        for place, endpoint in enumerate(bind):
            if is_local(endpoint):
                self._opened[place] = self._bind(endpoint)
        if self.guard is not None:
            self.guard.apply(self._socket)
        for place in beyond:
            self._opened[place] = self._bind(bind[place])
            self._guarded += (self._opened[place],)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What was opened so far, in the order of `bind`."""
        return tuple(self._opened[place] for place in sorted(self._opened))

    def register(self, poller: zmq.Poller) -> None:
        """Let the poller wake up for a client at a guarded door."""
        if self.guard is not None:
            poller.register(self.guard.socket, zmq.POLLIN)

    @property
    def is_reopening(self) -> bool:
        """`serve` wants to be called again in some milliseconds."""
        return bool(self._shut)

    def serve(self) -> None:
        """Once a turn: let clients in, cut revoked ones off. BindError when an endpoint cannot be opened again."""
        if self.guard is not None and self.guard.serve() and not self._shut:
            for endpoint in self._guarded:
                self._socket.unbind(endpoint)
            self._shut = list(self._guarded)
            self._reopen_by_s = time.monotonic() + REOPEN_LIMIT_S
        while self._shut and self._reopen(self._shut[0]):
            self._shut.pop(0)

    def admits(self, frame: zmq.Frame) -> bool:
        """Whether the sender of this message is still allowed here; at a plain endpoint everybody is."""
        user_id = metadata(frame, "User-Id")
        return self.guard is None or not user_id or self.guard.may(user_id)

    def close(self) -> None:
        """Just before the socket is closed."""
        for endpoint in self.endpoints:
            if endpoint.startswith("ipc://"):
                pathlib.Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        if self.guard is not None:
            self.guard.close()

    def _reopen(self, endpoint: str) -> bool:
        """False while ZeroMQ's own thread has not closed the port yet."""
        try:
            self._bind(endpoint)
        except BindError:
            if time.monotonic() > self._reopen_by_s:
                raise
            return False
        return True

    def _bind(self, endpoint: str) -> str:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as exc:
            raise BindError(f"cannot bind {endpoint}: {exc.strerror}; expected a free port or path") from exc
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def metadata(frame: zmq.Frame, name: str) -> str:
    """What ZeroMQ knows of a message's sender: `Peer-Address`, `User-Id` (a public key); "" where it has none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def check_endpoint(endpoint: str, *, has_keys: bool = False) -> None:
    """BindError unless this is tcp:// (loopback if there are no keys), or ipc:// that nobody serves."""
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp" and address.rpartition(":")[0]:
        if not has_keys and not is_local(endpoint):
            raise BindError(f"{endpoint} can be reached from other machines; {WITH_KEYS}")
    elif scheme == "ipc" and address:
        _check_socket_file(endpoint, pathlib.Path(address))
    else:
        raise BindError(f"endpoint {endpoint!r}, expected tcp://127.0.0.1:PORT or ipc://PATH")


def _check_socket_file(endpoint: str, path: pathlib.Path) -> None:
    """libzmq removes whatever lies at the path: a file, or the socket of a program that still serves it."""
    num_bytes = len(os.fsencode(path))
    if num_bytes > MAX_IPC_PATH:
        raise BindError(f"{endpoint} has a path of {num_bytes} bytes, expected at most {MAX_IPC_PATH}")
    if not path.parent.is_dir():
        raise BindError(f"{endpoint} lies in {path.parent}, expected a directory that exists")
    if not path.exists():
        return
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.settimeout(0.5)
        if not path.is_socket() or probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise BindError(f"{endpoint} is in use; expected a path that no other file or program has")
