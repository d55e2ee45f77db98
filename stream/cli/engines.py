"""`sam2-stream engines build | list | verify | prune`: TensorRT's plans in the cache.

Owns: the options, the progress bar and the tables. Runs in the main thread; a child process builds. Never: builds or
judges anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.failure import CommandFailed, told
from stream.cli.signals import stopping_event

if TYPE_CHECKING:
    from engines.build import EngineRequest, Entry, Workshop
    from engines.spec import ProgramKey

commands = typer.Typer(no_args_is_help=True, help="TensorRT engines: build, list, verify, prune.")

POLL_S = 0.2
GIB = 1 << 30
Model = Annotated[str, typer.Option(help="A model, for example sam2.1-hiera-tiny.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights of your own.", show_default=False)]
Backend = Annotated[str, typer.Option(help="tensorrt, tensorrt-rtx, or auto: the first one that works here.")]
Device = Annotated[str, typer.Option(help="auto, cuda or cuda:N.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Weights that mean nothing, to check that everything builds; `run` never uses such engines."),
]


@commands.command()
def build(
    model: Model = "nano",
    checkpoint: Checkpoint = None,
    backend: Backend = "auto",
    device: Device = "auto",
    batch: Annotated[list[int] | None, typer.Option(help="Only so many frames and rows; may be repeated.")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="For another machine's GPU, such as sm89; may be repeated (tensorrt-rtx). Verified at the first start "
            "there."
        ),
    ] = None,
    random_weights: Seed = None,
    again: Annotated[bool, typer.Option(help="Also what was refused, or timed while others used the GPU.")] = False,
) -> None:
    """Build the engines of a model, compare each with plain PyTorch, and keep them. Best done at installation, on an
    idle machine: what TensorRT times on a busy GPU is suspect.

    Exit code 1 when one of them was refused.
    """
    from engines.build import EngineCache, Order, Workshop, with_backend
    from engines.spec import BackendMissing
    from engines.weights import WeightsError

    order, cache = Order(_keys(batch or ()), tuple(target or ()), again), EngineCache()
    with told(BackendMissing, WeightsError, ValueError):
        where = "cpu" if target else device  # no GPU of this machine takes part
        request = _request(model, checkpoint, backend, device=where, seed=random_weights)
        request = with_backend(request, cache=cache, targets=order.targets)
        workshop = Workshop(request, order=order, cache=cache)
        workshop.start()
    try:
        _watch(workshop)
    finally:
        workshop.stop()
    _conclude(workshop, num_keys=len(order.keys))


@commands.command("list")
def list_(
    refused: Annotated[bool, typer.Option(help="Those that were set aside, with the reasons.")] = False,
) -> None:
    """The engines that are kept: what they are, for which GPU, how far from plain PyTorch, when they were last used."""
    from engines.build import EngineCache

    cache = EngineCache()
    entries = cache.entries(refused=refused)
    for entry in sorted(entries, key=lambda entry: entry.label.recipe.program):
        typer.echo(_line(entry))
    size = sum(entry.num_bytes for entry in entries) / GIB
    typer.echo(f"{len(entries)} {'refused' if refused else 'kept'}, {size:.2f} GiB in {cache.folder}", err=True)


@commands.command()
def verify(
    model: Model = "nano", checkpoint: Checkpoint = None, backend: Backend = "auto", device: Device = "auto"
) -> None:
    """Compare every engine of a model with plain PyTorch here and now, as each start does.

    Exit code 1 when one was refused, which sets it aside.
    """
    from engines.build import EngineCache, open_plans, with_backend
    from engines.spec import BackendMissing
    from engines.weights import WeightsError

    num_refused = num = 0
    with told(BackendMissing, WeightsError, ValueError):
        request = with_backend(_request(model, checkpoint, backend, device=device), cache=EngineCache())
        for key, verdict in open_plans(request):
            num, num_refused = num + 1, num_refused + (not verdict.passed)
            typer.echo(f"{key.name:<14}{'right' if verdict.passed else 'refused':<9}{verdict.reason or verdict.worst}")
    if num_refused:
        raise CommandFailed(f"{num_refused} of {num} engines were refused; see: sam2-stream engines list --refused")
    typer.echo(f"{num} engines of {model} on {request.backend} are right", err=True)


@commands.command()
def prune(
    max_gib: Annotated[float, typer.Option(min=0, help="Keep so much; 0 removes all.")] = 16.0,
) -> None:
    """Remove engines that were refused, then those not used for longest, until the rest fits; and damaged files."""
    from engines.build import EngineCache

    gone = EngineCache().prune(int(max_gib * GIB))
    for path in gone:
        typer.echo(path.name)
    typer.echo(f"{len(gone)} removed", err=True)


def _keys(batches: Sequence[int]) -> tuple[ProgramKey, ...]:
    from engines.build import Order

    keys = Order().keys
    if unknown := [number for number in batches if number not in {key.batch for key in keys}]:
        known = ", ".join(map(str, sorted({key.batch for key in keys})))
        raise CommandFailed(f"--batch = {unknown[0]}: expected one of {known}", 2)
    return tuple(key for key in keys if not batches or key.batch in batches)


def _request(
    model: str, checkpoint: Path | None, backend: str, *, device: str, seed: int | None = None
) -> EngineRequest:
    import torch

    from engines.build import PLAN_BACKENDS, EngineRequest
    from stream.device import resolve_device

    if backend not in ("auto", *PLAN_BACKENDS):
        raise CommandFailed(f"--backend = '{backend}': expected auto, {' or '.join(PLAN_BACKENDS)}", 2)
    return EngineRequest(model, checkpoint, resolve_device(device), torch.float16, backend, seed)


def _watch(workshop: Workshop) -> None:
    """Draw the bar, and say what is ready, until the child has ended or somebody wants to end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.fields[program]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with stopping_event() as stopping, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, program="")
        while True:
            for plan in workshop.poll():
                typer.echo(f"{plan.key.name:<14}{plan.text}  {plan.path}")
            now = workshop.progress
            if not now.is_running:
                return
            if stopping.wait(POLL_S):
                raise KeyboardInterrupt
            done = f"{now.stage}, about {_span(now.remaining_s)} to go"
            bar.update(task, total=now.num_programs, completed=now.num_done + now.share, program=now.program)
            bar.update(task, description=done)


def _conclude(workshop: Workshop, *, num_keys: int) -> None:
    now = workshop.progress
    for text in now.refused:
        typer.echo(f"refused: {text}", err=True)
    if now.error:
        raise CommandFailed(now.error)
    if now.refused:
        raise CommandFailed(f"{len(now.refused)} of {now.num_programs} engines were refused and set aside")
    typer.echo(f"{now.num_done} built, {num_keys - now.num_programs} were there or refused before", err=True)


def _line(entry: Entry) -> str:
    from engines.build import is_suspect

    recipe, verdict = entry.label.recipe, entry.label.verdict
    found = "not verified yet" if verdict is None else verdict.reason or verdict.worst
    suspect = "; timed on a busy GPU: sam2-stream engines build --again when it is idle" if is_suspect(entry) else ""
    weights = f" ({recipe.weights} weights, never run)" if recipe.weights.startswith("random ") else ""
    used = time.strftime("%Y-%m-%d", time.localtime(entry.used_s))
    what = f"{recipe.program:<16}{recipe.model}{weights}  {recipe.backend}  {recipe.precision}"
    return f"{what}  {recipe.platform}  {entry.num_bytes / 1e6:.1f} MB  used {used}  {found}{suspect}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
