"""How good the received masks are: IoU with the truth, beside two baselines, and switches between objects.

Owns: the sums behind the figures. Runs in the demo's main thread. Never: looks at a picture's time, or leaves out a
picture that was received, except those of a pass whose first picture was lost: its clicks are meant for that one.

The IoU of an object that is hidden is 1 if its mask is empty, else 0. Rows that the burnt-in number covers do not
count. An id switches when its mask overlaps another true object than before by an IoU above one half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.synthetic import strip_height
from stream.demo.baseline import ColourThreshold, to_lab

Bools = NDArray[np.bool_]
SWITCH_IOU = 0.5


def iou(predicted: Bools, truth: Bools) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int(np.count_nonzero(predicted | truth))
    return int(np.count_nonzero(predicted & truth)) / union if union else 1.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all objects and all scored pictures; `colour_threshold` over those that came with their picture."""

    mean_iou: float
    first_mask_frozen: float
    colour_threshold: float | None
    id_switches: int
    num_scored: int


class Scorer:
    """Written by the thread that calls `put`; pictures in order."""

    def __init__(self, num_objects: int) -> None:
        self.num_switches = 0
        self._num_objects = num_objects
        self._ious: list[list[float]] = []
        self._frozen_ious: list[list[float]] = []
        self._frozen: Bools | None = None
        self._matches = list(range(num_objects))
        self._colours: list[ColourThreshold] = []

    def start_pass(self, masks_nhw: Bools) -> None:
        """The clip starts over, with these masks on its first picture."""
        self._frozen = masks_nhw[:, strip_height(masks_nhw.shape[1]) :]
        self._matches = list(range(self._num_objects))

    def put(self, masks_nhw: Bools, truth_nhw: Bools, image_hwc: NDArray[np.uint8] | None) -> list[float]:
        """Score one picture; each object's IoU."""
        assert self._frozen is not None, "a pass starts before its first picture is scored"
        top = strip_height(truth_nhw.shape[1])
        masks_nhw, truth_nhw = masks_nhw[:, top:], truth_nhw[:, top:]
        self._ious.append(_pairwise(masks_nhw, truth_nhw))
        self._frozen_ious.append(_pairwise(self._frozen, truth_nhw))
        self._follow(masks_nhw, truth_nhw)
        if image_hwc is not None:
            self._score_colours(to_lab(image_hwc[top:]), truth_nhw)
        return self._ious[-1]

    @property
    def quality(self) -> Quality | None:
        """None where nothing was scored."""
        if not self._ious:
            return None
        colours = [colour.best_mean for colour in self._colours]
        return Quality(
            mean_iou=float(np.mean(self._ious)),
            first_mask_frozen=float(np.mean(self._frozen_ious)),
            colour_threshold=float(np.mean(colours)) if colours else None,
            id_switches=self.num_switches,
            num_scored=len(self._ious),
        )

    def _follow(self, masks_nhw: Bools, truth_nhw: Bools) -> None:
        for number, mask_hw in enumerate(masks_nhw):
            overlaps = [iou(mask_hw, truth_hw) for truth_hw in truth_nhw]
            best = int(np.argmax(overlaps))
            if mask_hw.any() and overlaps[best] > SWITCH_IOU and best != self._matches[number]:
                self.num_switches += 1
                self._matches[number] = best

    def _score_colours(self, lab_hwc: NDArray[np.uint8], truth_nhw: Bools) -> None:
        if not self._colours and truth_nhw.any((1, 2)).all():
            self._colours = [ColourThreshold(lab_hwc, truth_hw) for truth_hw in truth_nhw]
        for colour, truth_hw in zip(self._colours, truth_nhw, strict=bool(self._colours)):
            colour.score(lab_hwc, truth_hw, iou)


def _pairwise(masks_nhw: Bools, truth_nhw: Bools) -> list[float]:
    return [iou(mask_hw, truth_hw) for mask_hw, truth_hw in zip(masks_nhw, truth_nhw, strict=True)]
