"""The figures as rows of text: for the terminal and for the report.

Owns: which figures are shown, their names and digits. Pure functions; any thread. Never: computes a figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from stream.evaluate.speed import Speed
from stream.quality import SequenceScore, Summary, summarise

COLUMNS = (
    "sequence", "objects", "J&F", "J", "F", "precision", "recall", "F1", "mAP", "instability", "switches",
    "found again",
)  # fmt: skip
MORE_COLUMNS = ("J recall", "J decay", "F recall", "F decay", "jitter", "truth's")  # not on the terminal
NOTHING = "-"
Row = tuple[str, ...]


def rows_of(scores: Sequence[SequenceScore], *, is_wide: bool = False) -> tuple[Row, ...]:
    """Names of the columns, every sequence, and all of them together."""
    pairs = [*((score.name, summarise([score])) for score in scores), ("all", summarise(scores))]
    rows = (COLUMNS, *(_row(*pair) for pair in pairs))
    if not is_wide:
        return rows
    more = (MORE_COLUMNS, *(_more(summary) for _, summary in pairs))
    return tuple((*row, *rest) for row, rest in zip(rows, more, strict=True))


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Columns one below the other; a line above the last row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *right)))
    return [*lines[:-1], "-" * len(lines[0]), lines[-1]]


def headline_of(summary: Summary | None, speed: Speed | None) -> tuple[tuple[str, str], ...]:
    """The few figures that are shown large."""
    found: list[tuple[str, str]] = []
    if summary is not None:
        found += [("J&F", share(summary.j_and_f)), ("J, region", share(summary.j.mean))]
        found += [("F, boundary", share(summary.f.mean))]
        found += [("mAP 0.50:0.95", share(summary.map.ap))] if summary.map is not None else []
        found += [("instability", share(summary.instability)), ("identity switches", str(summary.num_switches))]
    if speed is not None:
        found.append(("pictures/s, tracker alone", f"{speed.pictures_per_s:.1f}"))
    return tuple(found)


def notes_of(scores: Sequence[SequenceScore], summary: Summary) -> list[str]:
    """What the table has no column for, a line each."""
    lines = [
        f"J: recall {share(summary.j.recall)}, decay {share(summary.j.decay)}; "
        f"F: recall {share(summary.f.recall)}, decay {share(summary.f.decay)}; "
        f"jitter {share(summary.jitter)}, of the truth itself {share(summary.jitter_truth)}"
    ]
    labels = {label: found for label, found in summary.map_per_label.items() if label}
    if labels:
        lines.append("mAP by label: " + ", ".join(f"{label} {share(found.ap)}" for label, found in labels.items()))
    if summary.num_returns:
        pictures = summary.pictures_to_reacquire
        after = f", after {pictures:.1f} pictures on average" if pictures is not None else ""
        lines.append(
            f"{summary.num_reacquired} of {summary.num_returns} objects that came back were found again{after}"
        )
    if summary.num_missing:
        lines.append(f"{summary.num_missing} of {summary.num_frames} pictures have no prediction and count as empty")
    lost = [f"{score.name}: {', '.join(map(str, score.unmatched))}" for score in scores if score.unmatched]
    if lost:
        lines.append("predicted ids that belong to no true object: " + "; ".join(lost))
    unseen = [f"{score.name}: {', '.join(map(str, score.hidden))}" for score in scores if score.hidden]
    if unseen:
        lines.append("true objects that no scored picture can judge: " + "; ".join(unseen))
    return lines


def speed_line(speed: Speed) -> str:
    """Speed, and what it was measured on."""
    return (
        f"{speed.pictures_per_s:.1f} pictures/s, {speed.ms_per_picture:.1f} ms each, the tracker alone, with "
        f"{speed.objects_per_picture:.1f} objects on average, over {speed.num_pictures} pictures; {speed.hardware}"
    )


def share(value: float | None) -> str:
    """0 to 1 with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def _row(name: str, summary: Summary | None) -> Row:
    if summary is None:
        return (name, "0", *(NOTHING for _ in COLUMNS[2:]))
    shares = (
        summary.j_and_f, summary.j.mean, summary.f.mean, summary.precision, summary.recall, summary.f1,
        None if summary.map is None else summary.map.ap, summary.instability,
    )  # fmt: skip
    back = f"{summary.num_reacquired}/{summary.num_returns}" if summary.num_returns else NOTHING
    return (name, str(summary.num_objects), *map(share, shares), str(summary.num_switches), back)


def _more(summary: Summary | None) -> Row:
    if summary is None:
        return tuple(NOTHING for _ in MORE_COLUMNS)
    j, f = summary.j, summary.f
    return tuple(map(share, (j.recall, j.decay, f.recall, f.decay, summary.jitter, summary.jitter_truth)))
