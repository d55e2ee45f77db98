"""The memory policy "motion": which of the masks that compete is the object, and whether it may enter memory.

Owns: the rules, and what they remember of an object (`Motion`). Values only; the worker's thread. Never: touches a
tensor, or knows a camera.

After the ideas of SAMURAI (Yang et al., 2024: a Kalman filter weighs the three masks together with the predicted IoU;
only trusted frames enter memory) and DAM4SAM (Videnovic et al., 2025: a frame on which look-alikes compete is kept as
an anchor). The code is our own, and so are rules 2 to 4:

1. Choice: predicted IoU and agreement with the expected place and size decide together, once the object was followed
   for `STABLE_FRAMES`; before that, as in SAM 2, the IoU alone.
2. Cut: what of a mask the object cannot be is cut off (`stream.parts`).
3. Jump: a mask that lies where the object cannot have come is not it. The gate grows with the time that the object was
   not seen, until after `PATIENCE` frames anything may be it again.
4. Claim: pixels that two objects claim belong to the nearer one; where that leaves one of them next to nothing, it is
   hidden behind the other.
5. Memory: a frame is not remembered when the object is hidden or absent, the predicted IoU is low, or the mask was cut
   through. For the memory that frame has not been: its clock stands still, so that the recent memories are the last
   accepted ones.
6. Anchor: a trusted frame on which another mask competed is kept in a prompt slot that no person's prompt uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream.motion import BoxFilter, Place
from stream.parts import Cut, area_of, cut, place_of, share_of_both, share_out, touches_edge

PolicyName = Literal["sam2", "motion"]
POLICIES: tuple[PolicyName, ...] = ("sam2", "motion")

MOTION_WEIGHT = 0.3
STABLE_FRAMES = 3
MIN_IOU = 0.4  # of what enters memory
MAX_JUMP = 0.4  # sizes of the object
UNREST = 3.0  # ... and so many times its usual surprise
STRAY, STRAY_SHARE = 0.07, 0.6  # ... and so many sizes and strides more with every frame that it was not seen
PATIENCE = 30  # frames
MIN_SHARE = 0.3  # of its expected area: an object with less of what it claims is hidden
MAX_CONTESTED = 0.15  # of a mask that enters memory
ANCHOR_IOU = 0.7
ANCHOR_EVERY = 8  # accepted frames
ANCHOR_AREA = 0.25
NUM_AREAS = 10
WHOLE = 0.6  # of the expected box's area; less is a part
PARTIAL_FRAMES = 8  # after so many it is whole: it has changed
MIN_PART = 0.3  # of the expected box's area, of what enters memory
RIVAL_RATIO = 0.6  # of the box around two masks: below it the other speaks for something else
RIVAL_FRAMES = 15  # that a look-alike is thought to be near after it was seen
MAX_RIVALLED = 40  # frames in a row: who always has a rival has none
RIVALLED_AREA = 0.25  # by which a mask may differ from the last one that entered memory then
MIN_LEFT = 0.3  # of a mask that was cut: less of it is no sight of the object
BACK = 0.7  # of the usual estimate, in what ends a search
USUAL, USUAL_BESIDE = 0.7, 0.85  # of what is usual, in what enters memory; beside a look-alike
HABIT = 0.15  # the newest accepted frame's part in what is usual
PARTIAL_DOUBT = 12.0  # ... and of a faint part: its middle moves as its cover does
DOUBT = 4.0  # times the noise of a place that was cut through


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known of one object's motion; part of its snapshot."""

    filter: BoxFilter
    num_stable: int = 0  # frames in a row on which it was seen
    num_missed: int = 0  # frames since it was seen
    num_partial: int = 0  # frames since it was seen whole
    stray: float = 0.0  # sizes that it may have gone astray since it was seen
    num_since_anchor: int = 0  # accepted frames
    areas: tuple[float, ...] = ()  # of the last accepted frames, shares of the picture
    usual_iou: float = 0.0  # the model's estimates on accepted frames, the newest counting most
    usual_fill: float = 0.0  # the mask's share of its box, likewise
    num_calm: int = 99  # frames since another mask spoke for something else
    num_rivalled: int = 0  # frames in a row of which that was lately so

    @property
    def is_rivalled(self) -> bool:
        """Whether a look-alike is near."""
        return self.num_calm < RIVAL_FRAMES and self.num_rivalled < MAX_RIVALLED

    def remembering(self, area: float, iou: float, fill: float) -> Motion:
        """After a frame that is remembered."""
        return dataclasses.replace(
            self, num_since_anchor=self.num_since_anchor + 1, areas=(*self.areas, area)[-NUM_AREAS:],
            usual_iou=self.usual_iou + HABIT * (iou - self.usual_iou),
            usual_fill=self.usual_fill + HABIT * (fill - self.usual_fill),
        )  # fmt: skip

    @property
    def is_stable(self) -> bool:
        """Whether it was followed for long enough to expect anything."""
        return self.num_stable >= STABLE_FRAMES

    def predicted(self, camera_23: NDArray[np.float64] | None) -> Motion:
        """On the next picture, to which the camera has moved so."""
        moved = self.filter if camera_23 is None else self.filter.moved(camera_23)
        return dataclasses.replace(self, filter=moved.predict())

    def missed(self) -> Motion:
        """After a picture on which it was not seen; it stays stable."""
        stray = self.stray + STRAY + STRAY_SHARE * self.filter.strides
        return dataclasses.replace(self, filter=self.filter.miss(), num_missed=self.num_missed + 1, stray=stray)

    @property
    def reach(self) -> float:
        """How many sizes from the expected place it can be."""
        return MAX_JUMP + UNREST * self.filter.unrest + self.stray


