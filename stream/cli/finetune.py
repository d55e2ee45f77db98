"""`sam2-stream finetune`: train a model on one's own videos with masks.

Owns: the options, the bars and the words. Runs in the main thread. Never: trains anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.failure import CommandFailed, told
from stream.cli.signals import stopping_event

if TYPE_CHECKING:
    import torch

    from stream.finetune import Course, Division, Estimate, Progress, Settings, Verdict

commands = typer.Typer()

PROMPTS = ("mask", "click", "box")
PLAIN_LINES = 10  # of a stage, where there is no terminal to draw a bar on
MB, GB = 1e6, 1e9

Data = Annotated[
    list[str],
    typer.Argument(
        help="Videos with masks: a DAVIS, MOSE or SA-V folder, a folder of videos beside files of masks, or such files "
        "(.jsonl of `segment`, .masks, SA-V or COCO JSON).",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="A folder for the checkpoint and all about it.", show_default=False)
]
Model = Annotated[str, typer.Option(help="nano, or a model such as sam2.1-hiera-tiny.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights to start from; the model's own unless given.")]
Video = Annotated[list[Path] | None, typer.Option(help="The pictures of a file of masks; beside it unless given.")]
Validation = Annotated[list[str] | None, typer.Option(help="Videos with masks that judge and do not teach.")]
HoldOut = Annotated[
    float | None,
    typer.Option(
        help="Share of the clips that judges where there is no --validation (of a single clip its end); 0: nothing is "
        "judged. [default: 0.2]"
    ),
]
Steps = Annotated[int | None, typer.Option(help="Steps of the optimiser. [default: 400]")]
Batch = Annotated[int | None, typer.Option(help="Clips at a time. [default: 1; nano: 4]")]
Accumulate = Annotated[int | None, typer.Option(help="Batches a step. [default: 1]")]
Frames = Annotated[int | None, typer.Option(help="Pictures of a clip. [default: 8]")]
Objects = Annotated[int | None, typer.Option(help="Objects of a clip, at most. [default: 3]")]
Rate = Annotated[float | None, typer.Option(help="Learning rate. [default: 1e-5; nano: 4e-4]")]
EncoderRate = Annotated[float | None, typer.Option(help="... of the image encoder. [default: 0.6 x --rate; nano: x 1]")]
LayerDecay = Annotated[
    float | None, typer.Option(help="... from each of its blocks to the one before. [default: 0.9; nano: 1]")
]
Average = Annotated[float | None, typer.Option(help="Decay of the weights' moving average. [default: 0.99]")]
FreezeEncoder = Annotated[bool, typer.Option("--freeze-encoder", help="The image encoder stays as it is.")]
Amp = Annotated[bool, typer.Option(help="Compute in 16 bits where that is safe.")]
Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Less memory: compute again instead of keeping.")]
Augment = Annotated[
    str,
    typer.Option(
        help="all, none, or some of flip, affine, colour, blur, motion-blur, skip, reverse, copy-paste, with commas."
    ),
]
Clicks = Annotated[
    float | None, typer.Option(help="Share of the batches that points or boxes prompt, not masks. [default: 0.5]")
]
Corrections = Annotated[int | None, typer.Option(help="Simulated clicks on what was wrong. [default: 7]")]
Prompt = Annotated[str, typer.Option(help="How validation prompts: mask, click or box.")]
ValidateEvery = Annotated[int | None, typer.Option(help="Steps. [default: 100]")]
Patience = Annotated[int | None, typer.Option(help="Validations without a gain after which it ends. [default: 4]")]
Longest = Annotated[int | None, typer.Option(help="Of a held-out clip, at most. [default: 100]")]
Seed = Annotated[int | None, typer.Option(help="Of all that is drawn. [default: 0]")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that prepare clips. [default: cuda 4, cpu 0]")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that OUT holds; the same options again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and write nothing.")]


@commands.command()
def finetune(
    context: typer.Context,
    data: Data,
    out: Out,
    model: Model = "nano",
    checkpoint: Checkpoint = None,
    video: Video = None,
    validation: Validation = None,
    hold_out: HoldOut = None,
    steps: Steps = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    frames: Frames = None,
    objects: Objects = None,
    rate: Rate = None,
    encoder_rate: EncoderRate = None,
    layer_decay: LayerDecay = None,
    average: Average = None,
    freeze_encoder: FreezeEncoder = False,
    amp: Amp = True,
    checkpointing: Checkpointing = False,
    augment: Augment = "all",
    clicks: Clicks = None,
    corrections: Corrections = None,
    prompt: Prompt = "mask",
    validate_every: ValidateEvery = None,
    patience: Patience = None,
    validation_pictures: Longest = None,
    seed: Seed = None,
    device: Device = "auto",
    workers: Workers = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Train a model on your own videos with masks; held-out clips judge it before and after.

    The daemon takes the result: `sam2-stream run --model MODEL --checkpoint OUT/checkpoint.pt`.
    """
    _finetune(context.params)


