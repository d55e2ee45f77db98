"""A stranger who sends garbage to a ZeroMQ port: raw bytes, broken greetings, false lengths, wrong sockets, silence."""

from __future__ import annotations

import random
import socket
from typing import Self

import msgspec
import zmq

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL" + b"\0" * 16 + b"\0" + b"\0" * 31
READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"
NUM_IDLE = 50


def raw_rounds(rounds: int) -> list[bytes]:
    """What a port scanner, a browser and a hostile peer say first."""
    chance = random.Random(7)
    lengths = [b"\x02" + (2**62).to_bytes(8, "big"), b"\x00\xff" + b"x" * 255, b"\x06" + (2**31).to_bytes(8, "big")]
    said = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", GREETING[:5], GREETING, GREETING + READY[:9]]
    said += [GREETING + READY + length for length in lengths]
    said += [GREETING + READY + b"\x04\x09\x09SUBSCRIBE" * 50, GREETING + chance.randbytes(4096)]
    return said * rounds + [chance.randbytes(chance.randrange(1, 65536)) for _ in range(5 * rounds)]


class Garbage:
    """Sends it, and keeps idle connections open until `close`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(NUM_IDLE)]
        self.num_sent = NUM_IDLE

    def throw(self, rounds: int) -> None:
        for said in raw_rounds(rounds):
            with socket.create_connection(("127.0.0.1", self._port), 5) as stranger:
                stranger.setblocking(False)
                try:
                    stranger.send(said)
                except OSError:
                    continue  # hung up on us, as it should
                finally:
                    self.num_sent += 1

    def throw_messages(self, kind: int, num: int) -> None:
        """Well-formed ZeroMQ from the wrong kind of socket, or with a body that means nothing."""
        chance = random.Random(8)
        with zmq.Context.instance().socket(kind) as peer:
            peer.setsockopt(zmq.LINGER, 500)
            peer.connect(f"tcp://127.0.0.1:{self._port}")
            if kind == zmq.SUB:
                for _ in range(num):
                    peer.setsockopt(zmq.SUBSCRIBE, chance.randbytes(chance.randrange(1, 900)))
                return
            for index in range(num):
                self.num_sent += 1
                body = chance.randbytes(chance.randrange(0, 3000))
                parts = [[body], [b"", body], [body] * 9, [msgspec.msgpack.encode({"version": 1, "op": "ping"}), body]]
                try:
                    peer.send_multipart(parts[index % len(parts)], zmq.DONTWAIT)
                except zmq.Again:
                    return  # hung up on us, before the next message

    def close(self) -> None:
        for idle in self._idle:
            idle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
