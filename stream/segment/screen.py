"""What is shown while videos are processed: bars with the time left on a terminal, else a line now and then.

Owns: the terminal while it is open. Runs in the main thread. Never: writes to standard output where that is no
terminal but lines for people who read logs.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stream.segment.crew import Outcome
from stream.segment.run import Progress as ClipProgress

LINE_EVERY_S = 10.0


class Screen:
    """Written by the main thread."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=self._console, transient=True,
        )  # fmt: skip
        self._ids: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # when it was first heard of, and how far it was
        self._said: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, event: ClipProgress | Outcome) -> None:
        """The next thing that happened."""
        if isinstance(event, Outcome):
            self._end(event)
        elif self._console.is_terminal:
            self._move(event)
        else:
            self._say(event)

    def _move(self, event: ClipProgress) -> None:
        if event.name not in self._ids:
            self._ids[event.name] = self._bars.add_task(event.name, total=event.num_total, rate="")
        self._bars.update(
            self._ids[event.name], completed=event.num_done, total=event.num_total, rate=self._rate(event)[1]
        )

    def _say(self, event: ClipProgress) -> None:
        now = time.monotonic()
        rate, words = self._rate(event)
        if now - self._said.setdefault(event.name, now) < LINE_EVERY_S:
            return
        self._said[event.name] = now
        of, left = "", ""
        if event.num_total is not None:
            of = f" of {event.num_total}"
            left = f", {_clock((event.num_total - event.num_done) / rate)} left" if rate else ""
        self._console.print(f"{event.name}: {event.num_done}{of} pictures, {words}{left}", highlight=False)

    def _rate(self, event: ClipProgress) -> tuple[float, str]:
        """Pictures a second since this program heard of the video first."""
        now = time.monotonic()
        begun, num_before = self._begun.setdefault(event.name, (now, event.num_done))
        rate = (event.num_done - num_before) / (now - begun) if now > begun else 0.0
        return rate, f"{rate:.1f} a second" if rate else ""

    def _end(self, event: Outcome) -> None:
        if event.name in self._ids:
            self._bars.remove_task(self._ids.pop(event.name))
        found = event.summary
        if found is None:
            return  # told at the end, as an error
        objects = f"{found.num_objects} object{'s' * (found.num_objects != 1)}"
        when = "" if event.name in self._begun else ", done before"
        first = f"{found.name}: {found.num_pictures} pictures, {objects}, {found.fps:.1f} a second{when}"
        for line in (first, *(f"  {path}" for path in found.files)):
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
