"""Subscribers and strangers that misbehave: the daemon and its other subscribers notice nothing."""

from __future__ import annotations

import collections
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from faults.conftest import Record
from faults.garbage import Garbage
from faults.lab import HEALTHY, Lab
from faults.record import Row
from stream.client import Subscriber
from stream.controller import Controller

MEMORY_LIMIT_MB = 40.0
FILES_LIMIT = 5
NUM_ROUNDS = 40


@contextmanager
def nothing_grows(lab: Lab) -> Iterator[None]:
    """The daemon has no more memory and no more open files afterwards than before."""
    memory_mb, num_files = lab.memory_mb(), lab.num_files()
    yield
    lab.witness.wait(lambda: lab.num_files() <= num_files + FILES_LIMIT, "the daemon closes what it opened")
    assert lab.memory_mb() < memory_mb + MEMORY_LIMIT_MB


def assert_nothing_lost(lab: Lab, since_s: float) -> None:
    """The witness got every message about the healthy camera."""
    serials = [item.masks.serial for item in lab.witness.seen(HEALTHY, since_s)]
    assert serials == list(range(serials[0], serials[0] + len(serials)))


def test_a_stopped_subscriber_holds_up_nobody(lab: Lab, record: Record) -> None:
    command = [sys.executable, "-m", "stream.cli", "subscribe", lab.endpoint, "--json", "--camera", HEALTHY]
    with nothing_grows(lab), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopped:
        try:
            assert stopped.stdout is not None and stopped.stdout.readline()
            stopped.send_signal(signal.SIGSTOP)
            start_s = time.monotonic()
            lab.witness.next(HEALTHY, start_s + 5.0)
            stopped.send_signal(signal.SIGCONT)
            back_s = time.monotonic()
            lines = (json.loads(line) for line in stopped.stdout)
            next(line for line in lines if line.get("arrival_ns", 0) > back_s * 1e9)
            recovered_s = time.monotonic() - back_s
        finally:
            stopped.kill()
    assert_nothing_lost(lab, start_s)
    promise = "costs the daemon nothing, and is up to date soon after it goes on"
    record(Row("subscriber: SIGSTOP for 5 s", promise, recovered_s), lab.check_others(start_s))


def test_a_slow_subscriber_sees_the_newest(lab: Lab, record: Record) -> None:
    start_s = time.monotonic()
    behind: list[int] = []
    with nothing_grows(lab), Subscriber(lab.endpoint, [HEALTHY], timeout_s=20) as slow:
        for message, _ in zip(slow, range(8), strict=False):
            newest = lab.witness.masks[HEALTHY][-1]
            behind.append(newest.seq - message.seq)
            lab.witness.next(HEALTHY, time.monotonic() + 0.5)  # slower than the camera
    assert statistics.median(behind) <= 1 and max(behind) <= 5, f"{behind} pictures behind"
    assert_nothing_lost(lab, start_s)
    promise = "gets the newest masks each time, never a queue of old ones"
    record(Row("subscriber: one message in three", promise), lab.check_others(start_s))


def test_two_hundred_joins_a_second_are_served(lab: Lab, record: Record) -> None:
    endpoint = f"tcp://127.0.0.1:{lab.ports()[0]}"
    start_s, rate, num_joined = time.monotonic(), 200, 0
    present: collections.deque[zmq.Socket[bytes]] = collections.deque()
    with nothing_grows(lab):
        while (now_s := time.monotonic() - start_s) < 4.0:
            while num_joined < now_s * rate:
                present.append(zmq.Context.instance().socket(zmq.SUB))
                present[-1].setsockopt(zmq.LINGER, 0)
                present[-1].connect(endpoint)
                present[-1].setsockopt(zmq.SUBSCRIBE, b"")
                num_joined += 1
            while len(present) > 40:
                present.popleft().close()
            present[0].poll(10)
        with Subscriber(lab.endpoint, [HEALTHY], timeout_s=20) as late:
            joined_s = time.monotonic()
            next(iter(late))
            recovered_s = time.monotonic() - joined_s
        num_served = sum(bool(joined.poll(0)) for joined in present)
        for joined in present:
            joined.close()
    assert num_joined > 3.9 * rate and num_served > 0
    assert_nothing_lost(lab, start_s)
    promise = "all served; one that joins then has masks at once"
    record(Row("subscribers: 200 joins a second for 4 s", promise, recovered_s), lab.check_others(start_s))


def test_garbage_on_both_ports_is_dropped(lab: Lab, record: Record) -> None:
    start_s = time.monotonic()
    ports = lab.ports()
    with nothing_grows(lab), Garbage(ports[0]) as at_data, Garbage(ports[1]) as at_control:
        strangers = (at_data, at_control)
        for _ in range(NUM_ROUNDS):
            for stranger in strangers:
                stranger.throw(1)
            time.sleep(2.0 / NUM_ROUNDS)  # faster, and the strangers would only wait for each other
        for stranger in strangers:
            for kind, num in ((zmq.SUB, 40), (zmq.DEALER, 40), (zmq.PUB, 40), (zmq.REQ, 1)):
                stranger.throw_messages(kind, num)
        with Controller(f"tcp://127.0.0.1:{ports[1]}", timeout_s=10) as controller:
            asked_s = time.monotonic()
            controller.ping()
            answered_s = time.monotonic() - asked_s
        lab.witness.next(HEALTHY, time.monotonic())
    assert lab.process.poll() is None
    assert_nothing_lost(lab, start_s)
    num = sum(stranger.num_sent for stranger in strangers)
    promise = "nothing grows, no file stays open; a command among them is answered at once"
    record(Row(f"garbage on both ports, over {num // 100 * 100} times", promise, answered_s), lab.check_others(start_s))
