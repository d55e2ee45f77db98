"""`sam2-stream evaluate`: masks against true ones, or the tracker itself on a data set.

Owns: the options, the progress bar and what is printed. Runs in the main thread. Never: measures or draws anything
itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from stream.cli.daemon import Backend, Checkpoint, Device, Dtype, Model
from stream.cli.failure import CommandFailed, told
from stream.cli.treatment import (
    CameraMotion,
    Denoise,
    FillHoles,
    LowLight,
    NonOverlap,
    Policy,
    RemoveSpecks,
    Smooth,
    Upsample,
)  # fmt: skip
from stream.config import PromptFlags, config_from_flags

if TYPE_CHECKING:
    from stream.evaluate import Order, Outcome, Progress, Wish
    from stream.quality import Scoring

    Show = Callable[[Progress], None]

commands = typer.Typer()

LINE_EVERY_S = 10.0  # without a terminal
Masks = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PREDICTIONS GROUND_TRUTH",
        help="Masks: DAVIS folders, COCO or SA-V JSON, JSON lines of `segment`, or .masks recordings.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="Run the tracker on this: a DAVIS, MOSE or SA-V folder, or generated[:N].", metavar="DIR"),
]
Prompt = Annotated[str, typer.Option(help="What each object is given on its first picture: mask, click or box.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write the masks there; an evaluation that was interrupted goes on.", metavar="FOLDER"),
]
Sequences = Annotated[
    list[str] | None,
    typer.Option(help="Only these: names with commas, or a file with a name a line. May be repeated."),
]
Pictures = Annotated[Path | None, typer.Option(help="Where the videos or folders of pictures are.", metavar="FOLDER")]
Json = Annotated[Path | None, typer.Option(help="Write every figure there.", metavar="FILE")]
Match = Annotated[
    str,
    typer.Option(help="Which prediction is which object: ids, best (highest J), or auto: best where no id fits."),
]
Whole = Annotated[bool, typer.Option("--whole", help="Score the first and the last picture, too.")]
Report = Annotated[Path | None, typer.Option(help="Write a report there: .html, .png or .jpg.", metavar="FILE")]

_OURS = ("masks", "data", "prompt", "out", "sequences", "pictures", "json", "report", "match", "whole")


@commands.command()
def evaluate(
    context: typer.Context,
    masks: Masks = None,
    data: Data = None,
    prompt: Prompt = "mask",
    out: Out = None,
    sequences: Sequences = None,
    pictures: Pictures = None,
    match: Match = "auto",
    whole: Whole = False,
    json: Json = None,
    report: Report = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
    memory_policy: Policy = None,
    camera_motion: CameraMotion = False,
    fill_holes: FillHoles = None,
    remove_specks: RemoveSpecks = None,
    smooth: Smooth = None,
    upsample: Upsample = None,
    non_overlap: NonOverlap = False,
    denoise: Denoise = None,
    low_light: LowLight = None,
) -> None:
    """How good masks are: J, F, J&F of DAVIS, mAP of COCO, steadiness and identities, as a table, JSON and a report.

    Of masks that you have (PREDICTIONS GROUND_TRUTH), or of the tracker itself on a data set (--data), with its speed.
    """
    given = {key: value for key, value in context.params.items() if key not in _OURS and value not in (None, False)}
    wish = _wish(sequences or (), pictures, _scoring(match, whole, data))
    with told(*_errors()), _folder(out, json, report) as folder:
        with _progress() as show:
            if data is None:
                outcome = _compare(masks, given, show, wish=wish)
            else:
                outcome = _follow(given, _order(masks, data, prompt, names=wish.sequences, folder=folder), show)
        _tell(outcome, json, report)


def _wish(sequences: Sequence[str], pictures: Path | None, scoring: Scoring) -> Wish:
    from stream.evaluate import Wish

    return Wish(_names(sequences), pictures, scoring)


def _compare(masks: Sequence[Path] | None, given: Mapping[str, object], show: Show, *, wish: Wish) -> Outcome:
    from stream.evaluate import compare

    if masks is None or len(masks) != 2:
        what = " ".join(map(str, masks or ())) or "nothing"
        raise CommandFailed(f"evaluate of {what}: expected PREDICTIONS GROUND_TRUTH, or --data DIR", 2)
    for option in given:
        raise CommandFailed(f"--{option.replace('_', '-')} without --data: expected it where the tracker runs", 2)
    return compare(masks[0], masks[1], show, wish=wish)


def _scoring(match: str, whole: bool, data: str | None) -> Scoring:
    from stream.quality import Match, Scoring

    kinds: tuple[Match, ...] = get_args(Match)
    kind = next((kind for kind in kinds if kind == match), None)
    if kind is None:
        raise CommandFailed(f"--match = '{match}': expected one of {', '.join(kinds)}", 2)
    if data is not None and (kind != "auto" or whole):
        raise CommandFailed(
            f"{'--whole' if whole else '--match'} beside --data: expected it where masks are compared", 2
        )
    return Scoring(match=kind, skip_ends=not whole)


def _follow(given: Mapping[str, object], order: Order, show: Show) -> Outcome:
    from stream.evaluate import Choice, follow

    config = config_from_flags("push://evaluate", PromptFlags(), options=dict(given))
    camera = config.cameras[0]
    choice = Choice(
        config.model, config.checkpoint, backend=config.backend, device=config.device, dtype=config.dtype,
        memory_policy=camera.memory_policy, camera_motion=camera.camera_motion, refine=camera.refine,
        enhance=camera.enhance,
    )  # fmt: skip
    return follow(choice, order, show)


def _order(
    masks: Sequence[Path] | None, data: str, prompt: str, *, names: tuple[str, ...], folder: Path | None
) -> Order:
    from stream.evaluate import PROMPT_KINDS, Order

    for path in masks or ():
        raise CommandFailed(f"{path} beside --data: expected masks to compare, or data to follow", 2)
    kind = next((kind for kind in PROMPT_KINDS if kind == prompt), None)
    if kind is None:
        raise CommandFailed(f"--prompt = '{prompt}': expected one of {', '.join(PROMPT_KINDS)}", 2)
    return Order(data, kind, names, folder)


def _tell(outcome: Outcome, json: Path | None, report: Path | None) -> None:
    if report is not None:
        from stream.evaluate.report import make_page, write_report

        write_report(report, make_page(outcome))
    if json is not None:
        outcome.write_json(json)
    typer.echo("\n".join(outcome.lines()))
    for path in filter(None, (json, report)):
        typer.echo(f"{path} written", err=True)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Of sequences; a file, such as one of DAVIS' ImageSets, stands for the names in it."""
    names: list[str] = []
    for text in given:
        with told(OSError, UnicodeDecodeError):
            names += Path(text).read_text(encoding="utf-8").split() if Path(text).is_file() else text.split(",")
    return tuple(name.strip() for name in names if name.strip())


