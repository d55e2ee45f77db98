"""`Progress`: how far an evaluation is.

Owns: the value. Any thread. Never: draws.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Pictures of sequences that were done before count as done."""

    sequence: str
    num_done: int  # pictures
    num_pictures: int  # of all sequences
