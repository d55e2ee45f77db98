"""What do keys cost? Messages a second and CPU per message over CURVE, beside the same without, in the same run.

One publisher and one subscriber on this machine over TCP, each ZeroMQ thread included: `cpu_us` is the processor time
of both sides per message. Sizes: masks of a few objects (1.4 KB), a JPEG picture (100 KB), a raw picture (2 MB). The
publisher sends as fast as the subscriber reads, a window of messages ahead. The last line is one JSON object.

    python benchmarks/curve.py [--seconds 2] [--rounds 5] [--save FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import conclude
from stream.doors import Doors
from stream.keys import ClientKeys, KeyFolder, KeyRing

SIZES = {"masks": 1_400, "jpeg": 100_000, "raw": 2_000_000}
WINDOW_BYTES, MAX_WINDOW = 4_000_000, 64


@contextlib.contextmanager
def connected(ring: KeyRing, keys: ClientKeys | None) -> Iterator[tuple[Doors, zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """A publishing and a subscribed socket, in contexts of their own as in two programs."""
    with (
        zmq.Context() as here,
        zmq.Context() as there,
        here.socket(zmq.XPUB) as sender,
        there.socket(zmq.SUB) as reader,
    ):
        for socket in (sender, reader):
            socket.setsockopt(zmq.LINGER, 0)
            socket.set_hwm(0)  # the window bounds what is on its way
        reader.setsockopt(zmq.RCVTIMEO, 10_000)
        doors = Doors(sender, "view", keys=ring)
        doors.open(["tcp://0.0.0.0:*" if keys else "tcp://127.0.0.1:*"])
        reader.setsockopt(zmq.SUBSCRIBE, b"")
        if keys:
            keys.apply(reader)
        reader.connect(doors.endpoints[0].replace("0.0.0.0", "127.0.0.1"))
        while not sender.poll(10):
            doors.serve()
        sender.recv()
        yield doors, sender, reader
        doors.close()


def measured(
    sockets: tuple[Doors, zmq.Socket[bytes], zmq.Socket[bytes]], num_bytes: int, seconds: float
) -> tuple[float, float]:
    """Messages a second, and microseconds of processor time per message."""
    _, sender, reader = sockets
    message = os.urandom(num_bytes)
    window = max(1, min(MAX_WINDOW, WINDOW_BYTES // num_bytes))
    for _ in range(window):
        sender.send(message)
    num, started, cpu_s = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        received = reader.recv()
        sender.send(message)
        num += 1
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    assert received == message
    return num / took_s, cpu_s / num * 1e6


def row(name: str, ring: KeyRing, keys: ClientKeys, options: argparse.Namespace) -> dict[str, Any]:
    """Plain and CURVE in turn; the median of the rounds, and of their ratios."""
    rounds = []
    for _ in range(options.rounds):
        pair = []
        for given in (None, keys):
            with connected(ring, given) as sockets:
                pair.append(measured(sockets, SIZES[name], options.seconds))
        rounds.append(pair)
    plain, curve = ([pair[index] for pair in rounds] for index in (0, 1))
    return {
        "message": name, "bytes": SIZES[name],
        "plain_per_s": round(statistics.median(rate for rate, _ in plain)),
        "curve_per_s": round(statistics.median(rate for rate, _ in curve)),
        "plain_cpu_us": round(statistics.median(cpu for _, cpu in plain), 1),
        "curve_cpu_us": round(statistics.median(cpu for _, cpu in curve), 1),
        "cpu_ratio": round(statistics.median(pair[1][1] / pair[0][1] for pair in rounds), 2),
        "rate_ratio": round(statistics.median(pair[1][0] / pair[0][0] for pair in rounds), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        keys = KeyFolder(Path(folder))
        client, ring = ClientKeys.load(keys.new("benchmark", "view")), KeyRing.open(folder)
        for name in SIZES:
            rows.append(row(name, ring, client, options))
            print(rows[-1], flush=True)
    result = {
        "benchmark": "curve", "rows": rows, "libzmq": zmq.zmq_version(), "seconds": options.seconds,
        "rounds": options.rounds, "machine": platform.machine(), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1), "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    conclude(result, options.save)


if __name__ == "__main__":
    main()