@dataclass(frozen=True, slots=True)
class Proposed:
    """The masks that compete for one object."""

    masks_khw: NDArray[np.bool_]  # low resolution
    ious_k: NDArray[np.float64]  # the model's estimates
    score: float


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided about one object."""

    choice: int
    motion: Motion | None
    is_seen: bool = False  # else the mask is empty and the object hidden, whatever the model says
    is_remembered: bool = False
    is_anchor: bool = False
    cut_hw: NDArray[np.bool_] | None = None  # what of the mask is not the object


@dataclass(frozen=True, slots=True)
class _Pick:
    """The mask that one object would take."""

    choice: int
    cut: Cut
    place: Place


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of an object, against what is known of it."""

    place: Place
    area: float
    iou: float
    is_sure: bool  # nothing that holds together was cut through
    is_at_edge: bool

    @property
    def fill(self) -> float:
        return self.area / area_of(self.place)

    def part(self, motion: Motion) -> float:
        """Its box's share of the expected one."""
        return area_of(self.place) / area_of(motion.filter.place)

    def is_whole(self, motion: Motion) -> bool:
        return not self.is_at_edge and (self.part(motion) >= WHOLE or motion.num_partial >= PARTIAL_FRAMES)

    def is_clear(self, motion: Motion) -> bool:
        """Whether it is as usual; beside a look-alike it must be more so."""
        usual = USUAL_BESIDE if motion.is_rivalled else USUAL
        is_usual = self.iou >= usual * motion.usual_iou and self.fill >= usual * motion.usual_fill
        is_same = not motion.is_rivalled or abs(self.area / motion.areas[-1] - 1) <= RIVALLED_AREA
        return self.is_sure and is_usual and is_same


def first_motion(mask_hw: NDArray[np.bool_], iou: float) -> Motion | None:
    """Of an object that was prompted, and found to be that; None where nothing was."""
    place, area = place_of(mask_hw), float(mask_hw.mean())
    if place is None:
        return None
    fill = area / area_of(place)
    return Motion(BoxFilter.start(place), STABLE_FRAMES, areas=(area,), usual_iou=iou, usual_fill=fill)


def rule(proposed: Sequence[Proposed], motions: Sequence[Motion | None]) -> list[Ruling]:
    """Decide about all objects of a picture; `motions` are predicted to it, None of an object that was prompted on the
    last one: it is what SAM 2 says it is.
    """
    picks = [_pick(one, motion) for one, motion in zip(proposed, motions, strict=True)]
    contested = _share(picks, motions)
    return [
        _ruling(one, motion, pick, share=share)
        for one, motion, pick, share in zip(proposed, motions, picks, contested, strict=True)
    ]


def _pick(proposed: Proposed, motion: Motion | None) -> _Pick | None:
    """The best of an object's masks, by itself; None where none can be it."""
    best: tuple[float, _Pick] | None = None
    for choice, mask_hw in enumerate(proposed.masks_khw if proposed.score > 0 else ()):
        is_expected = motion is not None and (motion.is_stable or motion.num_missed > 0)
        left = (
            cut(mask_hw, motion.filter, is_rivalled=motion.is_rivalled)
            if motion is not None and is_expected
            else Cut(mask_hw)
        )
        place = place_of(left.mask_hw)
        is_left = left.mask_hw.sum() >= MIN_LEFT * mask_hw.sum()
        if place is None or not is_left or (motion is not None and not _is_possible(motion, place)):
            continue
        weight = MOTION_WEIGHT if motion is not None and motion.is_stable else 0.0
        fit = motion.filter.fit(place) if motion is not None else 0.0
        rating = weight * fit + (1 - weight) * float(proposed.ious_k[choice])
        if best is None or rating > best[0]:
            best = rating, _Pick(choice, left, place)
    return None if best is None else best[1]


def _is_possible(motion: Motion, place: Place) -> bool:
    """Whether the object can have come there."""
    if not motion.is_stable or motion.num_missed >= PATIENCE:
        return True
    return motion.filter.away(place) <= motion.reach


