"""`Admission`: how often a client may command, and how much of what it asked may wait.

Owns: a token bucket and a count for each known client. Thread: the control thread alone. Never: grows beyond its
capacity: the client that was silent for longest is forgotten, and starts anew when it comes again.
"""

from __future__ import annotations

import collections

COMMANDS_PER_S = 50.0
BURST = 100.0
MAX_WAITING = 16  # unanswered requests of one client
MAX_CLIENTS = 1024


class Client:
    """What is known of one client; written by the control thread."""

    __slots__ = ("num_waiting", "seen_ns", "tokens")

    def __init__(self, now_ns: int) -> None:
        self.tokens = BURST
        self.seen_ns = now_ns
        self.num_waiting = 0


class Admission:
    """At most `COMMANDS_PER_S` messages a second (`BURST` at once) and `MAX_WAITING` unanswered requests a client."""

    def __init__(self) -> None:
        self._clients: collections.OrderedDict[bytes, Client] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def admit(self, name: bytes, now_ns: int) -> bool:
        """Whether one more message of this client may be looked at; it is counted if so."""
        client = self._clients.setdefault(name, Client(now_ns))
        self._clients.move_to_end(name)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        client.tokens = min(BURST, client.tokens + COMMANDS_PER_S * (now_ns - client.seen_ns) / 1e9)
        client.seen_ns = now_ns
        if client.tokens < 1.0:
            return False
        client.tokens -= 1.0
        return True

    def begin(self, name: bytes) -> bool:
        """Whether one more request of an admitted client may wait for its answer; it is counted if so."""
        client = self._clients[name]
        if client.num_waiting >= MAX_WAITING:
            return False
        client.num_waiting += 1
        return True

    def end(self, name: bytes) -> None:
        """A request was answered."""
        client = self._clients.get(name)
        if client is not None and client.num_waiting:
            client.num_waiting -= 1
