"""`sam2-stream view`, `subscribe` and `replay`: what listens to a daemon, or stands in for one.

Owns: the options of these commands. Runs in the main thread. Never: talks to a socket itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.failure import told
from stream.cli.signals import stopping_event

commands = typer.Typer()

Endpoint = Annotated[str, typer.Argument(help="Where the daemon publishes: tcp://HOST:PORT or ipc://PATH.")]
Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Your key, for a daemon on another machine (`keys new` made it)."),
]
DEFAULT = "tcp://127.0.0.1:5560"


@commands.command()
def view(
    endpoint: Endpoint = DEFAULT,
    camera: Annotated[str | None, typer.Option(help="A camera's name; the daemon's first unless given.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write what is shown to a video, H.264 in MP4.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End so many seconds after the first picture.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many pictures.")] = None,
    window: Annotated[bool | None, typer.Option(help="Show a window; if there is a display unless given.")] = None,
    key: Key = None,
) -> None:
    """Show a camera's pictures with their masks, live, and correct them by clicking (H: help); or save them."""
    from stream.keys import ClientKeys
    from stream.movie import MovieError
    from stream.view import ViewError, ViewOptions, run_view

    with told(ViewError, MovieError, ValueError, OSError), stopping_event() as stopping:
        keys = ClientKeys.load(key) if key else None
        options = ViewOptions(camera=camera, save=save, seconds=seconds, num_pictures=frames, window=window, keys=keys)
        num_pictures = run_view(endpoint, options, stopping)
    if save is not None and num_pictures:
        typer.echo(f"{save}: {num_pictures} pictures")


@commands.command()
def subscribe(
    endpoint: Endpoint = DEFAULT,
    camera: Annotated[
        list[str] | None, typer.Option(help="A camera's name; may be repeated. All unless given.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many masks messages.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    save: Annotated[Path | None, typer.Option(help="Record into a new .masks file.", metavar="FILE.masks")] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Take the pictures too, so that a replay can be viewed.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Fail after so many silent seconds; 0 waits for ever.")] = 10.0,
    key: Key = None,
) -> None:
    """Print what a daemon publishes, and record it."""
    from stream.client import ClientKeys, WireError
    from stream.subscribe import SubscribeRequest, run_subscribe

    cameras = tuple(camera) if camera else None
    request = SubscribeRequest(
        endpoint, cameras, count=count, as_json=json, save=save, timeout_s=timeout or None, frames=frames
    )
    with told(ValueError, WireError, OSError):
        run_subscribe(replace(request, keys=ClientKeys.load(key) if key else None))


@commands.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A recording of `subscribe --save`.", metavar="FILE.masks")],
    bind: Annotated[list[str] | None, typer.Option(help=f"Where to publish ({DEFAULT}). May be repeated.")] = None,
    speed: Annotated[float, typer.Option(help="2 is twice as fast.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end.")] = False,
) -> None:
    """Publish a recording again, in its own time."""
    from stream.replay import ReplayRequest, run_replay

    request = ReplayRequest(file, bind=tuple(bind or (DEFAULT,)), speed=speed, loop=loop)
    with told(ValueError, OSError), stopping_event() as stopping:
        num_sent = run_replay(request, stopping, lambda endpoints: typer.echo(f"publishing on {', '.join(endpoints)}"))
    typer.echo(f"{num_sent} messages sent")
