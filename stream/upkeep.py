"""`Upkeep`: what an engine wants besides being called.

Owns: the contract between the worker, which knows when, and `stream.loader`, which knows what. The thread of each call
stands with it. Never: does anything.
"""

from __future__ import annotations

from typing import Protocol


class Upkeep(Protocol):
    """`stream.loader` fulfils it."""

    def tend(self) -> None:
        """Between two turns, in the worker's thread."""
        ...

    def close(self) -> None:
        """After the last turn, or instead of the first, in the worker's thread."""
        ...

    def hurry(self) -> None:
        """The daemon ends: what is still being loaded will not be used. Any thread."""
        ...