def _finetune(options: dict[str, Any]) -> None:
    from engines.weights import WeightsError
    from stream.device import OptionError, resolve_device
    from stream.finetune import Course, FinetuneError, original_weights
    from stream.sequence import FootageError, MaskFileError

    with told(FinetuneError, WeightsError, OptionError, FootageError, MaskFileError, OSError):
        settings, device = _settings(options), resolve_device(options["device"])
        division = _divide(options, settings)
        weights = original_weights(settings.model, options["checkpoint"])
        _say_division(division)
        if options["dry_run"]:
            _say_estimate(settings, division, weights, device=device)
            return
        course = Course(settings, division, options["out"], weights=weights, device=device)
        num_workers = (4 if device.type == "cuda" else 0) if options["workers"] is None else options["workers"]
        _follow(course, num_workers=num_workers, resume=options["resume"])
        _conclude(course, options)


def _settings(options: dict[str, Any]) -> Settings:
    import msgspec

    from engines.weights import checkpoint_name, path
    from stream.finetune import Settings, default_settings, read_augmentations

    if options["prompt"] not in PROMPTS:
        raise CommandFailed(f"--prompt = '{options['prompt']}': expected {', '.join(PROMPTS)}", 2)
    model, checkpoint = options["model"], options["checkpoint"]
    names = {field.name for field in msgspec.structs.fields(Settings)} - {"model", "augment", "weights"}
    chosen = {name: value for name, value in options.items() if name in names}
    weights = checkpoint_name(model, checkpoint or path(model))
    return default_settings(model, augment=read_augmentations(options["augment"]), weights=weights, **chosen)


def _divide(options: dict[str, Any], settings: Settings) -> Division:
    from stream.finetune import divide, find_clips

    clips = find_clips(options["data"], options["video"] or ())
    judges = find_clips(options["validation"]) if options["validation"] else ()
    return divide(clips, judges, settings)


def _say_division(division: Division) -> None:
    num_pictures = sum(len(clip.truth.annotated) for clip in division.learned)
    what = f"learning from {len(division.learned)} clips, {num_pictures} annotated pictures"
    names = ", ".join(clip.name for clip in division.held_out[:8]) + (", ..." if len(division.held_out) > 8 else "")
    held_out = f"judged on {names}" if names else "nothing is held out, so nothing is judged"
    typer.echo(f"{what}; {held_out}" + (" (the end of the only clip)" if division.is_one_video else ""))


def _say_estimate(
    settings: Settings, division: Division, weights: dict[str, torch.Tensor], *, device: torch.device
) -> None:
    from stream.finetune import estimate

    found = estimate(settings, weights, device, division=division)
    for line in _estimate_lines(found, settings, str(device)):
        typer.echo(line)


