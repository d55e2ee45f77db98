"""`Summary`: the figures of a set of sequences.

Owns: how they are averaged. Pure; any thread. Never: sees a mask.

J and F are means over objects, whatever their sequence (DAVIS 2017); so are precision, recall and F1 of the pixels,
each the mean over an object's pictures, and jitter. mAP is over all pictures of all sequences, by label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from stream.quality.precision import Detections, average_precisions, merged
from stream.quality.score import ObjectScore, SequenceScore
from stream.quality.statistics import Statistics, mean_of


class Precision(msgspec.Struct, frozen=True):
    """Of one label, or their mean."""

    ap: float  # over IoU 0.50:0.95
    ap50: float
    ap75: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over all sequences; None where nothing could be measured."""

    num_sequences: int
    num_objects: int
    num_frames: int  # pictures scored
    num_missing: int  # of them not in the prediction
    j: Statistics
    f: Statistics
    j_and_f: float
    precision: float
    recall: float
    f1: float
    map: Precision | None
    map_per_label: dict[str, Precision]
    jitter: float | None
    jitter_truth: float | None
    instability: float | None
    num_switches: int
    num_returns: int  # absences that ended
    num_reacquired: int  # ... after which the prediction was on its object again
    pictures_to_reacquire: float | None  # mean over those


def summarise(scores: Sequence[SequenceScore]) -> Summary | None:
    """None where there is no object to speak of."""
    objects = [item for score in scores for item in score.objects]
    if not objects:
        return None
    region, boundary = mean_of([item.region for item in objects]), mean_of([item.boundary for item in objects])
    per_label = precisions(score.detections for score in scores)
    returns = [pictures for item in objects for pictures in item.returns]
    back = [pictures for pictures in returns if pictures is not None]
    return Summary(
        num_sequences=len(scores), num_objects=len(objects), num_frames=sum(len(score.frames) for score in scores),
        num_missing=sum(score.num_missing for score in scores),
        j=region, f=boundary, j_and_f=(region.mean + boundary.mean) / 2,
        precision=_mean(float(np.mean(item.precisions())) for item in objects) or 0.0,
        recall=_mean(float(np.mean(item.recalls())) for item in objects) or 0.0,
        f1=_mean(float(np.mean(item.f1s())) for item in objects) or 0.0,
        map=_mean_precision(per_label), map_per_label=per_label,
        **_steadiness(objects),
        num_switches=sum(item.num_switches for item in objects),
        num_returns=len(returns), num_reacquired=len(back), pictures_to_reacquire=_mean(back),
    )  # fmt: skip


def precisions(parts: Iterable[Mapping[str, Detections]]) -> dict[str, Precision]:
    """By label; labels that truth does not have are left out, as COCO does."""
    found = {label: average_precisions(detections) for label, detections in sorted(merged(parts).items())}
    return {
        label: Precision(float(values.mean()), float(values[0]), float(values[5]))
        for label, values in found.items()
        if values is not None
    }


def _mean_precision(per_label: Mapping[str, Precision]) -> Precision | None:
    if not per_label:
        return None
    table = np.array([(item.ap, item.ap50, item.ap75) for item in per_label.values()])
    return Precision(*table.mean(axis=0).tolist())


def _steadiness(objects: Sequence[ObjectScore]) -> dict[str, float | None]:
    measured = [item for item in objects if item.jitter is not None]
    return {
        "jitter": _mean(item.jitter for item in measured if item.jitter is not None),
        "jitter_truth": _mean(item.jitter_truth for item in measured if item.jitter_truth is not None),
        "instability": _mean(item.instability for item in measured if item.instability is not None),
    }


def _mean(values: Iterable[float]) -> float | None:
    every = list(values)
    return float(np.mean(every)) if every else None
