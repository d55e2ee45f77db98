"""`sam2-stream segment`: recorded videos into masks, in files.

Owns: the options of this command. Runs in the main thread. Never: checks a value that `stream.config` or
`stream.segment` checks.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.daemon import Backend, Box, Checkpoint, Device, Dtype, Label, Mask, Model, Point, flags_and_options
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
)
from stream.config import Config, config_from_flags

if TYPE_CHECKING:
    from stream.segment import Moment, Outcome, Settings, Task
    from stream.tracker import Tracker

commands = typer.Typer()

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Video files, folders of pictures, folders of videos, or patterns in quotes ('shots/*.mp4').",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder for all results.", show_default=False)]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="What to follow: JSON, an indexed PNG of the first picture, or a folder of them by the videos' names.",
        metavar="FILE|FOLDER",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", "-f",
        help="davis (the default), rle, overlay, mask-video, cutout-png, cutout-webm; several with commas.",
    ),
]  # fmt: skip
Every = Annotated[int, typer.Option(help="Process one picture of so many.", min=1)]
Start = Annotated[str, typer.Option(help="Where to begin: seconds (12.5), 1:30, or a picture's number (300f).")]
End = Annotated[str | None, typer.Option(help="Where to end, before that picture; as --start.")]
Jobs = Annotated[int, typer.Option(help="Videos at the same time, each in a process with a tracker.", min=1, max=64)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew, over results that are there.")]

_OURS = ("inputs", "out", "prompts", "formats", "every", "start", "end", "jobs", "overwrite")


@commands.command()
def segment(
    context: typer.Context,
    inputs: Inputs,
    out: Out,
    point: Point = None,
    box: Box = None,
    mask: Mask = None,
    label: Label = None,
    prompts: Prompts = None,
    formats: Formats = None,
    every: Every = 1,
    start: Start = "0",
    end: End = None,
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
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
    """Follow objects through recorded videos of any length; every picture, resumed where it was killed."""
    config = _config(context.params)
    _run(_tasks(config, _settings(config, context.params), inputs, out=out, prompts=prompts), config, jobs)


def _config(params: Mapping[str, Any]) -> Config:
    """Model, prompts and treatment, checked as those of `run` are."""
    flags, options = flags_and_options(params, besides=_OURS)
    if flags and params["prompts"] is not None:
        beside = f"--prompts {params['prompts']} beside --point, --box, --mask or --label"
        raise CommandFailed(f"{beside}, expected one or the other", 2)
    return config_from_flags("push://segment", flags, options=options)


def _settings(config: Config, params: Mapping[str, Any]) -> Settings:
    from stream.segment import FORMATS, Settings

    formats: Sequence[str] = params["formats"] or ["davis"]
    names = tuple(dict.fromkeys(name.strip() for text in formats for name in text.split(",") if name.strip()))
    for name in [name for name in names if name not in FORMATS] or ([] if names else [""]):
        raise CommandFailed(f"--format '{name}', expected {', '.join(FORMATS)}", 2)
    camera, end = config.cameras[0], params["end"]
    return Settings(
        formats=names, every=params["every"], start=_moment("--start", params["start"]),
        end=None if end is None else _moment("--end", end), overwrite=params["overwrite"],
        memory_policy=camera.memory_policy, camera_motion=camera.camera_motion, refine=camera.refine,
        enhance=camera.enhance,
        program=" ".join(map(str, (config.model, config.checkpoint, config.device, config.dtype, config.backend))),
    )  # fmt: skip


def _moment(option: str, text: str) -> Moment:
    from stream.segment import MomentError, moment_of

    try:
        return moment_of(text)
    except MomentError as error:
        raise CommandFailed(f"{option}: {error}", 2) from error


def _tasks(config: Config, settings: Settings, inputs: Sequence[str], *, out: Path, prompts: Path | None) -> list[Task]:
    from stream.prompt import PromptError
    from stream.segment import SegmentError, Task, find_clips, prompts_of_clip, prompts_of_flags
    from stream.sequence import FootageError

    with told(SegmentError, PromptError, FootageError, OSError):
        clips = find_clips(inputs)
        common = prompts_of_flags(config.cameras[0].prompts)
        found = {clip.name: prompts_of_clip(prompts, clip.name) if prompts else common for clip in clips}
        if out.exists() and not out.is_dir():
            raise SegmentError(f"{out}: a file is there, expected a folder for the results")
        return [Task(clip.name, clip.source, out, found[clip.name], settings) for clip in clips]


def _run(tasks: Sequence[Task], config: Config, jobs: int) -> None:
    from engines.weights import WeightsError
    from stream.device import OptionError
    from stream.segment import Screen, SegmentError, backend_begun, segment_clips

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with told(WeightsError, OptionError, SegmentError, OSError):
        begun = "" if config.backend != "auto" else backend_begun(tasks)
        opening = functools.partial(_open_tracker, dataclasses.replace(config, backend=begun or config.backend), jobs)
        with Screen() as screen:
            outcomes = segment_clips(tasks, opening, jobs=jobs, tell=screen.show)
    _end(outcomes)


def _open_tracker(config: Config, jobs: int) -> Tracker:
    """In the process that uses it; called by name, as processes hand each other functions."""
    import os

    import torch

    from stream.loader import Loader

    loader = Loader(config)
    tracker = loader.load()
    loader.close()  # plans are built by `engines build`, not beside other work
    if jobs > 1 and tracker.engine.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    return tracker


def _end(outcomes: Sequence[Outcome]) -> None:
    failed = [outcome.error for outcome in outcomes if outcome.summary is None]
    if len(failed) == 1 == len(outcomes):
        raise CommandFailed(failed[0])
    for error in failed:
        typer.echo(f"sam2-stream: {' '.join(error.split())}", err=True)
    if failed:
        raise CommandFailed(f"{len(failed)} of {len(outcomes)} videos failed")
