"""How far a build has come, out of the builder's nested phases.

Owns: the phases that are open. The builder's threads report, one at a time or several. Never: stops a build (who wants
that ends the process that builds).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

Progress = Callable[[str, float], None]
"""Called with the phase's name and the share that is done, between 0 and 1, whenever another percent is."""


class Phases:
    """A phase has steps, and within its current step further phases. `_open` (name -> steps, steps done) is in the
    order of nesting; all fields are written under the lock.
    """

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._open: dict[str, tuple[int, int]] = {}
        self._share = 0.0
        self._lock = threading.Lock()

    def start(self, name: str, num_steps: int) -> None:
        with self._lock:
            self._open[name] = (max(num_steps, 1), 0)
            self._tell(name)

    def step(self, name: str, step: int) -> None:
        with self._lock:
            num_steps, _ = self._open.get(name, (step + 1, 0))
            self._open[name] = (num_steps, min(step + 1, num_steps))
            self._tell(name)

    def finish(self, name: str) -> None:
        with self._lock:
            num_steps, _ = self._open.get(name, (1, 0))
            self._open[name] = (num_steps, num_steps)
            self._tell(name)
            del self._open[name]

    def _tell(self, name: str) -> None:
        share, width = 0.0, 1.0
        for num_steps, done in self._open.values():
            share += width * done / num_steps
            width /= num_steps
        share = math.floor(100 * max(self._share, min(share, 1.0))) / 100
        if share > self._share:
            self._share = share
            self._report(name, share)


def make_monitor(module: Any, report: Progress) -> Any:
    """The library's own kind of listener, which passes on to `Phases`."""
    phases = Phases(report)

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