def _share(picks: Sequence[_Pick | None], motions: Sequence[Motion | None]) -> list[NDArray[np.bool_] | None]:
    """What each object keeps of its mask, where objects claim the same pixels; None where it is alone."""
    seats = [seat for seat, pick in enumerate(picks) if pick is not None and motions[seat] is not None]
    shares: list[NDArray[np.bool_] | None] = [None] * len(picks)
    if len(seats) < 2:
        return shares
    chosen = [(seat, picks[seat], motions[seat]) for seat in seats]
    masks = [pick.cut.mask_hw for _, pick, _ in chosen if pick is not None]
    expected = [motion.filter.place for _, _, motion in chosen if motion is not None]
    for (seat, _, _), mask, left in zip(chosen, masks, share_out(masks, expected), strict=True):
        if left.sum() < mask.sum():
            shares[seat] = left
    return shares


def _ruling(
    proposed: Proposed, motion: Motion | None, pick: _Pick | None, *, share: NDArray[np.bool_] | None
) -> Ruling:
    hidden = Ruling(int(proposed.ious_k.argmax()), None if motion is None else motion.missed())
    if pick is None:
        return hidden
    mask_hw, whole_hw = pick.cut.mask_hw if share is None else share, proposed.masks_khw[pick.choice]
    iou, area, place = float(proposed.ious_k[pick.choice]), float(mask_hw.mean()), place_of(mask_hw)
    if motion is None:
        return Ruling(pick.choice, first_motion(mask_hw, iou), True, iou >= MIN_IOU)
    if place is None or (share is not None and area < MIN_SHARE * float(np.median(motion.areas or (area,)))):
        return hidden
    is_sure = pick.cut.is_sure and bool(mask_hw.sum() >= (1 - MAX_CONTESTED) * pick.cut.mask_hw.sum())
    look = _Look(place, area, iou, is_sure, touches_edge(mask_hw))
    rival = _is_rivalled(proposed, pick)
    motion = dataclasses.replace(
        motion, num_calm=0 if rival else motion.num_calm + 1,
        num_rivalled=motion.num_rivalled + 1 if rival or motion.is_rivalled else 0,
    )  # fmt: skip
    is_remembered = look.is_clear(motion) and iou >= MIN_IOU and look.part(motion) >= MIN_PART
    is_anchor = is_remembered and rival and _is_anchor(iou, area, motion)
    news = motion.remembering(area, iou, look.fill) if is_remembered else motion
    if not is_remembered and not motion.is_rivalled:  # what is usual may change, if slowly
        news = dataclasses.replace(news, usual_iou=motion.usual_iou + HABIT / 2 * (iou - motion.usual_iou))
    news = dataclasses.replace(
        news, filter=_moved_on(motion, look), num_stable=motion.num_stable + 1, num_missed=0, stray=0.0,
        num_partial=0 if look.is_whole(motion) else motion.num_partial + 1,
        num_since_anchor=0 if is_anchor else news.num_since_anchor,
    )  # fmt: skip
    cut_hw = whole_hw & ~mask_hw
    return Ruling(pick.choice, news, True, is_remembered, is_anchor, cut_hw if cut_hw.any() else None)


def _moved_on(motion: Motion, look: _Look) -> BoxFilter:
    """The filter after it was seen there."""
    is_clear, is_whole = look.is_clear(motion), look.is_whole(motion)
    if motion.num_missed and motion.filter.away(look.place) > MAX_JUMP:
        is_back = look.is_sure and look.iou >= BACK * motion.usual_iou  # else it says little of where it is
        return motion.filter.restart(look.place, is_whole=is_whole) if is_back else motion.filter.miss()
    doubt = 1.0
    if motion.is_rivalled or not (is_clear and is_whole):
        doubt = DOUBT if is_clear or is_whole else PARTIAL_DOUBT
    doubt = max(1.0, doubt * (1 - 2 * motion.filter.strides))  # who is fast must be followed
    return motion.filter.update(look.place, doubt=doubt, is_whole=is_whole and is_clear)


def _is_rivalled(proposed: Proposed, pick: _Pick) -> bool:
    """Whether another mask speaks for something beyond this one."""
    others = [place_of(mask_hw) for choice, mask_hw in enumerate(proposed.masks_khw) if choice != pick.choice]
    return any(share_of_both(pick.place, other) < RIVAL_RATIO for other in others if other is not None)


def _is_anchor(iou: float, area: float, motion: Motion) -> bool:
    """Trusted, and of its usual size."""
    is_due = motion.is_stable and motion.num_since_anchor >= ANCHOR_EVERY and iou >= ANCHOR_IOU
    return is_due and abs(area / float(np.median(motion.areas)) - 1) <= ANCHOR_AREA
