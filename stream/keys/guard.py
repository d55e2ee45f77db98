"""`Guard`: who gets past a socket's CURVE handshake, and who is still allowed to be there.

Owns: the ZAP socket of one ZeroMQ context, and the allow-list as it was read last. Thread: the one that made it, which
also owns the guarded socket. Never: waits; lets anybody in whose key is not on the list with a role for its domain.

Without a ZAP handler libzmq lets any key in, so the guard is bound before the first endpoint, and the guarded socket
enforces its domain: with no guard, nobody gets in. The guard is no thread of its own (pyzmq's ThreadAuthenticator is):
the thread that owns the socket answers between two messages. So a revoked key is known where connections are cut, a
stop has nothing to join, and a client that only connects and says nothing never reaches it.

The allow-list is looked at again at every handshake, turn and question; reading it costs only when it changed. One
that cannot be read, or is empty, lets nobody in until it is mended: clients are put off, and come again by themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import zmq
from zmq.utils import z85

from stream.keys.files import KeysError
from stream.keys.ring import CLIENTS, Client, Domain, KeyRing

log = logging.getLogger(__name__)

PLAIN = "plain"  # the domain of endpoints that only this machine reaches: they need no key
ADDRESS = "inproc://zeromq.zap.01"
MAX_HANDSHAKES_A_TURN = 200
LOG_PERIOD_NS = 10_000_000_000  # one line about refused clients in so long, with how many there were
ALLOWED, LATER, REFUSED = b"200", b"300", b"400"  # LATER: the client tries again by itself
Fingerprint = tuple[int, int, int, int]


class Guard:
    """One per context. Written by the thread that made it."""

    def __init__(self, keys: KeyRing, context: zmq.Context[zmq.Socket[bytes]], domain: Domain) -> None:
        self.num_admitted = 0
        self.num_refused = 0
        self._keys, self._domain = keys, domain
        self._clients: Mapping[str, Client] = {}
        self._fingerprint: Fingerprint | None = None
        self._inside: set[str] = set()  # public keys that were let in and may still be there
        self._told_ns, self._num_untold = -LOG_PERIOD_NS, 0
        self._follow()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """What this socket binds from now on is guarded; what it has bound stays as it is."""
        socket.curve_server = True
        socket.curve_secretkey = self._keys.secret.encode()
        socket.setsockopt_string(zmq.ZAP_DOMAIN, self._domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def serve(self) -> bool:
        """Answer who is at the door. True: somebody who was let in may no longer be there, and has to be cut off."""
        for _ in range(MAX_HANDSHAKES_A_TURN):
            try:
                question = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self.socket.send_multipart(self._answer(question))
        self._follow()
        gone = {public for public in self._inside if not self.may(public)}
        self._inside -= gone
        return bool(gone)

    def client_of(self, user_id: str) -> Client | None:
        """Whose connection it is, by the User-Id of its messages; None when it is no longer allowed here at all."""
        self._follow()
        client = self._clients.get(user_id)
        return client if client is not None and client.may(self._domain) else None

    def may(self, user_id: str) -> bool:
        return self.client_of(user_id) is not None

    def close(self) -> None:
        self.socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        version, request_id, domain, address, _, mechanism, *credentials = question
        if mechanism == b"NULL" and domain == PLAIN.encode():
            return [version, request_id, ALLOWED, b"OK", b"", b""]
        is_asked_right = mechanism == b"CURVE" and domain == self._domain.encode() and len(credentials) == 1
        public = z85.encode(credentials[0]).decode() if is_asked_right else ""
        client = self.client_of(public)
        if client is not None:
            self.num_admitted += 1
            self._inside.add(public)
            log.debug("%s: let %s in from %s", self._domain, client.name, address.decode())
            return [version, request_id, ALLOWED, b"OK", public.encode(), b""]
        self._refuse(address.decode(errors="replace"), self._clients.get(public))
        return [version, request_id, REFUSED if self._clients else LATER, b"not allowed", b"", b""]

    def _refuse(self, address: str, known: Client | None) -> None:
        self.num_refused += 1
        self._num_untold += 1
        now_ns = time.monotonic_ns()
        if now_ns - self._told_ns < LOG_PERIOD_NS:
            return
        why = f"{known.name} may only {known.role}" if known else "unknown key"
        others = f" (and {self._num_untold - 1} others before)" if self._num_untold > 1 else ""
        log.warning("%s: refused a client from %s: %s%s", self._domain, address, why, others)
        self._told_ns, self._num_untold = now_ns, 0

    def _follow(self) -> None:
        """Read the allow-list again if it changed."""
        fingerprint = self._stamp()
        if fingerprint == self._fingerprint:
            return
        self._fingerprint = fingerprint
        try:
            self._clients = self._keys.clients()
        except KeysError as error:
            self._clients = {}
            log.error("%s: nobody is let in until this is mended: %s", self._domain, error)

    def _stamp(self) -> Fingerprint:
        try:
            status = (self._keys.folder / CLIENTS).stat()
        except OSError:
            return 0, 0, 0, 0
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
