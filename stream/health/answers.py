"""What `/live /ready /status /metrics` say: a request's bytes in, a response's bytes out.

Owns: the paths, the reasons why the daemon is not ready, and which requests are refused. Thread: `http` alone. Never:
touches a socket, or obeys anything: it only reads.

    GET /live     200 while every loop turns, else 503 and the names of those that hang
    GET /ready    200 while the model is loaded and a camera produces (or none is configured), else 503 and why not
    GET /status   everything that is known, as JSON (`stream.status.Status`)
    GET /metrics  the same as figures, for Prometheus

HEAD works like GET; another method gets 405, another path 404. A body is not read.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from stream.metrics import PRODUCING, Metrics
from stream.status import Status

MAX_LINE_BYTES = 2048
MAX_REQUEST_BYTES = 8192  # request line and headers
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
PHRASES = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 414: "URI Too Long",
    431: "Request Header Fields Too Large", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is bytes."""

    code: int
    body: bytes
    content_type: str = TEXT

    def encode(self, *, is_head: bool = False) -> bytes:
        """The whole response; `is_head` leaves the body out."""
        lines = [
            f"HTTP/1.1 {self.code} {PHRASES[self.code]}",
            f"Date: {email.utils.formatdate(usegmt=True)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET, HEAD"] if self.code == 405 else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if is_head else self.body)


class Answers:
    """Holds nothing but where to ask; `status` and `hanging` are asked anew for each request."""

    def __init__(
        self, status: Callable[[], Status], metrics: Metrics, hanging: Callable[[], Sequence[str]] | None = None
    ) -> None:
        self._status = status
        self._metrics = metrics
        self._hanging = hanging
        self._paths: dict[str, Callable[[str], Answer]] = {
            "/live": self._live, "/ready": self._ready, "/status": self._tell, "/metrics": self._measure,
        }  # fmt: skip

    def answer(self, received: bytes) -> bytes | None:
        """The response to what a client said so far; None while the request is not complete."""
        end = re.search(rb"\r?\n\r?\n", received)
        line = re.match(rb"[^\r\n]*", received)
        assert line is not None, "the pattern matches every text"
        if len(line[0]) > MAX_LINE_BYTES:
            return _say(414, f"expected a request line of at most {MAX_LINE_BYTES} bytes").encode()
        if end is None and len(received) <= MAX_REQUEST_BYTES:
            return None
        if end is None or end.end() > MAX_REQUEST_BYTES:
            return _say(431, f"expected headers of at most {MAX_REQUEST_BYTES} bytes").encode()
        head = received[: end.start()].decode("latin-1")
        method = head.partition(" ")[0]
        return self._answer(head).encode(is_head=method == "HEAD")

    def _answer(self, head: str) -> Answer:
        line, *headers = re.split(r"\r?\n", head)
        match = re.fullmatch(r"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/(\d)\.\d", line)
        if match is None:
            return _say(400, "expected a request such as: GET /live HTTP/1.1")
        method, target, version = match.groups()
        path = target.partition("?")[0]
        if version != "1":
            return _say(505, "expected HTTP/1.1")
        if path not in self._paths:
            return _say(404, f"expected one of {' '.join(self._paths)}")
        if method not in ("GET", "HEAD"):
            return _say(405, "expected GET or HEAD")
        fields = [header.partition(":") for header in headers]
        return self._paths[path](",".join(value for name, _, value in fields if name.lower() == "accept"))

    def _live(self, accept: str) -> Answer:
        if self._hanging is None:
            hanging: Sequence[str] = () if self._status().is_live else ["the daemon"]
        else:
            hanging = self._hanging()
        return _say(503, f"hanging: {', '.join(hanging)}") if hanging else _say(200, "live")

    def _ready(self, accept: str) -> Answer:
        status = self._status()
        said = "ready" if status.is_ready else f"not ready: {'; '.join(why_not_ready(status))}"
        return _say(200 if status.is_ready else 503, said + (f"; problem: {status.problem}" if status.problem else ""))

    def _tell(self, accept: str) -> Answer:
        return Answer(200, msgspec.json.format(msgspec.json.encode(self._status()), indent=2) + b"\n", JSON)

    def _measure(self, accept: str) -> Answer:
        body, content_type = self._metrics.exposition(accept)
        return Answer(200, body, content_type)


def why_not_ready(status: Status) -> list[str]:
    """For a person; at least one reason."""
    if not status.device:
        return ["the model is not loaded"]
    silent = [camera for camera in status.cameras if camera.condition not in PRODUCING]
    if status.cameras and len(silent) == len(status.cameras):
        return [f"{camera.name} is {camera.condition} ({camera.reason or 'no reason known'})" for camera in silent]
    if not status.is_live:
        return ["a thread hangs, see /live"]
    return [f"the model is on {status.device}, which is not where it should be"]


def _say(code: int, text: str) -> Answer:
    return Answer(code, (" ".join(text.split()) + "\n").encode("utf-8", "replace"))
