"""`Workshop`: builds what a TensorRT engine lacks, in a child process, while the daemon works.

Owns: the child (its own process group, nice, ended with this process), what it has said, and a log of what it printed.
One thread uses it: the worker's, or a command's. Never: waits for the child, except briefly in `stop`; builds in this
process; hands out a plan that the gate has not let through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.build.cache import CacheError, EngineCache, PlanUnusable
from engines.build.opening import install_entry
from engines.build.request import EngineRequest
from engines.build.shelf import Shelf, is_suspect
from engines.build.tidings import Order, Tidings
from engines.programmed import ProgrammedEngine
from engines.spec import ProgramKey
from engines.tensorrt import EngineFault

COMMAND = (sys.executable, "-m", "engines.build.child")
_STOP_S = 5.0
# seconds a program, before the first one tells: full TensorRT was never timed here, RTX was (2 cores)
_FIRST_GUESS_S = {"tensorrt": 180.0, "tensorrt-rtx": 20.0}


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """A verified plan in the cache, for `Workshop.install`."""

    key: ProgramKey
    path: Path
    text: str  # how far it is off, in words


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is; `num_done` of `num_programs` are built or refused."""

    num_programs: int = 0
    num_done: int = 0
    program: str = ""
    stage: str = ""
    share: float = 0.0  # of the program at hand
    remaining_s: float = 0.0
    refused: tuple[str, ...] = ()  # name: reason
    error: str = ""  # why the child ended early
    is_running: bool = False


class Workshop:
    """All fields are written by the one thread that uses it."""

    def __init__(
        self,
        request: EngineRequest,
        *,
        order: Order | None = None,
        cache: EngineCache | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._request, self._order = request, order or Order()
        self._cache, self._command = cache or EngineCache(), tuple(command or COMMAND)
        self._shelf: Shelf | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._started_s = 0.0
        self._done: list[ProgramKey] = []
        self._refused: list[str] = []
        self._latest = Tidings("stage")
        self._error = ""
        self._keys: tuple[ProgramKey, ...] = ()

    @property
    def log_path(self) -> Path:
        """What the child and its libraries have printed."""
        return self._cache.folder / "build.log"

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return None if self._child is None else self._child.pid

    @property
    def missing(self) -> tuple[ProgramKey, ...]:
        """What is to be built, in this order. Raises `BackendMissing`, `WeightsError`."""
        shelf, order = self._opened(), self._order
        if not order.again:
            return shelf.missing(order.keys)
        found = {key: shelf.find(key) for key in order.keys}
        return tuple(key for key, one in found.items() if one is None or is_suspect(one[0]))

    def start(self) -> None:
        """Start the child, if anything is missing. Raises `BackendMissing`, `WeightsError`; where the cache cannot be
        used, `progress` has the error.
        """
        assert self._child is None, "a workshop starts once"
        self._keys = self.missing
        if not self._keys:
            return
        try:
            self._cache.make_folders()
        except CacheError as error:
            self._error = str(error)
            return
        self._started_s = time.monotonic()
        order = Order(self._keys, self._order.targets, self._order.again)
        with open(self.log_path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._child.stdin is not None and self._child.stdout is not None, "both are pipes"
        os.set_blocking(self._child.stdout.fileno(), False)
        lines = (self._request.to_json(), order.to_json(), str(self._cache.folder.absolute()))
        with contextlib.suppress(BrokenPipeError):  # it has ended already; `poll` says so
            self._child.stdin.write("".join(f"{line}\n" for line in lines).encode())
            self._child.stdin.flush()

    def poll(self) -> tuple[ReadyPlan, ...]:
        """The plans that have become ready since the last call; never waits."""
        ready = [plan for tidings in self._news() for plan in self._take(tidings)]
        self._notice_end()
        return tuple(ready)

    def install(self, engine: ProgrammedEngine, ready: ReadyPlan) -> bool:
        """Load a plan into the engine, between two turns; False where it cannot be loaded after all."""
        shelf = self._opened()
        found = shelf.find(ready.key)
        if found is None:
            return False
        try:
            install_entry(engine, shelf, ready.key, found=found)
        except (PlanUnusable, EngineFault) as error:
            self._refused.append(f"{ready.key.name}: {error}")
            return False
        return True

    @property
    def progress(self) -> Progress:
        """As of the last `poll`."""
        num_done, share = len(self._done), self._latest.share
        spent = time.monotonic() - self._started_s
        per_program = spent / (num_done + share) if num_done else _FIRST_GUESS_S[self._request.backend]
        is_running = self._child is not None and not self._error
        left = len(self._keys) - num_done - share
        return Progress(
            num_programs=len(self._keys),
            num_done=num_done,
            program="" if self._latest.key is None else self._latest.key.name,
            stage=self._latest.text,
            share=share,
            remaining_s=max(0.0, left * per_program) if is_running else 0.0,
            refused=tuple(self._refused),
            error=self._error,
            is_running=is_running,
        )

    def stop(self) -> None:
        """End the child and all that it has started."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(_STOP_S)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _opened(self) -> Shelf:
        if self._shelf is None:
            self._shelf = Shelf(self._request, cache=self._cache, targets=self._order.targets)
        return self._shelf

    def _news(self) -> list[Tidings]:
        if self._child is None:
            return []
        assert self._child.stdout is not None, "standard output is a pipe"
        while True:
            try:
                block = os.read(self._child.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            self._rest += block
            if not block:
                break
        *lines, self._rest = self._rest.split(b"\n")
        return [Tidings.from_line(line) for line in lines]

    def _take(self, tidings: Tidings) -> list[ReadyPlan]:
        """What one line changes."""
        self._latest = tidings
        if tidings.kind == "failed":
            self._error = tidings.text
        if tidings.kind in ("ready", "refused"):
            assert tidings.key is not None, "these are about a program"
            self._done.append(tidings.key)
            self._latest = Tidings("stage", tidings.key, tidings.text)
        if tidings.kind == "refused":
            self._refused.append(f"{tidings.key.name if tidings.key else ''}: {tidings.text}")
        if tidings.kind != "ready" or tidings.key is None:
            return []
        return [ReadyPlan(tidings.key, Path(tidings.path), tidings.text)]

    def _notice_end(self) -> None:
        code = None if self._child is None else self._child.poll()
        if code is None:
            return
        if code != 0 and not self._error:
            self._error = f"the process that builds ended with code {code}; see {self.log_path}"
        self.stop()
