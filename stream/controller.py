"""The reference controller: commands to a daemon, typed, each answered or timed out; for `with` and for asyncio.

Owns: the DEALER socket of one `Controller` or `AsyncController`. Thread: the one that uses it; one is not shared.
Never: imports torch, cv2 or av, sends a command twice, or takes a late reply for another command's.

    from stream.client import Subscriber
    from stream.controller import Controller, control_endpoint

    with Subscriber("tcp://127.0.0.1:5560", ["door"]) as subscriber:
        message = next(iter(subscriber))  # the picture that the person sees
        with Controller(control_endpoint(subscriber.endpoint, subscriber.info)) as controller:
            reply = controller.add("door", points=[(320, 240)], label="cup", seen=message)
            controller.refine("door", reply.object_id, points=[(300, 200, 0)], seen=message)

`reply.id` stands in `requests` of the first MasksMessage that shows the effect. A command that was refused raises
`CommandRefused`; `TimeoutError` means that nobody answered: it may have been obeyed all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Awaitable
from typing import NoReturn, Self

import msgspec
import zmq

from stream import command
from stream.command import MAX_REPLY_BYTES, MAX_REQUEST_BYTES, Reply, Request, Seen
from stream.command_codec import CommandError, decode_reply, encode_request
from stream.keys import ClientKeys
from stream.knock import why_silent
from stream.message import Info
from stream.status import Status
from stream.vocabulary import Commands

__all__ = ["AsyncController", "CommandRefused", "Controller", "Reply", "Seen", "Status", "control_endpoint"]

WILDCARDS = ("*", "0.0.0.0", "[::]")
OPTIONS = {
    zmq.LINGER: 0, zmq.MAXMSGSIZE: MAX_REPLY_BYTES, zmq.SNDHWM: 128, zmq.RCVHWM: 128, zmq.TCP_KEEPALIVE: 1,
    zmq.IMMEDIATE: 1,  # a command waits here, not in a queue that outlives its timeout
    zmq.RECONNECT_IVL: 100, zmq.RECONNECT_IVL_MAX: 400,
    zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000, zmq.HEARTBEAT_TTL: 4000,
}  # fmt: skip


class CommandRefused(Exception):
    """The daemon does not obey; `code` says in a word why, as the table in `stream.command` lists them."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.error or reply.code)
        self.reply = reply
        self.code = reply.code


class Line:
    """The socket, and what could not be sent yet because nobody is there. Used by one thread."""

    def __init__(self, endpoint: str, keys: ClientKeys | None) -> None:
        self.endpoint = endpoint
        self.num_unreadable = 0
        self._keys = keys
        self._unsent: dict[str, bytes] = {}  # by id, oldest first
        self._name, self._num_requests = secrets.token_hex(6), 0
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        try:
            for option, value in OPTIONS.items():
                self._socket.setsockopt(option, value)
            self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
            if keys is not None:
                keys.apply(self._socket)
            self._socket.connect(endpoint)
        except (zmq.ZMQError, TypeError) as exc:
            self._socket.close()
            raise ValueError(f"endpoint {endpoint!r}, expected tcp://HOST:PORT or ipc://PATH") from exc
        self.fileno = int(self._socket.getsockopt(zmq.FD))

    def put(self, request: Request) -> str:
        """Send when somebody is there; the id that the reply will have."""
        self._num_requests += 1
        request_id = f"{self._name}-{self._num_requests}"
        payload = encode_request(msgspec.structs.replace(request, id=request_id))
        if len(payload) > MAX_REQUEST_BYTES:
            raise ValueError(f"command of {len(payload)} bytes, expected at most {MAX_REQUEST_BYTES}")
        self._unsent[request_id] = payload
        return request_id

    def forget(self, request_id: str) -> None:
        """Nobody waits for this reply any more; what was not sent will not be."""
        self._unsent.pop(request_id, None)

    def serve(self) -> list[Reply]:
        """Send what can be sent; the replies that came. Afterwards `fileno` wakes for whatever is next."""
        replies: list[Reply] = []
        while events := self._events():
            try:
                if events & zmq.POLLOUT:
                    self._send(next(iter(self._unsent)))
                else:
                    replies.append(decode_reply(self._socket.recv_multipart(zmq.DONTWAIT)[-1]))
            except CommandError:
                self.num_unreadable += 1
            except zmq.Again:  # the daemon went away between the two
                continue
        return replies

    def _send(self, request_id: str) -> None:
        self._socket.send(self._unsent[request_id], zmq.DONTWAIT)
        del self._unsent[request_id]

    def _events(self) -> int:
        """What can be done now. Asking is what makes `fileno` wake anew: it wakes once for each change."""
        wanted = zmq.POLLIN | zmq.POLLOUT if self._unsent else zmq.POLLIN
        return int(self._socket.getsockopt(zmq.EVENTS)) & wanted

    def wait(self, limit_s: float) -> None:
        """Until there is something for `serve` to do, or the limit passes."""
        events = zmq.POLLIN | zmq.POLLOUT if self._unsent else zmq.POLLIN
        self._socket.poll(int(limit_s * 1000) + 1, events)

    def why(self) -> str:
        """Why nobody answers, as far as one try to be let in tells. Takes up to a second; any thread."""
        return why_silent(self.endpoint, keys=self._keys, socket_type=zmq.DEALER)

    def fail(self, timeout_s: float, why: str) -> NoReturn:
        if self._keys is not None:  # ZeroMQ asks only once when a key is refused; it may be let in by now
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self.endpoint)
            self._socket.connect(self.endpoint)
        unreadable = f"; {self.num_unreadable} replies could not be read" if self.num_unreadable else ""
        expected = why or "expected a daemon that takes commands there"
        raise TimeoutError(f"no answer from {self.endpoint} for {timeout_s:g} s, {expected}{unreadable}")

    def close(self) -> None:
        self._socket.close()


