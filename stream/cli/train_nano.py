"""`sam2-stream train-nano`: the course that made nano, from the first step or from where it stopped.

Owns: the options, the bank of textures beside the state, and the progress bar. Runs in the main thread.
Never: trains by itself; `engines.training` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.failure import CommandFailed, told

if TYPE_CHECKING:
    from engines.training.course import Stage
    from engines.training.shelf import Shelf

commands = typer.Typer()


@commands.command("train-nano")
def train_nano(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the state, the log and the checkpoint.")],
    clips: Annotated[
        Path | None, typer.Option(help="Folder of videos; what can be cut out of them is used as textures.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="A bank of cut-outs made before, instead of --clips.")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A clip whose textures are not used; may be repeated.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Every stage so many times as long, 0.01 for a trial.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages and end.")] = False,
) -> None:
    """Train nano from scratch as it was trained, stage after stage; called again, it goes on where it stopped."""
    from dataclasses import replace

    import torch

    from engines.training.course import COURSE
    from engines.training.shelf import Shelf

    if scale <= 0:
        raise CommandFailed(f"--scale {scale}, expected a number above 0", 2)
    course = tuple(replace(stage, steps=max(1, round(scale * stage.steps))) for stage in COURSE)
    for number, stage in enumerate(course, 1):
        kind = "live clips" if stage.live else f"{stage.frames} frames"
        typer.echo(f"{number} {stage.name:<16}{stage.steps:>6} steps, {stage.image_size} px, {stage.clips} x {kind}")
    if dry_run:
        return
    with told(ValueError, OSError):
        bank = _filled_bank(clips, out / "bank") if clips is not None and bank is None else bank
        shelf = Shelf(bank, leave_out=tuple(leave_out or ())) if bank is not None else None
    if shelf is None:
        typer.echo("without --clips or --bank: hard scenes have generated textures only")
    torch.set_num_threads(1)
    with told(OSError):
        typer.echo(_trained(out, course, shelf))


def _trained(out: Path, course: tuple[Stage, ...], shelf: Shelf | None) -> Path:
    """Run the course under a progress bar; without a terminal the log file tells how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from engines.training.loop import run_course

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=1.0)
        return run_course(
            out,
            course,
            shelf=shelf,
            told=lambda stage, share: bar.update(task, completed=share, description=stage.name),
        )


def _filled_bank(clips: Path, bank: Path) -> Path:
    """The bank of a folder of videos, made unless it is there."""
    from engines.synthetic.bank import INDEX, write_index
    from engines.synthetic.cutout import ENDINGS, fill

    if (bank / INDEX).exists():
        return bank
    videos = sorted(path for path in clips.glob("*") if path.suffix.lower() in ENDINGS)
    if not videos:
        raise ValueError(f"{clips} has no video; expected {', '.join(ENDINGS)}")
    entries = []
    for path in videos:
        typer.echo(f"cutting textures out of {path.name}")
        entries += fill(path, bank, 8)
    write_index(bank, entries)
    return bank
