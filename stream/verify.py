"""`verify`: an engine against the fp32 reference, end to end, on a generated clip.

Owns: the clip, the measure of agreement, and its limits. Runs in the worker's thread, before the first frame. Never:
changes an engine, or chooses one (`stream.choose` does).

The clip: 32 pictures, two objects that were clicked on, one of which leaves; from the thirteenth picture on the first
object has a second conditioning frame. So banks that fill, full ones with one and with two conditioning frames, two
rows at once, and objects that cannot be seen are all tried. What each program computes is held to tighter limits one
step at a time (`engines.build`); this finds what goes wrong between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from engines.spec import Engine
from engines.synthetic import ClipSpec, SyntheticClip
from stream.evidence import Evidence
from stream.tracker import Tracker, TrackerOptions

NUM_FRAMES = 32
CLIP = ClipSpec(seed=3_100_000_104, num_frames=NUM_FRAMES, height=360, width=480, num_objects=2)
REFINED_FRAME = 12
FRAME_NS = 33_333_333
GoOn = Callable[[Sequence[float]], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may differ by. `error` is of the middle one of all decisions (an object on a picture): a score
    near zero may fall on the other side in any precision, and what follows it differs for a while.
    """

    error: float
    worst_error: float
    mean_iou: float
    worst_iou: float
    flip_share: float


# Measured with nano on this clip: bf16 0.008, 0.012, 0.998, 0.993, 0; fp16 0.001, 0.003, 0.9997, 0.998, 0. On 13 other
# clips bf16 came to 0.010, 0.36, 0.925, 0.49, 0 at the worst. Wrong engines: see tests/test_verify.py.
LIMITS: Mapping[torch.dtype, Limits] = {
    torch.float32: Limits(error=0.0005, worst_error=0.1, mean_iou=0.98, worst_iou=0.9, flip_share=0.0),
    torch.float16: Limits(error=0.02, worst_error=0.5, mean_iou=0.92, worst_iou=0.45, flip_share=0.05),
    torch.bfloat16: Limits(error=0.03, worst_error=0.5, mean_iou=0.9, worst_iou=0.4, flip_share=0.05),
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's results compare with the reference's on the first `num_frames` pictures."""

    num_frames: int
    error: float  # largest difference of a logit, relative to the largest logit; of the middle decision
    worst_error: float  # and of the worst
    mean_iou: float
    worst_iou: float
    flip_share: float  # decisions (visible or not) that differ

    def breaches(self, dtype: torch.dtype) -> list[str]:
        """The limits of `dtype` that are not kept, in words."""
        limits, found = LIMITS[dtype], []
        for field in fields(Limits):
            value, limit = getattr(self, field.name), getattr(limits, field.name)
            is_kept = value >= limit if field.name.endswith("iou") else value <= limit
            if not is_kept:
                found.append(f"{field.name.replace('_', ' ')} {value:.3g} (limit {limit:g})")
        return found

    def __str__(self) -> str:
        iou, flips = f"IoU {self.mean_iou:.3f} (worst {self.worst_iou:.3f})", f"{self.flip_share:.0%} other decisions"
        return f"{iou}, error {self.error:.2%} (worst {self.worst_error:.2%}), {flips} on {self.num_frames} frames"


class Trial:
    """The clip, rendered once for all engines that are tried; of no use to two threads at once."""

    def __init__(self, num_frames: int = NUM_FRAMES) -> None:
        clip = SyntheticClip(CLIP)
        self._frames = [clip.frame(number) for number in range(num_frames)]
        self._clicks = [clip.click(index) for index in range(CLIP.num_objects)]
        self._again = clip.click(0, REFINED_FRAME)

    def record(self, engine: Engine, go_on: GoOn | None = None) -> Evidence:
        """Track the clip, or the beginning of it: `go_on`, told how long each step took, ends it by saying False."""
        tracker = Tracker(engine, TrackerOptions(refine_as_cond=True))
        for index, click in enumerate(self._clicks):
            tracker.add(index, points=((*click, 1),))
        logits, scores, packed, seconds = [], [], [], list[float]()
        for number, frame in enumerate(self._frames):
            if seconds and go_on is not None and not go_on(seconds):
                break
            if number == REFINED_FRAME:
                tracker.refine(0, points=((*self._again, 1),))
            start = perf_counter()
            masks = tracker.step(frame, time_ns=number * FRAME_NS)
            seconds.append(perf_counter() - start)
            logits.append(tracker.logits_nhw.float().cpu().numpy().copy())
            scores.append(masks.scores)
            packed.append(masks.packed_nhb)
        return Evidence(np.stack(logits), np.stack(scores), np.stack(packed), np.array(seconds))


def compare(found: Evidence, wanted: Evidence) -> Agreement:
    """On the pictures that both have; two empty masks agree."""
    count = min(found.num_frames, wanted.num_frames)
    flips_tn = (found.scores_tn[:count] > 0) != (wanted.scores_tn[:count] > 0)
    errors_tn, ious_tn = _errors(found, wanted, count), _ious(found.packed_tnhb[:count], wanted.packed_tnhb[:count])
    return Agreement(
        count, float(np.median(errors_tn)), float(errors_tn.max()),
        float(ious_tn.mean()), float(ious_tn.min()), float(flips_tn.mean()),
    )  # fmt: skip


def verify(engine: Engine, reference: Engine) -> Agreement:
    """Track the same clip with both."""
    trial = Trial()
    return compare(trial.record(engine), trial.record(reference))


def _errors(found: Evidence, wanted: Evidence, count: int) -> NDArray[np.float64]:
    """Of mask logits where both see the object, and of scores; what is no number is infinitely wrong."""
    scores, right_scores = found.scores_tn[:count], wanted.scores_tn[:count]
    logits, right = found.logits_tnhw[:count], wanted.logits_tnhw[:count]
    of_scores = np.abs(scores - right_scores) / max(float(np.abs(right_scores).max()), 1e-6)
    of_logits = np.abs(logits - right).max(axis=(2, 3)) / np.maximum(np.abs(right).max(axis=(2, 3)), 1e-6)
    both_see = (scores > 0) & (right_scores > 0)
    errors = np.maximum(of_scores, np.where(both_see, of_logits, 0.0)).astype(np.float64)
    is_number = np.isfinite(scores) & np.isfinite(logits).all(axis=(2, 3))
    return np.where(is_number, errors, np.inf)


def _ious(packed: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    shared, union = (
        np.bitwise_count(bits).sum(axis=(2, 3), dtype=np.int64) for bits in (packed & right, packed | right)
    )
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))
