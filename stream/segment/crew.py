"""`segment_clips`: many videos, one after another or in several processes, each with a tracker of its own.

Owns: the processes, who works on what, and what became of each video. Runs in the main thread; a worker's process runs
one video at a time. Never: lets one bad video end the others, or shares a tracker.

Processes are started anew (spawn), so that each has a device and FFmpeg of its own. One that dies (killed, out of
memory) costs the video that it was at, which the next run of the command goes on with; another process takes its place.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from engines.weights import WeightsError
from stream.device import OptionError
from stream.film import FilmError
from stream.prompt import PromptError
from stream.segment.request import SegmentError, Task
from stream.segment.run import ClipRun, Progress, Summary
from stream.sequence import FootageError, MaskFileError
from stream.tracker import Tracker

RUN_ERRORS = (
    FootageError, MaskFileError, PromptError, SegmentError, FilmError, WeightsError, OptionError, OSError
)  # fmt: skip
WAIT_S = 0.25
OpenTracker = Callable[[], Tracker]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a video: its summary, or what was wrong with it in one line."""

    name: str
    summary: Summary | None
    error: str = ""


Event = Progress | Outcome
Tell = Callable[[Event], None]


def segment_clips(tasks: Sequence[Task], open_tracker: OpenTracker, *, jobs: int, tell: Tell) -> list[Outcome]:
    """All of them, in the order of the tasks. With several jobs `open_tracker` is pickled: a function of a module."""
    if jobs == 1 or len(tasks) == 1:
        opening = functools.cache(open_tracker)
        found = [_segment(task, opening, tell) for task in tasks]
    else:
        found = _Crew(tasks, open_tracker, tell).run(min(jobs, len(tasks)))
    places = {task.name: place for place, task in enumerate(tasks)}
    return sorted(found, key=lambda outcome: places[outcome.name])


def _segment(task: Task, opening: OpenTracker, tell: Tell) -> Outcome:
    try:
        outcome = Outcome(task.name, ClipRun(task, opening, tell).run())
    except RUN_ERRORS as error:
        outcome = Outcome(task.name, None, _text(error))
    tell(outcome)
    return outcome


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _work(connection: Connection, open_tracker: OpenTracker) -> None:
    """A worker's process: tasks in, progress and outcomes out, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends it
    opening = functools.cache(open_tracker)
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the main process is gone
            return
        if task is None:
            return
        _segment(task, opening, connection.send)


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection


class _Crew:
    """Written by the main thread."""

    def __init__(self, tasks: Sequence[Task], open_tracker: OpenTracker, tell: Tell) -> None:
        self._waiting = deque(tasks)
        self._open_tracker, self._tell = open_tracker, tell
        self._at: dict[_Worker, Task] = {}
        self._found: list[Outcome] = []

    def run(self, num_workers: int) -> list[Outcome]:
        """Until every task has an outcome."""
        try:
            for _ in range(num_workers):
                self._start()
            while self._at:
                ready = wait([worker.connection for worker in self._at], WAIT_S)
                for worker in [worker for worker in self._at if worker.connection in ready]:
                    self._listen(worker)
        finally:
            for worker in self._at:
                worker.process.terminate()
        return self._found

    def _start(self) -> None:
        """A worker for the next task, if there is one."""
        if not self._waiting:
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._open_tracker), daemon=True)
        process.start()
        theirs.close()
        self._give(_Worker(process, ours))

    def _give(self, worker: _Worker) -> None:
        if not self._waiting:
            self._at.pop(worker, None)
            worker.connection.send(None)
            return
        self._at[worker] = self._waiting.popleft()
        worker.connection.send(self._at[worker])

    def _listen(self, worker: _Worker) -> None:
        try:
            event: Event = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        self._tell(event)
        if isinstance(event, Outcome):
            self._found.append(event)
            self._give(worker)

    def _bury(self, worker: _Worker) -> None:
        """It died at its task; the others go on."""
        task = self._at.pop(worker)
        worker.process.join(WAIT_S)
        outcome = Outcome(
            task.name, None,
            f"{task.source}: its process ended with code {worker.process.exitcode}, expected 0; "
            "the same command goes on where it was",
        )  # fmt: skip
        self._found.append(outcome)
        self._tell(outcome)
        self._start()
