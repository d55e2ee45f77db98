"""The control thread: commands come in, the threads that obey them answer, replies go out.

Owns: the control socket, which requests wait for which client's answer, and the counts by outcome. Thread: `control`
runs the loop; any thread may answer a command (`Command.answer`), which never blocks. Never: obeys a command itself,
makes an obeying thread wait, or trusts a byte: what comes is valid as `stream.command` says, or goes no further.

Bounds: 50 messages a second and 16 unanswered requests per client ("limited", "busy"), 256 unanswered requests in
all ("busy"), 64 in each inbox ("busy"), about 6000 messages a second in all (the rest waits in the senders' buffers).
A command that nobody takes for four seconds is taken back ("busy"); one that was taken and not answered for thirty
seconds is forgotten.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from stream.admission import MAX_WAITING, Admission, Pace
from stream.command import (
    CODES,
    AnyRequest,
    CameraAdd,
    CameraRequest,
    GetStatus,
    ObjectRequest,
    Ping,
    Prompted,
    Reply,
)
from stream.command_codec import CommandError, decode_request, encode_reply, one_line, sender_id
from stream.config import redact
from stream.control_socket import ControlSocket, Letter
from stream.doors import BindError
from stream.inbox import Command, Inbox
from stream.keys import KeyRing
from stream.outbox import CAPACITY, Outbox
from stream.status import Status

log = logging.getLogger(__name__)

IDLE_LIMIT_MS = 150.0  # the loop moves at least this often: the watchdog reads `num_loops`
TAKE_LIMIT_NS = 4_000_000_000
ANSWER_LIMIT_NS = 30_000_000_000
STATUS_AGE_NS = 20_000_000
REPORT_NS = 10_000_000_000
MAX_NAMES = 20
LATE = "nobody obeyed this within 4 s, it was dropped; expected the daemon to keep up, try again"
SILENT = "no answer within 30 s; it may have been obeyed"


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where commands go, and whom the control thread asks; all from any thread, and never blocking."""

    objects: Inbox[ObjectRequest]
    cameras: Inbox[CameraRequest]
    status: Callable[[], Status]
    cameras_known: Callable[[], Collection[str]]
    wire_schemes: tuple[str, ...] = ("rtsp", "rtsps", "https")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that waits for its answer."""

    letter: Letter
    request: ObjectRequest | CameraRequest
    due_ns: int


class ControlThread:
    """Started and stopped by the daemon; `control` writes every field, the outbox and `_stopping` excepted.

    `ready` is set when every endpoint is bound (`endpoints` then holds the real ports), or when that failed
    (`error`). `num_loops` and `num_commands` may be read from any thread.
    """

    def __init__(self, bind: Sequence[str], rooms: Rooms, *, keys: KeyRing | None = None) -> None:
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.endpoints: tuple[str, ...] = ()
        self.num_loops = 0
        self._bind = tuple(bind)
        self._rooms, self._keys = rooms, keys
        self._outcomes = dict.fromkeys(("ok", *CODES, "malformed"), 0)  # never another key
        self._outbox = Outbox()
        self._admission, self._pace = Admission(), Pace()
        self._tickets: dict[int, Ticket] = {}  # by number, oldest first
        self._next_ticket = 0
        self._status: tuple[int, Status] | None = None  # when asked, what was told
        self._run_id = 0  # 0 = not known yet
        self._reported: tuple[int, dict[str, int]] = (0, dict(self._outcomes))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    @property
    def num_commands(self) -> Mapping[str, int]:
        """Messages so far by outcome: "ok", a reply's code, or "malformed"."""
        return dict(self._outcomes)

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return when the endpoints are bound; raise what prevented it."""
        if not self.ready.wait(timeout_s):
            raise TimeoutError(f"control on {', '.join(self._bind)} is not ready after {timeout_s} s")
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Tell those who wait, then end; does not wait for that."""
        self._stopping.set()
        self._outbox.wake()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as exc:
            self.error = exc
            log.error("control: %s", exc, exc_info=not isinstance(exc, BindError))
        finally:
            self._outbox.close()
            self.ready.set()

    def _serve(self) -> None:
        socket = ControlSocket(self._bind, fileno=self._outbox.open(), keys=self._keys)
        try:
            self.endpoints = socket.endpoints
            self.ready.set()
            while not self._stopping.is_set():
                self.num_loops += 1
                pause_ns = self._pace.wait_ns(time.monotonic_ns())  # until then only answers are served
                socket.wait(pause_ns / 1e6 or IDLE_LIMIT_MS, read=not pause_ns)
                self._send_answers(socket)
                self._give_up(socket)
                self._receive(socket)
                self._report()
            self._send_answers(socket)
            for number in tuple(self._tickets):
                self._finish(socket, number, _refusal("stopping", "the daemon ends"))
        finally:
            socket.close()

    # --- coming in ---------------------------------------------------------------------------------------------------

    def _receive(self, socket: ControlSocket) -> None:
        """Serve what came, no faster than its pace."""
        while not self._pace.wait_ns(time.monotonic_ns()):
            letter = socket.take()
            if letter is None:
                return
            self._pace.note(len(letter.payload))
            self._serve_letter(socket, letter)

    def _serve_letter(self, socket: ControlSocket, letter: Letter) -> None:
        now_ns = time.monotonic_ns()
        if not self._admission.admit(letter.client, now_ns):
            request_id = sender_id(letter.payload)
            self._outcomes["limited"] += 1
            if request_id is not None:
                self._reply(socket, letter, _refusal("limited", "expected at most 50 commands a second", request_id))
            return
        try:
            request = decode_request(letter.payload)
        except CommandError as exc:
            self._outcomes["malformed"] += 1
            if exc.id is not None:
                self._reply(socket, letter, _refusal("refused", str(exc), exc.id))
            return
        reply = self._answer(request, letter, now_ns)
        if reply is not None:
            self._count(reply)
            self._reply(socket, letter, msgspec.structs.replace(reply, id=request.id))

    def _answer(self, request: AnyRequest, letter: Letter, now_ns: int) -> Reply | None:
        """The reply to what needs nobody else; None where another thread will answer."""
        if isinstance(request, Ping):
            return Reply()
        if isinstance(request, GetStatus):
            return Reply(status=self._ask_status(now_ns))
        return self._check(request, now_ns) or self._hand_on(request, letter, now_ns)

    def _check(self, request: ObjectRequest | CameraRequest, now_ns: int) -> Reply | None:
        """What is wrong with a request, as far as this thread can tell."""
        if isinstance(request, CameraAdd):
            return _check_source(request.source, self._rooms.wire_schemes)
        names = self._rooms.cameras_known()
        if request.camera not in names:
            shown = ", ".join(sorted(names)[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
            return _refusal("unknown", f"camera {request.camera}: expected one of: {shown or '(there is none)'}")
        if isinstance(request, Prompted) and request.seen is not None and request.seen.run:
            run = self._ask_status(now_ns).run
            if run and run != request.seen.run:
                return _refusal("stale", f"the picture is of run {request.seen.run}, expected one of run {run}")
        return None

    def _hand_on(self, request: ObjectRequest | CameraRequest, letter: Letter, now_ns: int) -> Reply | None:
        if len(self._tickets) >= CAPACITY:
            return _refusal("busy", f"{CAPACITY} requests wait for their answers, expected fewer; try again")
        if not self._admission.begin(letter.client):
            return _refusal("busy", f"{MAX_WAITING} of your requests wait for their answers, expected fewer")
        number, self._next_ticket = self._next_ticket, self._next_ticket + 1
        answer = functools.partial(self._outbox.put, number)
        self._tickets[number] = Ticket(letter, request, now_ns + ANSWER_LIMIT_NS)
        if isinstance(request, CameraRequest):
            is_taken = self._rooms.cameras.put(Command(request, answer))
        else:
            is_taken = self._rooms.objects.put(Command(request, answer))
        if is_taken:
            return None
        del self._tickets[number]
        self._admission.end(letter.client)
        return _refusal("busy", "too many commands wait, expected fewer; try again")

    # --- going out ---------------------------------------------------------------------------------------------------

    def _send_answers(self, socket: ControlSocket) -> None:
        answers = self._outbox.take()
        for number, reply in answers:
            self._finish(socket, number, reply)
        if answers:
            self._status = None  # who was told that it is done must not be told how it was before

    def _give_up(self, socket: ControlSocket) -> None:
        """Take back what nobody obeys, and forget what nobody answers."""
        for inbox in (self._rooms.objects, self._rooms.cameras):
            for command in inbox.take_late(TAKE_LIMIT_NS):
                command.answer(_refusal("busy", LATE))
        now_ns = time.monotonic_ns()
        for number in [number for number, ticket in self._tickets.items() if ticket.due_ns <= now_ns]:
            self._finish(socket, number, _refusal("busy", SILENT))

    def _finish(self, socket: ControlSocket, number: int, reply: Reply) -> None:
        ticket = self._tickets.pop(number, None)
        if ticket is None:  # it was given up before, or answered twice
            return
        self._admission.end(ticket.letter.client)
        self._count(reply)
        self._reply(socket, ticket.letter, msgspec.structs.replace(reply, id=ticket.request.id))
        level = logging.INFO if reply.ok else logging.DEBUG
        what = f"{type(ticket.request).__name__} {ticket.request.camera}"
        log.log(level, "control: %s from %s: %s", what, ticket.letter.peer, reply.error or "done")

    def _reply(self, socket: ControlSocket, letter: Letter, reply: Reply) -> None:
        self._run_id = self._run_id or self._ask_status(time.monotonic_ns()).run
        reply = msgspec.structs.replace(reply, run=self._run_id, error=one_line(reply.error))
        socket.send(letter.parts, encode_reply(reply))

    def _count(self, reply: Reply) -> None:
        self._outcomes["ok" if reply.ok else reply.code if reply.code in CODES else "refused"] += 1

    def _ask_status(self, now_ns: int) -> Status:
        """The daemon's status, at most a fiftieth of a second old: gathering it takes time."""
        if self._status is None or now_ns - self._status[0] > STATUS_AGE_NS:
            self._status = now_ns, self._rooms.status()
        return self._status[1]

    def _report(self) -> None:
        """One line for all that was not obeyed in ten seconds: nobody shall fill the log."""
        now_ns, (reported_ns, before) = time.monotonic_ns(), self._reported
        if now_ns - reported_ns < REPORT_NS:
            return
        self._reported = now_ns, dict(self._outcomes)
        more = {code: num - before[code] for code, num in self._outcomes.items() if code != "ok" and num > before[code]}
        if more:
            log.warning("control: not obeyed: %s", ", ".join(f"{num} {code}" for code, num in more.items()))


def _refusal(code: str, text: str, request_id: str = "") -> Reply:
    return Reply(id=request_id, ok=False, code=code, error=text)


def _check_source(source: str, schemes: Collection[str]) -> Reply | None:
    """Only the schemes that the configuration allows; the text says nothing about what is there."""
    scheme, separator, _ = source.partition("://")
    if separator and scheme.lower() in schemes:
        return None
    allowed = ", ".join(f"{name}://" for name in schemes) or "no source at all over the control socket"
    return _refusal("refused", f"source '{redact(source)[:100]}': expected {allowed}")
