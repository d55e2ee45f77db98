"""How a command says that it failed.

Owns: `CommandFailed`, and `told`, which turns the exceptions that a command names into it. Runs in the main thread.
Never: catches what the command did not name; that is a bug and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandFailed(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@contextmanager
def told(*errors: type[Exception]) -> Iterator[None]:
    """Inside, these exceptions end the command with their text instead of a traceback."""
    try:
        yield
    except errors as error:
        raise CommandFailed(_text(error)) from error


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
