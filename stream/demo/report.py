"""The demo's figures: made from the samples, told as a table or as one JSON object.

Owns: their names and their wording. Pure functions; the demo's main thread calls them. Never: rounds before the end.

All times are of one machine's monotonic clock. `dropped` counts pictures that the camera gave but that did not reach
the receiver, whether the daemon skipped them (the newest wins) or they were lost on the way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from stream.demo.receiver import Sample
from stream.demo.score import Quality


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What `--json` prints, under these names; quality is None for a source without truth."""

    frames: int
    fps: float
    dropped: int
    arrival_to_published_ms: Spread
    arrival_to_received_ms: Spread
    mean_iou: float | None
    mean_iou_first_mask_frozen: float | None
    mean_iou_colour_threshold: float | None
    id_switches: int | None


def measure(samples: Sequence[Sample], quality: Quality | None) -> Figures:
    """`samples` in order, at least one."""
    first, last = samples[0], samples[-1]
    span_s = (last.received_ns - first.received_ns) / 1e9
    return Figures(
        frames=len(samples),
        fps=round((len(samples) - 1) / span_s, 2) if span_s > 0 else 0.0,
        dropped=last.masks.seq + 1 - len(samples),
        arrival_to_published_ms=_spread([s.masks.published_ns - s.masks.arrival_ns for s in samples]),
        arrival_to_received_ms=_spread([s.received_ns - s.masks.arrival_ns for s in samples]),
        mean_iou=_rounded(quality.mean_iou if quality else None),
        mean_iou_first_mask_frozen=_rounded(quality.first_mask_frozen if quality else None),
        mean_iou_colour_threshold=_rounded(quality.colour_threshold if quality else None),
        id_switches=quality.id_switches if quality else None,
    )


def to_json(figures: Figures) -> str:
    return json.dumps(asdict(figures))


def print_table(figures: Figures, console: Console) -> None:
    """The figures for people."""
    table = Table(title="sam2-stream demo", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    published, received = figures.arrival_to_published_ms, figures.arrival_to_received_ms
    rows = {
        "pictures received": f"{figures.frames}",
        "pictures a second": f"{figures.fps:.1f}",
        "pictures dropped": f"{figures.dropped}",
        "arrival to published, ms (p50 / p99)": f"{published.p50:.0f} / {published.p99:.0f}",
        "arrival to received, ms (p50 / p99)": f"{received.p50:.0f} / {received.p99:.0f}",
    }
    if figures.mean_iou is not None:
        rows |= {
            "mean IoU with the truth": f"{figures.mean_iou:.3f}",
            "   of the first mask, kept frozen": _shown(figures.mean_iou_first_mask_frozen),
            "   of a colour threshold": _shown(figures.mean_iou_colour_threshold),
            "switches between objects": f"{figures.id_switches}",
        }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _spread(times_ns: Sequence[int]) -> Spread:
    p50, p99 = np.percentile(np.array(times_ns) / 1e6, [50, 99])
    return Spread(round(float(p50), 2), round(float(p99), 2))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
