"""`sam2-stream keys new | list | revoke`: who may listen to a daemon, and who may command it.

Owns: what these commands print. Runs in the main thread. Never: prints a secret key.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.failure import told

commands = typer.Typer(no_args_is_help=True, help="Keys: who may reach the daemon from other machines.")


class Role(StrEnum):
    """What a key is for."""

    VIEW = "view"
    CONTROL = "control"


Name = Annotated[str, typer.Argument(help="A name for the client: A-Z a-z 0-9 _ -", show_default=False)]
Folder = Annotated[
    Path | None,
    typer.Option("--keys", help="Their folder; $SAM2_STREAM_KEYS or ~/.config/sam2-stream/keys unless given."),
]


@commands.command()
def new(
    name: Name,
    role: Annotated[Role, typer.Option(help="view: masks and pictures; control: these, and commands.")],
    keys: Folder = None,
) -> None:
    """Make a key for a client and allow it in; print the one file to hand over."""
    from stream.keys import KeyFolder, KeysError, default_folder

    folder = KeyFolder(keys or default_folder())
    with told(KeysError, OSError):
        file = folder.new(name, role.value)
    typer.echo(f"{file}: lets {name} in ({role.value}); hand it over, and keep it secret.")
    typer.echo(f"client: sam2-stream view tcp://HOST:PORT --key {file.name}")
    typer.echo(f"daemon: sam2-stream run ... --bind tcp://0.0.0.0:5560 --keys {folder.path}")


@commands.command("list")
def list_(keys: Folder = None) -> None:
    """Every client that is allowed in, its role and its public key."""
    from stream.keys import KeyFolder, KeysError, default_folder

    folder = KeyFolder(keys or default_folder())
    with told(KeysError, OSError):
        clients = folder.list()
    for client in clients:
        typer.echo(f"{client.name:<24}{client.role:<9}{client.public}")
    if not clients:
        typer.echo(f"nobody is allowed in by {folder.path}")


@commands.command()
def revoke(name: Name, keys: Folder = None) -> None:
    """Let a client in no longer: running daemons cut it off within a second."""
    from stream.keys import KeyFolder, KeysError, default_folder

    with told(KeysError, OSError):
        client = KeyFolder(keys or default_folder()).revoke(name)
    typer.echo(f"{client.name} ({client.role}) is let in no longer")
