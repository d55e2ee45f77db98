"""The program sam2-stream with one thread that hangs for good, in a call, once the process gets USR1.

python hanging_daemon.py gpu|pub|control|cam run CONFIG.toml
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from stream.capture import CameraFeeder
from stream.cli import main
from stream.control import ControlThread
from stream.outlet import Outlet
from stream.worker import GpuWorker

CALLS: dict[str, tuple[type, str]] = {  # one that each loop makes at every turn
    "gpu": (GpuWorker, "_loop"),
    "pub": (Outlet, "serve"),
    "control": (ControlThread, "_receive"),
    "cam": (CameraFeeder, "check"),  # the supervisor of the capture threads
}


def hang(owner: type, name: str, told: threading.Event) -> None:
    call = getattr(owner, name)

    def called(*args: Any, **options: Any) -> Any:
        if told.is_set():
            threading.Event().wait()
        return call(*args, **options)

    setattr(owner, name, called)


if __name__ == "__main__":
    told = threading.Event()
    hang(*CALLS[sys.argv[1]], told)
    signal.signal(signal.SIGUSR1, lambda number, frame: told.set())
    sys.exit(main(sys.argv[2:]))
