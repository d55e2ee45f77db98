"""`MotionPolicy`: which of the masks that compete is the object, and whether what was found may enter memory.

Owns: the rules of `memory_policy = "motion"`, and what they remember of an object (`Motion`). Values only; the worker's
thread. Never: touches a tensor, or knows a camera.

After the ideas of SAMURAI (Yang et al., 2024: a Kalman filter weighs the three masks together with the predicted IoU;
only trusted frames enter memory) and DAM4SAM (Videnovic et al., 2025: a frame on which look-alikes compete is kept as
an anchor); the code is our own, and so are the rules that make an object "hidden":

1. Choice: predicted IoU and agreement with the predicted place and size decide together, once the object was followed
   for `STABLE_FRAMES`; before that, as in SAM 2, the IoU alone.
2. Jump: a mask that lies where the object cannot have come is not it. The gate grows with the time that the object was
   not seen, until after `PATIENCE` frames anything may be it again.
3. Claim: of two objects that claim the same pixels, that one has them whose place they fit better; the other takes
   another of its masks, or is hidden.
4. Memory: what is hidden or absent, or has a low predicted IoU, is not remembered. For the memory that frame has not
   been: its clock stands still, so that the recent memories are the last accepted ones.
5. Anchor: a trusted frame on which another mask competed is kept in a prompt slot that no person's prompt uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream.motion import BoxFilter, Place

PolicyName = Literal["sam2", "motion"]
POLICIES: tuple[PolicyName, ...] = ("sam2", "motion")


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """How memory is kept. Prompts beyond `max_cond_frames` evict the oldest but the first.

    `memory_policy` and `camera_motion` hold for cameras and objects that have none of their own.
    """

    max_cond_frames: int = 2
    refine_as_cond: bool = False  # official `add_all_frames_to_correct_as_cond`
    memory_policy: PolicyName = "sam2"
    camera_motion: bool = False


MOTION_WEIGHT = 0.3
STABLE_FRAMES = 3
MIN_IOU = 0.4  # of what enters memory
MAX_JUMP = 4.0  # standard deviations
MAX_JUMP_SIZES = 0.6  # ... and never less than so many sizes of the object
PATIENCE = 30  # frames
CLAIM_IOU = 0.6
ANCHOR_IOU = 0.7
ANCHOR_EVERY = 8  # accepted frames
ANCHOR_RATIO = 0.7
ANCHOR_AREA = 0.25
NUM_AREAS = 10


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known of one object's motion; part of its snapshot."""

    filter: BoxFilter
    num_stable: int = 0  # frames in a row on which it was seen where it was expected
    num_missed: int = 0  # frames since it was seen
    num_since_anchor: int = 0  # accepted frames
    areas: tuple[float, ...] = ()  # of the last accepted frames, shares of the picture

    def predicted(self, camera_23: NDArray[np.float64] | None) -> Motion:
        """On the next picture, to which the camera has moved so."""
        moved = self.filter if camera_23 is None else self.filter.moved(camera_23)
        return dataclasses.replace(self, filter=moved.predict())

    def missed(self) -> Motion:
        """After a picture on which it was not seen."""
        return dataclasses.replace(self, filter=self.filter.miss(), num_stable=0, num_missed=self.num_missed + 1)

    def seen(self, place: Place, area: float, is_remembered: bool, is_anchor: bool) -> Motion:
        """After a picture on which it was seen there."""
        is_far = self.num_missed > 0 and self.filter.distance(place) > MAX_JUMP
        areas = (*self.areas, area)[-NUM_AREAS:] if is_remembered else self.areas
        num_since_anchor = 0 if is_anchor else self.num_since_anchor + is_remembered
        filter_ = BoxFilter.start(place) if is_far else self.filter.update(place)
        return Motion(filter_, self.num_stable + 1, 0, num_since_anchor, areas)


