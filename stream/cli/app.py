"""The program `sam2-stream`: the groups of commands in one, and how a failure is told.

Owns: the exit codes and the one line on stderr that explains a failure. Runs in the main thread.
Never: holds logic, or imports torch, cv2 or av before a command that needs them is called.

Exit codes: 0 done; 1 failed; 2 wrong use of the command line; 78 a wrong configuration file; 130 interrupted.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from stream.cli import (
    commands,
    daemon,
    doctor,
    engines,
    evaluate,
    finetune,
    keys,
    reading,
    segment,
    train_nano,
    weights,
)
from stream.cli.failure import CommandFailed
from stream.config import ConfigError

_UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
_EXTRAS = {
    "torch": "daemon", "sam2": "daemon", "prometheus_client": "daemon", "PIL": "daemon", "cv2": "view", "av": "view",
    "matplotlib": "evaluate", "tensordict": "finetune", "tensorboard": "finetune",
}  # fmt: skip

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One daemon: RTSP, webcam or file frames in, exact SAM 2 masks out over ZeroMQ.",
)
app.add_typer(daemon.commands)
app.add_typer(reading.commands)
app.add_typer(commands.commands)
app.add_typer(segment.commands)
app.add_typer(doctor.commands)
app.add_typer(evaluate.commands)
app.add_typer(finetune.commands)
app.add_typer(train_nano.commands)
app.add_typer(weights.commands, name="weights")
app.add_typer(engines.commands, name="engines")
app.add_typer(keys.commands, name="keys")
app.add_typer(daemon.config_commands, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("sam2-stream"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """One daemon: RTSP, webcam or file frames in, exact SAM 2 masks out over ZeroMQ."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    # before torch is imported: its threads would spin at every barrier and starve cameras and publisher on a busy CPU
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return int(app(args=arguments, standalone_mode=False) or 0)
    except _UsageError as error:
        return _tell(error.format_message(), 2)
    except ConfigError as error:
        return _tell(str(error), error.exit_code)
    except CommandFailed as error:
        return _tell(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _tell(_missing(error), 1)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return str(error)
    extra = _EXTRAS[package]
    return f"this command needs the package {package}, expected an install with: pip install 'sam2-stream[{extra}]'"


def _tell(text: str, exit_code: int) -> int:
    if text:  # empty where the help was printed instead
        print("sam2-stream:", " ".join(text.split()), file=sys.stderr)
    return exit_code
