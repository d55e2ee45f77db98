"""A row of the fault table, and where it goes: a line of JSON in the file that $SAM2_STREAM_FAULTS names."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SAM2_STREAM_FAULTS"


@dataclass(frozen=True, slots=True)
class Row:
    """What a fault test saw."""

    fault: str
    promise: str
    recovered_s: float | None = None  # None: there was nothing to recover from
    frames_lost: int | None = None
    others: str = ""


def record_row(row: Row) -> None:
    file = os.environ.get(VARIABLE)
    if file:
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(json.dumps(dataclasses.asdict(row)) + "\n")