def _errors() -> tuple[type[Exception], ...]:
    """What can be wrong with files, options and the machine."""
    from engines.spec import BackendMissing
    from engines.weights import WeightsError
    from stream.device import OptionError
    from stream.evaluate import ReportError, ShelfError
    from stream.sequence import FootageError, MaskFileError

    return MaskFileError, FootageError, ShelfError, ReportError, WeightsError, BackendMissing, OptionError, OSError


@contextmanager
def _folder(out: Path | None, json: Path | None, report: Path | None) -> Iterator[Path | None]:
    """Where masks are kept: a report shows some, so without --out they lie in a folder that goes again.

    Before the work is done: whether the other files have a place.
    """
    from stream.evaluate import check_report

    if report is not None:
        import matplotlib  # noqa: F401  is it installed?

        check_report(report)
    if json is not None and not json.parent.is_dir():
        raise CommandFailed(f"{json}: there is no folder {json.parent}, expected one that exists", 1)
    if out is not None or report is None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="sam2-stream-") as folder:
        yield Path(folder)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with the time left, or a line now and then where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines().show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("opening", total=None)
        yield lambda now: bar.update(task, total=now.num_pictures, completed=now.num_done, description=now.sequence)


class _Lines:
    """Written by the main thread: when it last said something."""

    def __init__(self) -> None:
        self._said_s = time.monotonic()

    def show(self, now: Progress) -> None:
        if time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            typer.echo(f"{now.sequence}: {now.num_done} of {now.num_pictures} pictures", err=True)
