"""`sam2-stream view`: what listens to a daemon.

Owns: the options of these commands. Runs in the main thread. Never: talks to a socket itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.failure import told

commands = typer.Typer()

Endpoint = Annotated[str, typer.Argument(help="Where the daemon publishes.")]
Camera = Annotated[str | None, typer.Option(help="A camera's name; the first that is heard unless given.")]


@commands.command()
def view(
    endpoint: Endpoint = "tcp://127.0.0.1:5560",
    camera: Camera = None,
    save: Annotated[Path | None, typer.Option(help="Write what is shown to a video, H.264 in MP4.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so many seconds.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many pictures.")] = None,
    window: Annotated[bool | None, typer.Option(help="Show a window; if there is a display unless given.")] = None,
) -> None:
    """Show a camera's pictures with their masks, live; and save them."""
    from stream.view import ViewError, ViewOptions, view

    with told(ViewError):
        view(endpoint, ViewOptions(camera=camera, save=save, seconds=seconds, num_frames=frames, window=window))
