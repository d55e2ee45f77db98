"""stream.notify: what systemd is told, and when it is told no more."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest
from notify_rig import fake_systemd

from stream.notify import Liveness, Notifier

S = 1_000_000_000


@pytest.mark.parametrize("is_abstract", [False, True])
def test_every_message_arrives_as_systemd_expects_it(tmp_path: Path, is_abstract: bool) -> None:
    with fake_systemd(None if is_abstract else tmp_path, watchdog_s=20) as systemd:
        notifier = Notifier.from_environment(systemd.environment)
        assert notifier.ready("2 cameras\nhere") and systemd.hear(5) == ["READY=1", "STATUS=2 cameras here"]
        assert notifier.watchdog() and systemd.hear(5) == ["WATCHDOG=1"]
        assert notifier.extend_timeout(90) and systemd.hear(5) == ["EXTEND_TIMEOUT_USEC=90000000"]
        before_us = time.monotonic_ns() // 1000
        assert notifier.reloading()
        line, stamp = systemd.hear(5)
        assert line == "RELOADING=1" and before_us <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= before_us + 60 * S
        assert notifier.status("gone") and systemd.hear(5) == ["STATUS=gone"]
        assert not notifier.status("gone"), "an unchanged status is not sent again"
        assert notifier.stopping() and systemd.hear(5) == ["STOPPING=1"]
        assert notifier.num_sent == 6 and notifier.num_failed == 0


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert notifier.watchdog_period_s is None
    assert not any((notifier.ready(), notifier.watchdog(), notifier.status("x"), notifier.stopping()))
    assert notifier.num_sent == notifier.num_failed == 0


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_only_where_it_waits_for_this_process(
    tmp_path: Path, environment: dict[str, str], period_s: float | None
) -> None:
    with fake_systemd(tmp_path) as systemd:
        notifier = Notifier.from_environment({**systemd.environment, **environment})
        assert notifier.watchdog_period_s == period_s
        assert notifier.watchdog() == (period_s is not None)
        assert systemd.hear(0.05) == ([] if period_s is None else ["WATCHDOG=1"])


def test_the_watchdog_is_fed_four_times_a_period_however_often_it_is_asked(tmp_path: Path) -> None:
    with fake_systemd(tmp_path, watchdog_s=0.4) as systemd:
        notifier, start, times = Notifier.from_environment(systemd.environment), time.monotonic(), []
        while len(times) < 5:
            if notifier.watchdog():
                times.append(time.monotonic() - start)
        assert times[0] < 0.1 <= times[1] and times[4] >= 0.4


def test_a_systemd_that_is_gone_or_does_not_read_never_hurts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with fake_systemd(tmp_path) as systemd:
        notifier = Notifier.from_environment(systemd.environment)
        start = time.monotonic()
        while notifier.extend_timeout(1):  # the socket's queue is full at some time
            assert notifier.num_sent < 100_000
        assert time.monotonic() - start < 10
    with caplog.at_level(logging.WARNING):
        assert not notifier.ready() and not notifier.stopping()
    assert notifier.num_failed == 3 and caplog.text.count("cannot tell systemd") == 1, "told at the first failure"
    (tmp_path / "notify").unlink()
    assert not Notifier(str(tmp_path / "notify")).ready()
    assert caplog.text.count("cannot tell systemd READY=1: No such file or directory") == 1


@pytest.mark.parametrize("address", ["relative/path", "vsock:2:1234", "@", "/"])
def test_an_address_that_cannot_be_used_is_told_and_not_used(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert notifier.watchdog_period_s is None and not notifier.ready() and notifier.num_failed == 0
    assert f"NOTIFY_SOCKET={address!r}: expected a path" in caplog.text


def test_a_loop_that_does_not_move_for_the_limit_is_named_and_forgiven_when_it_moves() -> None:
    counts = {"gpu": 0, "pub": 0}
    liveness = Liveness({name: lambda name=name: counts[name] for name in counts}, 5.0)
    start_ns = time.monotonic_ns()
    assert liveness.overdue(start_ns + 4 * S) == ()
    assert liveness.overdue(start_ns + 6 * S) == ("gpu", "pub")
    counts["pub"] += 1
    assert liveness.overdue(start_ns + 7 * S) == ("gpu",)
    assert liveness.overdue(start_ns + 11 * S) == ("gpu",)
    assert liveness.overdue(start_ns + 13 * S) == ("gpu", "pub")
    counts["gpu"] -= 1  # any change is movement, so that a counter that starts anew is none the worse
    assert liveness.overdue(start_ns + 14 * S) == ("pub",)


def test_what_hangs_by_its_own_measure_is_named_beside_the_loops() -> None:
    overdue = ["cam:door"]
    liveness = Liveness({"gpu": lambda: 0}, 5.0, others=lambda: overdue)
    assert liveness.overdue() == ("cam:door",)
    overdue.clear()
    assert liveness.overdue() == ()


def test_systemd_hears_no_more_once_a_thread_hangs(tmp_path: Path) -> None:
    """Real threads with bounded waits, one of them made to hang; the main loop as the daemon's."""
    stopping, hanging = threading.Event(), threading.Event()
    counts, hung = {"gpu": 0, "pub": 0, "control": 0}, "gpu"

    def loop(name: str) -> None:
        while not stopping.wait(0.02):
            counts[name] += 1
            while name == hung and hanging.is_set() and not stopping.is_set():
                stopping.wait(1.0)

    threads = [threading.Thread(target=loop, args=(name,)) for name in counts]
    for thread in threads:
        thread.start()
    with fake_systemd(tmp_path, watchdog_s=1.2) as systemd:
        notifier = Notifier.from_environment(systemd.environment)
        liveness = Liveness({name: lambda name=name: counts[name] for name in counts}, 0.6)

        def watch() -> None:
            while not stopping.wait(0.02):
                if not liveness.overdue():
                    notifier.watchdog()

        threads.append(threading.Thread(target=watch))
        threads[-1].start()
        try:
            for _ in range(3):
                systemd.wait_for("WATCHDOG=1")
            hanging.set()
            hung_ns = time.monotonic_ns()
            assert systemd.silent_for("WATCHDOG=1", 1.2), "a hung thread keeps systemd waiting"
            assert hung in liveness.overdue()
            assert time.monotonic_ns() - hung_ns < 10 * S
            hanging.clear()
        finally:
            stopping.set()
            for thread in threads:
                thread.join()


def test_a_datagram_of_any_status_fits(tmp_path: Path) -> None:
    with fake_systemd(tmp_path) as systemd:
        assert Notifier.from_environment(systemd.environment).ready("ü\udcff\0 " * 100_000)
        assert systemd.hear(5)[0] == "READY=1"


def test_the_socket_is_not_left_open(tmp_path: Path) -> None:
    with fake_systemd(tmp_path) as systemd:
        notifier = Notifier.from_environment(systemd.environment)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            notifier.stopping()
            systemd.hear()
        assert len(os.listdir("/proc/self/fd")) <= before
