"""How steady a mask is: jitter that the object's own motion does not explain.

Owns: the running sums of one object. Thread: the one that made it. Never: keeps more than the last picture's masks.

Of two consecutive pictures the earlier mask is moved as truth's centroid moved, in whole pixels; what it then has not
in common with the later one is jitter: 1 - IoU. The same is done for truth, whose jitter is deformation, rotation and
what is hidden. Instability is the difference of the means: 0 for a mask that changes as the object does, above 0
for one that flickers. Pairs in which a mask is empty, of prediction or truth, say nothing.
"""

from __future__ import annotations

from stream.quality.blob import EMPTY, Blob, iou


class Stability:
    """Written by the thread that made it: the last masks and three sums."""

    __slots__ = ("_prediction", "_truth", "num_pairs", "of_prediction", "of_truth")

    def __init__(self) -> None:
        self._prediction, self._truth = EMPTY, EMPTY
        self.num_pairs = 0
        self.of_prediction = self.of_truth = 0.0

    def put(self, prediction: Blob, truth: Blob) -> None:
        before, truth_before = self._prediction, self._truth
        self._prediction, self._truth = prediction, truth
        if not (before.area and truth_before.area and prediction.area and truth.area):
            return
        (y, x), (y_before, x_before) = truth.centroid(), truth_before.centroid()
        dy, dx = round(y - y_before), round(x - x_before)
        self.of_prediction += 1 - iou(before.moved(dy, dx), prediction)
        self.of_truth += 1 - iou(truth_before.moved(dy, dx), truth)
        self.num_pairs += 1

    def means(self) -> tuple[float, float] | None:
        """Jitter of the prediction and of truth; None without a pair."""
        return (self.of_prediction / self.num_pairs, self.of_truth / self.num_pairs) if self.num_pairs else None
