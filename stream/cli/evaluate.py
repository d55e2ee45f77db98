"""`sam2-stream evaluate`: masks against true ones, or the tracker itself on a data set.

Owns: the options, the progress bar and what is printed. Runs in the main thread. Never: measures or draws anything
itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from stream.cli.failure import CommandFailed, told
from stream.config import MemoryPolicy

if TYPE_CHECKING:
    from stream.evaluate import Outcome, Progress, PromptKind

commands = typer.Typer()

LINE_EVERY_S = 10.0  # without a terminal
Masks = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PREDICTIONS GROUND_TRUTH]",
        help="Masks: DAVIS folders, COCO or SA-V JSON, JSON lines of `segment`, or .masks recordings.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="Run the tracker on this: a DAVIS, MOSE or SA-V folder, or generated[:N].", metavar="DIR"),
]
Model = Annotated[str, typer.Option(help="nano, or one of `weights list`.")]
Checkpoint = Annotated[Path | None, typer.Option(help="The model's weights, if not the known ones.", metavar="FILE")]
Backend = Annotated[str, typer.Option(help="auto, eager, compiled, tensorrt or tensorrt-rtx.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Policy = Annotated[str, typer.Option(help="What enters the memory: sam2, or motion.")]
CameraMotion = Annotated[bool, typer.Option("--camera-motion", help="With motion: allow for a moving camera.")]
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
Report = Annotated[Path | None, typer.Option(help="Write a report there: .html, .png or .jpg.", metavar="FILE")]


@commands.command()
def evaluate(
    masks: Masks = None,
    data: Data = None,
    model: Model = "nano",
    checkpoint: Checkpoint = None,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    memory_policy: Policy = "sam2",
    camera_motion: CameraMotion = False,
    prompt: Prompt = "mask",
    out: Out = None,
    sequences: Sequences = None,
    pictures: Pictures = None,
    json: Json = None,
    report: Report = None,
) -> None:
    """How good masks are: J, F, J&F of DAVIS, mAP of COCO, steadiness and identities, as a table, JSON and a report.

    Of masks that you have (PREDICTIONS GROUND_TRUTH), or of the tracker itself on a data set (--data), with its speed.
    """
    from stream.evaluate import Choice, Order, compare, follow

    prompt_kind, policy, names = _prompt(prompt), _policy(memory_policy), _names(sequences or ())
    with told(*_errors()), _folder(out, report) as folder:
        with _progress() as show:
            if data is None:
                predictions, truths = _two(masks)
                outcome = compare(predictions, truths, show, sequences=names, pictures=pictures)
            else:
                _nothing_beside(masks)
                choice = Choice(model, checkpoint, backend, device, dtype, policy, camera_motion)
                outcome = follow(choice, Order(data, prompt_kind, names, folder), show)
        typer.echo("\n".join(outcome.lines()))
        if json is not None:
            outcome.write_json(json)
        if report is not None:
            _write_report(report, outcome)


def _two(masks: Sequence[Path] | None) -> tuple[Path, Path]:
    if masks is None or len(masks) != 2:
        given = " ".join(map(str, masks or ())) or "nothing"
        raise CommandFailed(f"evaluate of {given}: expected PREDICTIONS GROUND_TRUTH, or --data DIR", 2)
    return masks[0], masks[1]


def _nothing_beside(masks: Sequence[Path] | None) -> None:
    if masks:
        raise CommandFailed(f"{masks[0]} beside --data: expected masks to compare, or data to follow", 2)


def _prompt(text: str) -> PromptKind:
    from stream.evaluate import PROMPT_KINDS

    for kind in PROMPT_KINDS:
        if text == kind:
            return kind
    raise CommandFailed(f"--prompt = '{text}': expected one of {', '.join(PROMPT_KINDS)}", 2)


def _policy(text: str) -> MemoryPolicy:
    policies: tuple[MemoryPolicy, ...] = get_args(MemoryPolicy)
    for policy in policies:
        if text == policy:
            return policy
    raise CommandFailed(f"--memory-policy = '{text}': expected one of {', '.join(policies)}", 2)


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
def _folder(out: Path | None, report: Path | None) -> Iterator[Path | None]:
    """Where masks are kept: a report shows some, so without --out they lie in a folder that goes again."""
    from stream.evaluate import check_report

    if report is not None:
        check_report(report)
    if out is not None or report is None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="sam2-stream-") as folder:
        yield Path(folder)


def _write_report(path: Path, outcome: Outcome) -> None:
    from stream.evaluate.report import make_page, write_report

    write_report(path, make_page(outcome))
    typer.echo(f"{path} written", err=True)


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
