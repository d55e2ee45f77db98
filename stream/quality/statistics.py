"""Mean, recall and decay of a measure over the pictures of one object, as DAVIS 2017 defines them.

Owns: `Statistics`. Pure; any thread. Never: sees a mask.

Recall is the share of pictures above 0.5. Decay is how much the mean falls from the first quarter of the pictures to
the last. (The benchmark counts the quarters in eight bits, which goes wrong beyond 256 pictures; here it does not.)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

RECALL_ABOVE = 0.5
NUM_PARTS = 4


class Statistics(msgspec.Struct, frozen=True):
    """Of one measure, or the mean of them over objects."""

    mean: float
    recall: float
    decay: float


def statistics_of(values: Sequence[float]) -> Statistics:
    """Over the pictures of one object, of which there is at least one."""
    assert len(values), "statistics of no picture"
    array = np.asarray(values, np.float64)
    ends = np.round(np.linspace(1, array.size, NUM_PARTS + 1) + 1e-10).astype(np.int64) - 1
    first, last = array[ends[0] : ends[1] + 1], array[ends[-2] : ends[-1] + 1]
    recall = float(np.mean(array > RECALL_ABOVE))
    return Statistics(float(array.mean()), recall, float(first.mean() - last.mean()))


def mean_of(statistics: Sequence[Statistics]) -> Statistics:
    """Over objects, each of which counts the same, as in DAVIS."""
    assert statistics, "mean of no object"
    table = np.array([(item.mean, item.recall, item.decay) for item in statistics])
    return Statistics(*table.mean(axis=0).tolist())
