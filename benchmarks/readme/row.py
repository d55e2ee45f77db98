"""A row of the README's table of measurements, and how its figures are written.

Values and pure functions. Never: reads a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]
NOT_RECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class Row:
    """`where` is the result that the figures stand in; None where nothing was run."""

    what: str
    measured: str
    bound: str  # a ceiling, or a goal and whether it is reached
    where: Result | None
    how: str


def milliseconds(values: Iterable[float]) -> str:
    """19.5 / 115 ms, or in seconds where all are long."""
    found = list(values)
    if min(found) >= 1000:
        return f"{slashed(value / 1e3 for value in found)} s"
    return f"{slashed(found)} ms"


def slashed(values: Iterable[float]) -> str:
    return " / ".join(figure(value) for value in values)


def figure(value: float) -> str:
    """Three digits, as far as they tell something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percents(shares: Iterable[float]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares) + " %"


def goal(text: str, is_reached: bool) -> str:
    return f"goal {text}: {'reached' if is_reached else '**missed**'}"


def machine(result: Result) -> str:
    """A processor and its cores, or a GPU."""
    if result.get("gpu"):
        return str(result["gpu"])
    return f"{result.get('processor', NOT_RECORDED)}, {result.get('cores', '?')} cores, no GPU"


def versions(result: Result) -> str:
    known = [f"{name} {result[key]}" for name, key in (("torch", "torch"), ("Python", "python")) if key in result]
    return ", ".join(known)
