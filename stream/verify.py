"""`verify`: an engine against the fp32 reference, end to end, on a generated clip.

Owns: the measure of agreement and its limit. Runs in the worker's thread, before the first frame. Never: changes an
engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.spec import Engine
from engines.synthetic import ClipSpec, SyntheticClip
from stream.tracker import Tracker

NUM_FRAMES = 8
MIN_MEAN_IOU = 0.95
MAX_FLIPS = 1  # of NUM_FRAMES x 2 score decisions; one may be a tie
_CLIP = ClipSpec(seed=3_100_000_001, num_frames=NUM_FRAMES, height=360, width=480, num_objects=2)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's masks compare with the reference's."""

    mean_iou: float
    num_flips: int  # object decisions (visible or not) that differ

    @property
    def is_enough(self) -> bool:
        return self.mean_iou >= MIN_MEAN_IOU and self.num_flips <= MAX_FLIPS


def verify(engine: Engine, reference: Engine) -> Agreement:
    """Track the same clip with both; empty masks agree."""
    clip = SyntheticClip(_CLIP)
    trackers = (Tracker(engine), Tracker(reference))
    for tracker in trackers:
        for index in range(_CLIP.num_objects):
            tracker.add(index, points=((*clip.click(index), 1),))
    ious: list[float] = []
    num_flips = 0
    for number in range(NUM_FRAMES):
        ours, wanted = (tracker.step(clip.frame(number)) for tracker in trackers)
        num_flips += int(((ours.scores > 0) != (wanted.scores > 0)).sum())
        union = (ours.masks_nhw | wanted.masks_nhw).sum(axis=(1, 2))
        shared = (ours.masks_nhw & wanted.masks_nhw).sum(axis=(1, 2))
        ious.extend(np.where(union == 0, 1.0, shared / np.maximum(union, 1)).tolist())
    return Agreement(float(np.mean(ious)), num_flips)
