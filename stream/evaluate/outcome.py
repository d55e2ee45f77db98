"""`Outcome`: all that an evaluation has found, for the terminal, for JSON and for a report.

Owns: the keys of the JSON. Values; any thread. Never: computes a figure, or needs matplotlib.

JSON: {"settings": {} or null, "speed": {} or null, "summary": {} or null, "sequences": [{"summary", "score"}]};
`summary` as `stream.quality.Summary`, `score` as `stream.quality.SequenceScore` with every picture's J and F.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stream.evaluate.pairing import Exhibit
from stream.evaluate.shelf import Settings, write_json
from stream.evaluate.speed import Speed
from stream.evaluate.table import lines_of, notes_of, rows_of, speed_line
from stream.quality import SequenceScore, summarise

REPORT_SUFFIXES = (".html", ".png", ".jpg")


class ReportError(ValueError):
    """A report cannot be written; the text is one line that names it and what was expected."""


def check_report(path: Path) -> None:
    """Raises `ReportError` for an ending that is none of a report's, or a missing folder."""
    if path.suffix.lower() not in REPORT_SUFFIXES:
        raise ReportError(f"{path}: expected a name that ends in {', '.join(REPORT_SUFFIXES)}")
    if not path.parent.is_dir():
        raise ReportError(f"{path}: there is no folder {path.parent}, expected one that exists")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`settings` and `speed` are the tracker's, None where masks were compared that lay there."""

    scores: tuple[SequenceScore, ...]
    exhibits: tuple[Exhibit, ...]
    facts: Mapping[str, str]
    settings: Settings | None = None
    speed: Speed | None = None

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        summary = summarise(self.scores)
        if summary is None:
            yield "nothing to score: expected at least three annotated pictures of a sequence, with an object on them"
        else:
            yield from lines_of(rows_of(self.scores))
            yield from notes_of(self.scores, summary)
        if self.speed is not None:
            yield speed_line(self.speed)

    def write_json(self, path: Path) -> None:
        """Raises OSError."""
        sequences = [{"summary": summarise([score]), "score": score} for score in self.scores]
        found: dict[str, Any] = {"settings": self.settings, "speed": self.speed, "summary": summarise(self.scores)}
        write_json(path, msgspec.to_builtins({**found, "sequences": sequences}))
