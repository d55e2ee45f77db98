"""`sam2-stream weights list | pull | path`: the known checkpoints.

Owns: the table and the progress bar. Runs in the main thread. Never: downloads except in `pull`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.failure import told

commands = typer.Typer(no_args_is_help=True, help="Known checkpoints: list, download, find.")

Model = Annotated[str, typer.Argument(help="A model, for example sam2.1-hiera-tiny.", show_default=False)]


@commands.command("list")
def list_() -> None:
    """Every known model, whether its checkpoint is here, and where it comes from."""
    from engines.weights import list_weights

    for info in list_weights():
        state = "here" if info.is_present else "-"
        where = info.location if info.is_present else info.source
        typer.echo(f"{info.model:<24}{state:<6}{info.num_bytes / 1e6:>8.1f} MB  {info.licence}  {where}")


@commands.command()
def pull(model: Model) -> None:
    """Download a checkpoint from Meta's address, unless it is here, check it, and print where it is."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from engines.weights import WeightsError
    from engines.weights import pull as pull_weights

    columns = (f"{model}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with told(WeightsError), Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(model, total=None)
        location = pull_weights(model, progress=lambda here, total: bar.update(task, completed=here, total=total))
    typer.echo(location)


@commands.command()
def path(model: Model) -> None:
    """Print where a model's checkpoint is; fails if it is not here or was changed."""
    from engines.weights import WeightsError
    from engines.weights import path as path_of

    with told(WeightsError):
        typer.echo(path_of(model))
