"""How much is read: `Admission` for each client, `Pace` for all together.

Owns: a token bucket and a count of unanswered requests for each known client, and what was read in this hundredth of
a second. Thread: the control thread alone. Never: grows beyond its capacity: the client that was silent for longest
is forgotten, and starts anew when it comes again.
"""

from __future__ import annotations

import collections

COMMANDS_PER_S = 50.0
BURST = 100.0
MAX_WAITING = 16  # unanswered requests of one client
MAX_CLIENTS = 1024
WINDOW_NS, MAX_A_WINDOW, MAX_BYTES_A_WINDOW = 10_000_000, 64, 4 << 20


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


class Pace:
    """At most 64 messages and about 4 MiB in 10 ms: who sends more waits, and other threads get their time."""

    def __init__(self) -> None:
        self._until_ns = 0
        self._num_messages = self._num_bytes = 0

    def wait_ns(self, now_ns: int) -> int:
        """How long nothing more may be read; 0 = go on."""
        if now_ns >= self._until_ns:
            self._until_ns = now_ns + WINDOW_NS
            self._num_messages = self._num_bytes = 0
        is_full = self._num_messages >= MAX_A_WINDOW or self._num_bytes >= MAX_BYTES_A_WINDOW
        return self._until_ns - now_ns if is_full else 0

    def note(self, num_bytes: int) -> None:
        """A message was read."""
        self._num_messages += 1
        self._num_bytes += num_bytes
