"""`sam2-stream run`, `config check` and `demo`: what starts a daemon, or would.

Owns: the options of these commands. Runs in the main thread. Never: checks a value itself; `stream.config` does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stream.cli.failure import CommandFailed
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
from stream.config import Config, PromptFlags, config_from_flags, load_config

commands = typer.Typer()
config_commands = typer.Typer(no_args_is_help=True, help="Configuration files.")

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE|CONFIG.toml",
        help="A video file, a folder of pictures, a webcam (0, /dev/video0), rtsp://..., push://NAME, testsrc://, "
        "or a configuration file, which then holds all settings.",
        show_default=False,
    ),
]
Point = Annotated[
    list[str] | None,
    typer.Option(
        help="A point on object 1 (label 0: beside it), in pixels; ID:x,y for another object. May be repeated.",
        metavar="[ID:]x,y[,label]",
    ),
]
Box = Annotated[list[str] | None, typer.Option(help="A box around an object.", metavar="[ID:]x0,y0,x1,y1")]
Mask = Annotated[list[str] | None, typer.Option(help="A picture, non-zero on an object.", metavar="[ID:]FILE")]
Label = Annotated[list[str] | None, typer.Option(help="What an object is called.", metavar="[ID:]NAME")]
Name = Annotated[str | None, typer.Option(help="The camera's name; made from the source unless given.")]
Model = Annotated[str | None, typer.Option(help="nano (embedded, the default), or one of `weights list`.")]
Checkpoint = Annotated[str | None, typer.Option(help="The model's weights, if not the known ones.", metavar="FILE")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AllowCpu = Annotated[bool, typer.Option("--allow-cpu", help="Run on the CPU where there is no GPU.")]
Control = Annotated[list[str] | None, typer.Option(help="Where to take commands; one port above --bind unless given.")]
Http = Annotated[str | None, typer.Option(help="Serve /live /ready /status /metrics there.", metavar="127.0.0.1:PORT")]
Keys = Annotated[str | None, typer.Option(help="Folder of `keys`, to listen beyond this machine.", metavar="FOLDER")]
State = Annotated[str | None, typer.Option(help="Keep objects added while it runs there.", metavar="FOLDER")]
Dtype = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")]
Backend = Annotated[str | None, typer.Option(help="auto (the default), eager, compiled, tensorrt or tensorrt-rtx.")]
Bind = Annotated[list[str] | None, typer.Option(help="Where to publish (tcp://127.0.0.1:5560). May be repeated.")]
Pace = Annotated[str | None, typer.Option(help="live: the newest picture wins; offline: every picture of a file.")]
Loop = Annotated[bool, typer.Option("--loop", help="Start a file again when it ends.")]
MaxFps = Annotated[float | None, typer.Option(help="Take at most so many pictures a second.")]
Encoding = Annotated[str | None, typer.Option(help="bits, coco_rle or none.")]

_MARKS = ("point", "box", "mask", "label")  # the options of `PromptFlags`


@commands.command()
def run(
    context: typer.Context,
    source: Source,
    point: Point = None,
    box: Box = None,
    mask: Mask = None,
    label: Label = None,
    name: Name = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    allow_cpu: AllowCpu = False,
    dtype: Dtype = None,
    backend: Backend = None,
    bind: Bind = None,
    control: Control = None,
    http: Http = None,
    keys: Keys = None,
    state: State = None,
    pace: Pace = None,
    loop: Loop = False,
    max_fps: MaxFps = None,
    mask_encoding: Encoding = None,
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
    """Run the daemon: pictures in, masks out over ZeroMQ, until the source ends or INT or TERM arrives."""
    _start(source, _config(source, *flags_and_options(context.params, besides=("source",))))


def flags_and_options(params: Mapping[str, Any], *, besides: Sequence[str]) -> tuple[PromptFlags, dict[str, Any]]:
    """What a command was given, as `stream.config` takes it: prompts, and all else but `besides`; None = not given."""
    flags = PromptFlags(*(params[key] or () for key in _MARKS))
    given = {key: value for key, value in params.items() if key not in (*_MARKS, *besides)}
    return flags, {key: None if value is False or value in ([], ()) else value for key, value in given.items()}


def _start(source: str, config: Config) -> NoReturn:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from stream.daemon import Daemon
    from stream.keys import KeysError

    file = Path(source) if source.endswith(".toml") else None
    try:
        daemon = Daemon(config, file=file)
    except KeysError as error:
        raise CommandFailed(str(error), 78) from error
    raise typer.Exit(daemon.run())


def _config(source: str, flags: PromptFlags, options: dict[str, object]) -> Config:
    if not source.endswith(".toml"):
        return config_from_flags(source, flags, options=options)
    given = [f"--{key.replace('_', '-')}" for key, value in options.items() if value is not None]
    if given or flags:
        what = ", ".join(given) or "--point, --box, --mask or --label"
        raise CommandFailed(f"{what} beside {source}: expected all settings in the configuration file", 2)
    return load_config(source)


@config_commands.command()
def check(file: Annotated[Path, typer.Argument(help="A configuration file.", show_default=False)]) -> None:
    """Read a configuration file, say what is wrong with it, or what it holds."""
    config = load_config(file)
    typer.echo(f"{file}: right. Model {config.model} on {config.device}, publishes on {', '.join(config.bind)}")
    for camera in config.cameras:
        ids = ", ".join(str(prompt.object_id) for prompt in camera.prompts) or "none"
        typer.echo(f"camera {camera.name}: {camera.source_shown}, pace {camera.pace}, objects: {ids}")


@commands.command()
def demo(
    seconds: Annotated[float | None, typer.Option(help="How long; a whole clip unless given.")] = None,
    window: Annotated[bool | None, typer.Option(help="Show it live; if there is a display unless given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object instead of a table.")] = False,
    source: Annotated[str | None, typer.Option(help="A source of your own instead of the generated clip.")] = None,
) -> None:
    """A generated clip with known truth through the whole daemon; writes demo.mp4 and demo.png, prints the figures."""
    from stream.demo import run_demo

    raise typer.Exit(run_demo(seconds=seconds, window=window, as_json=json, source=source))
