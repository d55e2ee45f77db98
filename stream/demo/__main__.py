"""The demo's other process: a daemon as `sam2-stream run` makes it, and the lifeline that ends it with the demo.

Owns: the process's standard input and output. The daemon runs in the main thread, the lifeline in a thread of its own.
Never: goes on when its standard input has closed, or draws anything.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from stream.config import Config
from stream.daemon import Daemon

LOOK_LIMIT_S = 0.25


class Lifeline:
    """Tells the endpoint on standard output, then waits for the end of standard input and stops the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.ready = threading.Event()
        self._daemon = daemon
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait for that."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        publisher = self._daemon.publisher
        while not (publisher.ready.wait(LOOK_LIMIT_S) or self._stopping.is_set()):
            self._look(0.0)
        with contextlib.suppress(BrokenPipeError):  # the demo has gone: standard input tells that too
            print(*publisher.endpoints[:1], flush=True)
        self.ready.set()
        while not (self._look(LOOK_LIMIT_S) or self._stopping.is_set()):
            continue

    def _look(self, limit_s: float) -> bool:
        """Whether standard input has closed; nothing ever comes from it."""
        has_closed = bool(select.select([sys.stdin.fileno()], [], [], limit_s)[0])
        if has_closed:
            self._daemon.stop()
        return has_closed


def main() -> int:
    """Run the daemon that standard input describes; the result is its exit code."""

    def from_text(kind: type[Any], text: Any) -> Any:
        assert kind is Path, f"the only value of a configuration that JSON does not know is a path, not {kind}"
        return Path(text)

    logging.basicConfig(level=logging.ERROR, format="sam2-stream: %(message)s")
    daemon = Daemon(msgspec.json.decode(sys.stdin.buffer.readline(), type=Config, dec_hook=from_text))
    lifeline = Lifeline(daemon)
    lifeline.start()
    code = daemon.run()
    lifeline.stop()
    lifeline.join(1.0)
    return code


if __name__ == "__main__":
    sys.exit(main())
