"""The process that builds: `python -m engines.build.child`, started by `Workshop`.

Owns: this process - its priority, its end with the parent's, its lines on standard output. The main thread builds,
thread `lifeline` waits for the parent. Never: outlives the parent, or prints anything but `Tidings` on standard output.

Standard input: the request, the order and the cache's folder, a line each; then nothing, until the parent closes it or
dies, which ends this process and all that it has started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from engines.build.cache import EngineCache
from engines.build.making import make_plans
from engines.build.request import EngineRequest
from engines.build.shelf import Shelf
from engines.build.tidings import Order, Tell, Tidings

_NICENESS = 10


def run() -> int:
    """0 when all that can be built is built, else 1; what went wrong is the last line."""
    tell = _private_output()
    os.nice(_NICENESS)
    request, order, folder = (sys.stdin.readline() for _ in range(3))
    threading.Thread(target=_wait_for_the_parent, name="lifeline", daemon=True).start()
    try:
        _build(EngineRequest.from_json(request), Order.from_json(order), Path(folder.strip()), tell=tell)
    except Exception as error:
        traceback.print_exc()
        tell(Tidings("failed", text=" ".join(str(error).split()) or type(error).__name__))
        return 1
    return 0


def _build(request: EngineRequest, order: Order, folder: Path, *, tell: Tell) -> None:
    shelf = Shelf(request, cache=EngineCache(folder), targets=order.targets)
    make_plans(shelf, request.network(), order, tell=tell)


def _private_output() -> Tell:
    """Lines go where standard output was; what libraries print goes to standard error."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()  # the builder's threads tell, too

    def tell(tidings: Tidings) -> None:
        with lock:
            lines.write(tidings.to_line())

    return tell


def _wait_for_the_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        continue
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run())