def _estimate_lines(found: Estimate, settings: Settings, device: str) -> Iterable[str]:
    yield f"parameters     {found.num_parameters / 1e6:.2f} million, {found.num_learning / 1e6:.2f} of them learn"
    yield (
        f"memory         {_size(found.bytes_weights)} weights, gradients, AdamW and average, "
        f"{_size(found.bytes_activations)} kept for the backward pass"
    )
    yield f"               at most {_size(found.bytes_peak)} at once on {device}"
    judging = f"; {found.seconds_picture * 1e3:.0f} ms a judged picture" if found.seconds_picture else ""
    yield f"step           {found.seconds_step:.2f} s on {device}{judging}"
    yield f"in all         about {_span(found.seconds_all)} for {settings.steps} steps and validations, once decoded"
    yield f"disk           about {_size(found.bytes_album)} of pictures while it runs"


def _follow(course: Course, *, num_workers: int, resume: bool) -> None:
    """Run it, draw a bar for the stage it is in, and a line for each verdict."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from stream.finetune import Verdict

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[text]}"))  # fmt: skip
    with (
        stopping_event() as stopping,
        Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars,
        closing(course.run(num_workers=num_workers, resume=resume)) as events,
    ):
        tell = _Bars(bars) if console.is_terminal else _Lines()
        for event in events:
            if isinstance(event, Verdict):
                typer.echo(_line(event, course))
            else:
                tell.show(event)
            if stopping.is_set():
                typer.echo("stopped; the same command with --resume goes on", err=True)
                raise KeyboardInterrupt


class _Bars:
    """One bar a stage. Written by the main thread."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._tasks = bars, dict[str, Any]()

    def show(self, now: Progress) -> None:
        if now.stage not in self._tasks:
            self._tasks[now.stage] = self._bars.add_task(now.stage, total=now.num_all, text="")
        task = self._tasks[now.stage]
        self._bars.update(task, completed=now.num_done, total=now.num_all, text=now.text)
        self._bars.update(task, visible=now.stage == "learning" or now.num_done < now.num_all)


class _Lines:
    """A line now and then. Written by the main thread."""

    def __init__(self) -> None:
        self._shown: dict[str, int] = {}

    def show(self, now: Progress) -> None:
        if now.stage == "judging":  # the verdict follows
            return
        part = now.num_done * PLAIN_LINES // max(now.num_all, 1)
        if part != self._shown.get(now.stage):
            self._shown[now.stage] = part
            typer.echo(
                f"{now.stage}: {now.num_done} of {now.num_all}" + (f", {now.text}" if now.text else ""), err=True
            )


def _line(verdict: Verdict, course: Course) -> str:
    first = course.history.verdicts[0]
    what = f"J&F {verdict.j_and_f:.3f} (J {verdict.summary.j.mean:.3f}, F {verdict.summary.f.mean:.3f})"
    if verdict is first:
        return f"before: {what}"
    is_best = verdict is course.best
    return f"step {verdict.step}: {what}, {verdict.j_and_f - first.j_and_f:+.3f}" + (
        ", the best so far" if is_best else ""
    )


def _conclude(course: Course, options: dict[str, Any]) -> None:
    report, best, out = course.report, course.best, options["out"]
    assert report is not None, "a course that has ended has a report"
    typer.echo(f"{report.steps} steps in {_span(report.seconds)}: {report.ended}")
    if best is not None:
        before = report.verdicts[0].j_and_f
        typer.echo(f"J&F on what was held out: {before:.3f} before, {best.j_and_f:.3f} after {best.step} steps")
        if best.j_and_f <= before:
            typer.echo("sam2-stream: the new weights are no better than the old ones; keep those", err=True)
        typer.echo(f"{out / 'sheet.png'}: pictures before and after")
    typer.echo(f"sam2-stream run SOURCE --model {options['model']} --checkpoint {out / 'checkpoint.pt'}")


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:.0f} MB"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