@dataclass(frozen=True, slots=True)
class Claims:
    """The masks that compete for the objects of one camera on one picture."""

    places_nk4: NDArray[np.float64]  # centre x, y, width, height as shares of the picture; zeros where empty
    areas_nk: NDArray[np.float64]  # shares of the picture
    ious_nk: NDArray[np.float64]  # the model's estimates
    scores_n: NDArray[np.float64]
    overlaps_nknk: NDArray[np.float64]  # IoU of every two masks

    def place(self, row: int, choice: int) -> Place:
        return Place(*map(float, self.places_nk4[row, choice]))


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided about one object."""

    choice: int
    is_seen: bool  # else the mask is empty and the object hidden, whatever the model says
    is_remembered: bool
    is_anchor: bool
    motion: Motion | None


def rule(claims: Claims, motions: Sequence[Motion | None]) -> list[Ruling]:
    """Decide about all objects of a camera; `motions` are predicted to this picture, None of one that was prompted on
    the last one: it is what SAM 2 says it is.
    """
    scores_nk = np.full(claims.ious_nk.shape, -np.inf)
    fits_nk = np.zeros(claims.ious_nk.shape)
    for row, motion in enumerate(motions):
        for choice in range(claims.ious_nk.shape[1]):
            if claims.scores_n[row] > 0 and claims.areas_nk[row, choice]:
                fits_nk[row, choice], scores_nk[row, choice] = _rated(claims, row, choice, motion)
    choices = _settle(scores_nk, fits_nk, claims.overlaps_nknk)
    return [_ruling(claims, row, choices[row], motion) for row, motion in enumerate(motions)]


def _rated(claims: Claims, row: int, choice: int, motion: Motion | None) -> tuple[float, float]:
    """How well a mask fits what was expected, 0 to 1, and its score with the model's estimate."""
    place, iou = claims.place(row, choice), float(claims.ious_nk[row, choice])
    if motion is None:
        return 0.0, iou
    fit = motion.filter.likelihood(place)
    weight = MOTION_WEIGHT if motion.num_stable >= STABLE_FRAMES else 0.0
    return fit, weight * fit + (1 - weight) * iou if _is_possible(motion, place) else -np.inf


def _is_possible(motion: Motion, place: Place) -> bool:
    """Whether the object can have come there."""
    if (motion.num_stable < STABLE_FRAMES and not motion.num_missed) or motion.num_missed >= PATIENCE:
        return True
    expected = motion.filter.place
    sizes = np.hypot((place.x - expected.x) / expected.width, (place.y - expected.y) / expected.height)
    return bool(sizes <= MAX_JUMP_SIZES or motion.filter.distance(place) <= MAX_JUMP)


def _settle(
    scores_nk: NDArray[np.float64], fits_nk: NDArray[np.float64], overlaps: NDArray[np.float64]
) -> list[int | None]:
    """The best mask of each object; of two that claim the same, the one that it fits less takes its next one."""
    left = scores_nk.copy()
    while True:
        choices = [int(row.argmax()) if np.isfinite(row.max()) else None for row in left]
        worst = None
        for one in range(len(choices)):
            for other in range(one):
                a, b = choices[one], choices[other]
                if a is not None and b is not None and overlaps[one, a, other, b] > CLAIM_IOU:
                    worst = (one, a) if fits_nk[one, a] < fits_nk[other, b] else (other, b)
        if worst is None:
            return choices
        left[worst] = -np.inf


def _ruling(claims: Claims, row: int, choice: int | None, motion: Motion | None) -> Ruling:
    if choice is None:
        return Ruling(
            int(claims.ious_nk[row].argmax()), False, False, False, None if motion is None else motion.missed()
        )
    place, area, iou = claims.place(row, choice), float(claims.areas_nk[row, choice]), claims.ious_nk[row, choice]
    is_remembered = bool(iou >= MIN_IOU)
    if motion is None:
        return Ruling(choice, True, is_remembered, False, Motion(BoxFilter.start(place), areas=(area,)))
    is_anchor = is_remembered and _is_anchor(claims, row, choice, motion)
    return Ruling(choice, True, is_remembered, is_anchor, motion.seen(place, area, is_remembered, is_anchor))


def _is_anchor(claims: Claims, row: int, choice: int, motion: Motion) -> bool:
    """Trusted, of its usual size, and another mask spoke for something else."""
    if motion.num_stable < STABLE_FRAMES or motion.num_since_anchor < ANCHOR_EVERY:
        return False
    if claims.ious_nk[row, choice] < ANCHOR_IOU:
        return False
    usual = float(np.median(motion.areas))
    if abs(float(claims.areas_nk[row, choice]) / usual - 1) > ANCHOR_AREA:
        return False
    others = [claims.place(row, k) for k in range(claims.ious_nk.shape[1]) if k != choice]
    own = claims.place(row, choice)
    return any(_ratio(own, other) < ANCHOR_RATIO for other in others if other.width)


def _ratio(own: Place, other: Place) -> float:
    """The own box's share of the box around both."""
    spans = 1.0
    for middle, size, middle2, size2 in (
        (own.x, own.width, other.x, other.width),
        (own.y, own.height, other.y, other.height),
    ):
        spans *= max(middle + size / 2, middle2 + size2 / 2) - min(middle - size / 2, middle2 - size2 / 2)
    return own.width * own.height / spans if spans else 1.0
