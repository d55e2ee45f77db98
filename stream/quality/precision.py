"""Average precision as COCO computes it for masks: every picture an image, every object on it an instance.

Owns: `Detections`, how those of a picture are matched, and the precision that follows. Pure; any thread. Never: keeps a
mask.

What orders the detections is the confidence: sigmoid(object score) x predicted IoU where the tracker tells, else 1. A
detection is a mask that is not empty. mAP is the mean over IoU thresholds 0.50, 0.55, ... 0.95 and over labels; at most
the hundred surest detections of a label count on a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
Floats = NDArray[np.float64]


class Detections(msgspec.Struct):
    """Of one label: how many objects truth has, and the detections. Written by the thread that scores."""

    num_truth: int = 0
    confidences: list[float] = []
    hits: list[int] = []  # bit i: it found an object at THRESHOLDS[i]

    def put(self, confidences: Sequence[float], ious_dt: Floats) -> None:
        """The detections and objects of one picture, and their IoU (detections, objects)."""
        order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")[:MAX_DETECTIONS]
        self.num_truth += ious_dt.shape[1]
        self.confidences += [float(confidences[row]) for row in order]
        self.hits += matches(ious_dt[order])


def matches(ious_dt: Floats) -> list[int]:
    """For each detection, surest first, the thresholds at which it gets an object that no surer one has."""
    free = np.ones((len(THRESHOLDS), ious_dt.shape[1]), np.bool_)
    found = []
    for row in ious_dt:
        bits = 0
        candidates = np.flatnonzero(row >= THRESHOLDS[0]).tolist()
        for place, threshold in enumerate(THRESHOLDS if candidates else ()):
            taken = _best(row, [column for column in candidates if free[place, column]], threshold)
            if taken is not None:
                free[place, taken] = False
                bits |= 1 << place
        found.append(bits)
    return found


def _best(row: Floats, columns: Iterable[int], threshold: float) -> int | None:
    """Of equals the last, as COCO's code has it."""
    best, found = min(threshold, 1 - 1e-10), None
    for column in columns:
        if row[column] >= best:
            best, found = float(row[column]), column
    return found


def merged(parts: Iterable[Mapping[str, Detections]]) -> dict[str, Detections]:
    """The detections of several sequences by label."""
    whole: dict[str, Detections] = {}
    for part in parts:
        for label, detections in part.items():
            into = whole.setdefault(label, Detections())
            into.num_truth += detections.num_truth
            into.confidences += detections.confidences
            into.hits += detections.hits
    return whole


def average_precisions(detections: Detections) -> Floats | None:
    """At each threshold; None where truth has no object."""
    if not detections.num_truth:
        return None
    order = np.argsort(-np.asarray(detections.confidences, np.float64), kind="stable")
    bits = np.asarray(detections.hits, np.int64)[order]
    return np.array([_average_precision((bits >> place) & 1, detections.num_truth) for place in range(len(THRESHOLDS))])


def _average_precision(hits: NDArray[np.int64], num_truth: int) -> float:
    num_right = np.cumsum(hits)
    recall = num_right / num_truth
    precision = num_right / np.arange(1, hits.size + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    reached = places < hits.size
    return float(envelope[places[reached]].sum() / RECALLS.size)
