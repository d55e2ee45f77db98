"""Which prediction belongs to which object.

Owns: what is asked of a comparison (`Scoring`), the pictures it reads, and the matching of ids. Thread: that of the
caller. Never: keeps masks of more than one picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stream.quality.assignment import best_assignment
from stream.quality.blob import EMPTY, Blob, blob_of, iou
from stream.sequence import Bits, LabelledFrame, MaskSequence

Match = Literal["auto", "ids", "best"]


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is asked for; as it stands, the semi-supervised task of DAVIS."""

    match: Match = "auto"
    skip_ends: bool = True


SEMI_SUPERVISED = Scoring()


def read(
    prediction: MaskSequence, truth: MaskSequence, scoring: Scoring
) -> Iterator[tuple[LabelledFrame, LabelledFrame | None, bool]]:
    """Truth and prediction of every annotated picture but the last, and whether it is scored."""
    have = frozenset(prediction.annotated)
    places = truth.annotated[:-1] if scoring.skip_ends else truth.annotated
    for number, index in enumerate(places):
        is_scored = number > 0 or not scoring.skip_ends
        yield truth.frame(index), prediction.frame(index) if is_scored and index in have else None, is_scored


def share_an_id(prediction: MaskSequence, truth: MaskSequence, scoring: Scoring) -> bool:
    """Whether an object of both has the same id, or one side has no object; reads until it is known."""
    ours: set[int] = set()
    theirs: set[int] = set()
    for expected, found, _ in read(prediction, truth, scoring):
        theirs.update(_cut(expected.masks))
        ours.update(_cut(found.masks if found else {}))
        if ours & theirs:
            return True
    return not ours or not theirs


def match_objects(prediction: MaskSequence, truth: MaskSequence, scoring: Scoring) -> dict[int, int]:
    """Truth's ids to the prediction's, with the highest mean J over the scored pictures; one pass."""
    sums: dict[tuple[int, int], float] = {}  # J of a pair; where both are empty it is 1
    ours: dict[int, int] = defaultdict(int)  # pictures on which it has pixels
    theirs: dict[int, int] = defaultdict(int)
    num_before = 0
    for expected, found, is_scored in read(prediction, truth, scoring):
        blobs, mine = _cut(expected.masks), _cut(found.masks if found else {})
        pairs = [(a, b) for a in theirs.keys() | blobs.keys() for b in ours.keys() | mine.keys()]
        for a, b in pairs:  # of a new pair one was empty on all pictures so far
            before = sums.setdefault((a, b), num_before - max(theirs[a], ours[b]))
            sums[a, b] = before + is_scored * iou(blobs.get(a, EMPTY), mine.get(b, EMPTY))
        for object_id in blobs:
            theirs[object_id] += is_scored
        for object_id in mine:
            ours[object_id] += is_scored
        num_before += is_scored
    rows, columns = sorted(theirs), sorted(ours)
    gains_rc = np.array([[sums[row, column] for column in columns] for row in rows], np.float64)
    pairs = best_assignment(gains_rc.reshape(len(rows), len(columns)))
    return {rows[row]: columns[column] for row, column in pairs}


def _cut(masks: Mapping[int, Bits]) -> dict[int, Blob]:
    """The objects that have pixels."""
    blobs = {object_id: blob_of(mask_hw) for object_id, mask_hw in masks.items()}
    return {object_id: blob for object_id, blob in blobs.items() if blob.area}
