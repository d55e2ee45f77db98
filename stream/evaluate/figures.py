"""What a report shows, apart from how: bars, curves and worst pictures.

Owns: `Bar`, `Curve`, `WorstView`, `Page`, and which pictures are the worst. Values and pure functions; any thread.
Never: draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream.sequence import Bits, Image

MAX_WORST = 9
MAX_PLOTS = 16  # of IoU over time: the worst sequences


@dataclass(frozen=True, slots=True)
class Bar:
    """One sequence's means, 0 to 1; None where there is nothing to measure."""

    name: str
    region: float | None
    boundary: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """IoU of one object over the pictures that were scored, of which there is one at least."""

    sequence: str
    object_id: int
    label: str
    numbers: tuple[int, ...]
    ious: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One object on one picture."""

    sequence: str
    object_id: int
    number: int
    iou: float


@dataclass(frozen=True, slots=True)
class WorstView:
    """A picture with the object's true and predicted mask; grey where the video is not at hand."""

    place: Place
    image_hwc: Image
    truth: Bits
    found: Bits

    @property
    def caption(self) -> str:
        """Which picture, and how bad."""
        place = self.place
        hidden = "" if self.truth.any() else " (it is hidden)"
        return f"{place.sequence}, picture {place.number}, object {place.object_id}{hidden}: IoU {place.iou:.2f}"


@dataclass(frozen=True, slots=True)
class Page:
    """All of a report."""

    title: str
    facts: tuple[tuple[str, str], ...]
    headline: tuple[tuple[str, str], ...]  # the few figures that are shown large: name, value
    table: tuple[tuple[str, ...], ...]  # the first row names the columns, the last has the means
    bars: tuple[Bar, ...]
    curves: tuple[Curve, ...]
    views: tuple[WorstView, ...]


def worst_places(curves: Iterable[Curve], *, most: int = MAX_WORST) -> list[Place]:
    """The worst picture of each object, the worst first."""
    places = []
    for curve in curves:
        iou, number = min(zip(curve.ious, curve.numbers, strict=True))
        places.append(Place(curve.sequence, curve.object_id, number, iou))
    return sorted(places, key=lambda place: (place.iou, place.sequence, place.object_id))[:most]


def by_sequence(curves: Sequence[Curve], *, most: int = MAX_PLOTS) -> dict[str, list[Curve]]:
    """Curves of the sequences with the lowest mean IoU, in the order of the data set."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.sequence, []).append(curve)
    worst = sorted(groups, key=lambda name: _mean([iou for curve in groups[name] for iou in curve.ious]))[:most]
    return {name: group for name, group in groups.items() if name in worst}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
