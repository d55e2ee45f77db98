"""A real HTTP server for one file, on a loopback port, that can be told how to misbehave; one thread per connection."""

from __future__ import annotations

import http.server
import re
import threading
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request is answered; the defaults are those of an honest server."""

    status: int = 200
    content: bytes | None = None  # None: the server's
    announces: int | None = -1  # Content-Length; -1: the true one; None: none
    etag: str = '"v1"'
    date: str = ""
    content_type: str = "application/octet-stream"
    location: str = ""
    break_after: int | None = None  # bytes of the body, then the connection closes
    silent_after: int | None = None  # bytes of the body, then nothing until the server ends
    ignores_range: bool = False
    honours_if_range: bool = True
    shifts_range_by: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request and the status of its answer."""

    path: str
    range_start: int | None
    if_range: str | None
    status: int


class FileServer:
    """Serves `content`; `answers` are used up first, one per request. Connections' threads append to `requests`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.answers: list[Answer] = []
        self.requests: list[Seen] = []
        self.end = threading.Event()
        files = self

        class Connection(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                files.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="http")
        self.site = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.site}/a.pt"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, connection: http.server.BaseHTTPRequestHandler) -> None:
        answer = self.answers.pop(0) if self.answers else Answer()
        content = self.content if answer.content is None else answer.content
        asked = re.fullmatch(r"bytes=(\d+)-", connection.headers.get("Range", ""))
        if_range = connection.headers.get("If-Range")
        start, status = 0, answer.status
        is_current = not answer.honours_if_range or if_range == answer.etag
        if asked and status == 200 and not answer.ignores_range and is_current:
            start, status = int(asked[1]), 206
        if status == 206 and start >= len(content):
            status = 416
        self.requests.append(Seen(connection.path, int(asked[1]) if asked else None, if_range, status))
        shown = replace(answer, status=status, content=content)
        self._send_head(connection, shown, start)
        if status in (200, 206):
            self._send_body(connection, shown, start)

    def _send_head(self, connection: http.server.BaseHTTPRequestHandler, answer: Answer, start: int) -> None:
        content = answer.content or b""
        connection.send_response(answer.status)
        if answer.status == 206:
            first = start + answer.shifts_range_by
            connection.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if answer.status == 416:
            connection.send_header("Content-Range", f"bytes */{len(content)}")
        if answer.announces is not None and answer.status in (200, 206):
            num_bytes = len(content) - start if answer.announces == -1 else answer.announces
            connection.send_header("Content-Length", str(num_bytes))
        optional = {"ETag": answer.etag, "Last-Modified": answer.date, "Location": answer.location}
        for name, value in {**optional, "Content-Type": answer.content_type}.items():
            if value:
                connection.send_header(name, value)
        connection.end_headers()

    def _send_body(self, connection: http.server.BaseHTTPRequestHandler, answer: Answer, start: int) -> None:
        body = (answer.content or b"")[start:]
        limits = [limit for limit in (answer.break_after, answer.silent_after) if limit is not None]
        try:
            connection.wfile.write(body[: min([len(body), *limits])])
            connection.wfile.flush()
        except ConnectionError:
            return  # the client has seen enough
        if answer.silent_after is not None:
            self.end.wait(10)
