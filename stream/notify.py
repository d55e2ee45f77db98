"""What a service manager is told: `Notifier` speaks systemd's notification protocol; `Liveness` knows which loop hangs.

Owns: the environment variables NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (read, never changed), and when each loop
was last seen to move. Thread: the main thread notifies; any thread may ask what hangs. Never: raises when nobody
listens, waits longer than `SEND_LIMIT_S`, or lets a child speak for the daemon.

systemd restarts a service that did not say WATCHDOG=1 for WatchdogSec. The daemon says it only while `Liveness` names
nothing, so that a hung thread ends like a crash. The watchdog counts from READY=1 on; before that `extend_timeout`
asks for more time than TimeoutStartSec.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping

log = logging.getLogger(__name__)

SEND_LIMIT_S = 0.5
MAX_STATUS = 400  # characters
PINGS_A_PERIOD = 4  # systemd asks for at least two


class Notifier:
    """Does nothing where no socket is given. Every field is written by the thread that notifies.

    `watchdog_period_s` is None where systemd expects no WATCHDOG=1 of this process. `num_failed` counts what could
    not be sent; the first failure is logged.
    """

    def __init__(self, address: str = "", *, watchdog_period_s: float | None = None) -> None:
        self.watchdog_period_s = watchdog_period_s
        self.num_sent = 0
        self.num_failed = 0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._ping_due_ns = 0
        self._status = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Notifier:
        """As systemd started this process; a socket of another kind than a path or '@name' is told and not used."""
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        if address and (address[0] not in "/@" or len(address) < 2):
            log.error("NOTIFY_SOCKET=%r: expected a path that begins with '/', or '@' and a name", address)
            address = ""
        return cls(address, watchdog_period_s=_period_s(environment) if address else None)

    def ready(self, status: str = "") -> bool:
        """Started, or done with reading the configuration again."""
        return self._send("READY=1", *self._status_line(status))

    def reloading(self) -> bool:
        """The configuration is being read again; `ready` ends that."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *self._status_line(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`; sent when it changed."""
        lines = self._status_line(text)
        return self._send(*lines) if lines else False

    def watchdog(self) -> bool:
        """All is well; call it as often as you like, a quarter of the period passes between two messages."""
        now_ns = time.monotonic_ns()
        if self.watchdog_period_s is None or now_ns < self._ping_due_ns:
            return False
        self._ping_due_ns = now_ns + int(self.watchdog_period_s * 1e9 / PINGS_A_PERIOD)
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Starting or stopping goes on: from now on it may take so long, unless asked again."""
        return self._send(f"EXTEND_TIMEOUT_USEC={max(1, int(seconds * 1e6))}")

    def _status_line(self, text: str) -> tuple[str, ...]:
        text = " ".join(text.split())[:MAX_STATUS]
        if not text or text == self._status:
            return ()
        self._status = text
        return (f"STATUS={text}",)

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_LIMIT_S)
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            self.num_failed += 1
            if self.num_failed == 1:
                log.warning("cannot tell systemd %s: %s", lines[0], error.strerror or error)
            return False
        self.num_sent += 1
        return True


def _period_s(environment: Mapping[str, str]) -> float | None:
    """None where no watchdog waits, or where it waits for another process."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period or (pid and pid != str(os.getpid())):
        return None
    if not period.isascii() or not period.isdecimal() or int(period) == 0:
        log.error("WATCHDOG_USEC=%r: expected a whole number of microseconds above 0", period)
        return None
    return int(period) / 1e6


class Liveness:
    """Every loop waits with a bound, so its counter moves also when there is nothing to do; one that does not, hangs.

    `loops` are names with their counters. `others` names what hangs by a measure of its own, such as a camera's
    supervisor. A loop counts from the moment when this was made, so make it when all loops run. Fields are written
    under `_lock`.
    """

    def __init__(
        self,
        loops: Mapping[str, Callable[[], int]],
        limit_s: float,
        *,
        others: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._loops = dict(loops)
        self._limit_ns = int(limit_s * 1e9)
        self._others = others
        self._lock = threading.Lock()
        now_ns = time.monotonic_ns()
        self._seen = {name: (count(), now_ns) for name, count in self._loops.items()}  # counter, when it moved

    def overdue(self, now_ns: int | None = None) -> tuple[str, ...]:
        """What has not moved for the limit; any thread. The main loop asks often, or movement is seen too late."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        late = []
        with self._lock:
            for name, count in self._loops.items():
                last, moved_ns = self._seen[name]
                current = count()
                if current != last:
                    self._seen[name] = current, now_ns
                elif now_ns - moved_ns > self._limit_ns:
                    late.append(name)
        return (*late, *self._others())