class Controller(Commands[Reply]):
    """Commands that wait for their replies, each at most `timeout_s`. A restarted daemon is found again."""

    def __init__(self, endpoint: str, *, keys: ClientKeys | None = None, timeout_s: float = 5.0) -> None:
        self.endpoint, self.timeout_s = endpoint, timeout_s
        self._line = Line(endpoint, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._line.close()

    def status(self) -> Status:
        return _status(self._ask(command.GetStatus()))

    def _ask(self, request: Request) -> Reply:
        request_id, deadline = self._line.put(request), time.monotonic() + self.timeout_s
        try:
            while (reply := self._find(request_id)) is None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self._line.fail(self.timeout_s, self._line.why())
                self._line.wait(left_s)
        finally:
            self._line.forget(request_id)
        return _obeyed(reply)

    def _find(self, request_id: str) -> Reply | None:
        """This request's reply; late ones of earlier requests are dropped."""
        return next((reply for reply in self._line.serve() if reply.id == request_id), None)


class AsyncController(Commands[Awaitable[Reply]]):
    """The same for asyncio: `await controller.add(...)`, also several at a time, without blocking the loop."""

    def __init__(self, endpoint: str, *, keys: ClientKeys | None = None, timeout_s: float = 5.0) -> None:
        self.endpoint, self.timeout_s = endpoint, timeout_s
        self._line = Line(endpoint, keys)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, asyncio.Future[Reply]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._leave()
        self._line.close()

    async def status(self) -> Status:
        return _status(await self._ask(command.GetStatus()))

    async def _ask(self, request: Request) -> Reply:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._leave()
            self._loop = loop
            loop.add_reader(self._line.fileno, self._serve)
        request_id = self._line.put(request)
        self._waiting[request_id] = loop.create_future()
        self._serve()
        try:
            return _obeyed(await asyncio.wait_for(self._waiting[request_id], self.timeout_s))
        except TimeoutError:
            self._line.fail(self.timeout_s, await asyncio.to_thread(self._line.why))
        finally:
            self._line.forget(request_id)
            del self._waiting[request_id]

    def _serve(self) -> None:
        for reply in self._line.serve():
            waiting = self._waiting.get(reply.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def _leave(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._line.fileno)
        self._loop = None


def control_endpoint(endpoint: str, info: Info | None) -> str:
    """Where the daemon that publishes on `endpoint` takes commands: on the same host, at the port that it told."""
    told = info.control if info is not None else None
    if not told:
        raise ValueError(f"{endpoint} does not say where it takes commands, expected a daemon with control endpoints")
    host = re.fullmatch(r"tcp://(.+):[^:]*", endpoint)
    port = re.fullmatch(r"tcp://(.+):(\d+)", told)
    if port is None:
        return told
    if host is None:  # published on this machine
        return f"tcp://{'127.0.0.1' if port[1] in WILDCARDS else port[1]}:{port[2]}"
    return f"tcp://{host[1]}:{port[2]}"


def _obeyed(reply: Reply) -> Reply:
    if not reply.ok:
        raise CommandRefused(reply)
    return reply


def _status(reply: Reply) -> Status:
    if reply.status is None:
        raise CommandRefused(msgspec.structs.replace(reply, ok=False, error="the reply holds no status"))
    return reply.status
