"""`run_demo`: the order of the demo, and what the user is told.

Owns: the order. Runs in the main thread. Never: leaves a process, a socket or half a file behind, however it ends.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from stream.capture import SourceError
from stream.client import WireError
from stream.demo.plan import DemoError, Plan, make_plan
from stream.demo.process import DaemonProcess
from stream.demo.receiver import Receiver, Sample
from stream.demo.report import Figures, measure, print_table, to_json
from stream.demo.review import Review, Reviewer
from stream.demo.sheet import write_sheet
from stream.demo.window import Window, wants_window
from stream.movie import MovieError

FILM, SHEET = "demo.mp4", "demo.png"


def run_demo(*, seconds: float | None, window: bool | None, as_json: bool, source: str | None) -> int:
    """Play, write `demo.mp4` and `demo.png` here, print the figures; the exit code. Raises ConfigError (source)."""
    try:
        with _terminated_as_interrupted():
            _check_machine(Path.cwd())
            plan = make_plan(seconds, source)
            _run(plan, wants_window(window), as_json=as_json)
    except DemoError as error:
        return _tell(error, error.exit_code)
    except (SourceError, MovieError, WireError) as error:
        return _tell(error, 1)
    return 0


def _run(plan: Plan, has_window: bool, *, as_json: bool) -> None:
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    samples = _play(plan, has_window, notes)
    folder = Path.cwd()
    notes.print(f"writing {FILM} and {SHEET}")
    with _removed_on_failure(folder / FILM, folder / SHEET):
        review = Reviewer(plan.clip).run(samples, folder / FILM)
        figures = measure(samples, review.quality)
        write_sheet(folder / SHEET, _title(plan, figures), review.cells)
    _print(figures, review, samples, as_json=as_json)


def _play(plan: Plan, has_window: bool, notes: Console) -> list[Sample]:
    """The daemon runs in its own process while this one receives."""
    with ExitStack() as stack:
        notes.print("starting the daemon in a process of its own")
        daemon = stack.enter_context(DaemonProcess(plan.config))
        window = stack.enter_context(Window()) if has_window else None
        endpoint = daemon.wait_endpoint()
        source = plan.config.cameras[0].source_shown
        notes.print(f"{source} -> {plan.config.model} -> {endpoint} -> here")
        receiver = Receiver(endpoint, plan.camera, seconds=plan.seconds, show=window.show if window else None)
        samples = receiver.run(daemon.is_alive)
        daemon.check()
    if not samples:
        raise DemoError("the daemon ended without a picture")
    return samples


def _print(figures: Figures, review: Review, samples: Sequence[Sample], *, as_json: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not as_json:
        print_table(figures, console)
    if review.num_filmed < len(samples):
        console.print(f"{len(samples) - review.num_filmed} pictures came as masks only; the film lacks them")
    if review.num_unscored:
        console.print(f"{review.num_unscored} pictures are not scored: their pass lost the one with the clicks")
    for name in (FILM, SHEET):
        console.print(str(Path.cwd() / name))
    if as_json:
        print(to_json(figures), flush=True)


def _title(plan: Plan, figures: Figures) -> str:
    what = "one click on each object" if plan.clip else "one click in the middle"
    speed = f"{figures.frames} pictures, {figures.fps:.1f} a second, {figures.dropped} dropped"
    quality = "" if figures.mean_iou is None else f"   mean IoU {figures.mean_iou:.2f} (white line: the truth)"
    return f"sam2-stream demo: {plan.config.model}, {what}   {speed}{quality}"


def _check_machine(folder: Path) -> None:
    for package in ("torch", "sam2"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if not os.access(folder, os.W_OK):
        raise DemoError(f"{folder}: expected a folder where {FILM} and {SHEET} can be written")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """TERM ends the demo the way Ctrl-C does, through every `finally`."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _removed_on_failure(*paths: Path) -> Iterator[None]:
    is_done = False
    try:
        yield
        is_done = True
    finally:
        for path in () if is_done else paths:
            path.unlink(missing_ok=True)


def _tell(error: Exception, exit_code: int) -> int:
    if str(error):
        print(f"sam2-stream: {error}", file=sys.stderr)
    return exit_code
