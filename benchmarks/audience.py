"""Subscribers in a process of their own, for benchmarks: when did `recv` return, for each of them and each message?

    python benchmarks/audience.py ENDPOINT COUNT FILE      # ends when its standard input does

Prints "ready" when all have heard from the publisher. FILE (.npz) gets: `subscriber_m`, `message_m`, `received_ns_m`,
and the messages themselves, one after the other in `data`, with their ends in `ends`.
"""

from __future__ import annotations

import select
import sys
import time

import numpy as np
import zmq

Arrival = tuple[int, bytes, int]


def open_sockets(endpoint: str, count: int) -> list[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    sockets = [context.socket(zmq.SUB) for _ in range(count)]
    for socket in sockets:
        socket.setsockopt(zmq.RCVHWM, 4096)
        for topic in (b"masks/", b"info\0"):
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(endpoint)
    return sockets


def listen(sockets: list[zmq.Socket[bytes]]) -> list[Arrival]:
    """Every wait ends with one `recv` a socket that is readable; nothing is looked at before the clock is."""
    poller, arrivals, heard = zmq.Poller(), [], set()
    index_of = {socket: index for index, socket in enumerate(sockets)}
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while True:
        ready = [socket for socket, _ in poller.poll(1000) if socket in index_of]
        news = [(index_of[socket], socket.recv(), time.monotonic_ns()) for socket in ready]
        if len(heard) < len(sockets):
            heard |= {index for index, payload, _ in news if payload.startswith(b"info\0")}
            if len(heard) == len(sockets):
                print("ready", flush=True)
        arrivals += [arrival for arrival in news if arrival[1].startswith(b"masks/")]
        if not ready and select.select([sys.stdin], [], [], 0)[0]:
            return arrivals


def main() -> None:
    endpoint, count, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    arrivals = listen(open_sockets(endpoint, count))
    known: dict[bytes, int] = {}
    messages = [known.setdefault(payload, len(known)) for _, payload, _ in arrivals]
    np.savez(
        file,
        subscriber_m=np.array([index for index, _, _ in arrivals], np.int32),
        message_m=np.array(messages, np.int64),
        received_ns_m=np.array([now_ns for _, _, now_ns in arrivals], np.int64),
        data=np.frombuffer(b"".join(known), np.uint8),
        ends=np.cumsum([len(payload) for payload in known]),
    )


if __name__ == "__main__":
    main()
