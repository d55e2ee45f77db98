"""`score_sequence`: predicted masks of one video against truth.

Owns: which pictures are scored, and which prediction belongs to which object. Thread: that of the caller. Never: reads
a picture of the prediction that truth says nothing about.

Scored are the pictures that truth annotates, without the first and the last (DAVIS); a picture that the prediction does
not have counts as empty. `match="ids"` takes equal ids (the semi-supervised task), `"best"` the assignment with the
highest mean J over the scored pictures, `"auto"` ids where at least one is in both, else the best.
"""

from __future__ import annotations

from collections.abc import Callable

from stream.quality.pairing import SEMI_SUPERVISED, Scoring, match_objects, read, share_an_id
from stream.quality.score import SequenceScore
from stream.quality.scorer import Scene, SequenceScorer
from stream.sequence import MaskFileError, MaskSequence

OnPicture = Callable[[int], None]


def score_sequence(
    prediction: MaskSequence,
    truth: MaskSequence,
    scoring: Scoring = SEMI_SUPERVISED,
    *,
    on_picture: OnPicture | None = None,
) -> SequenceScore:
    """One pass (two where objects have to be matched); `on_picture` is told how many were read. `MaskFileError`."""
    check(prediction, truth, scoring)
    pairs = None
    if scoring.match == "best" or (scoring.match == "auto" and not share_an_id(prediction, truth, scoring)):
        pairs = match_objects(prediction, truth, scoring)
    scene = Scene(truth.name, truth.size, truth.labels, prediction.labels, pairs)
    scorer = SequenceScorer(scene, skip_ends=scoring.skip_ends)
    for number, (theirs, ours, is_scored) in enumerate(read(prediction, truth, scoring), 1):
        scorer.put(theirs, ours, is_scored=is_scored)
        if on_picture is not None:
            on_picture(number)
    return scorer.score()


def check(prediction: MaskSequence, truth: MaskSequence, scoring: Scoring) -> None:
    """One line for what cannot be compared."""
    needed = 3 if scoring.skip_ends else 1
    if len(truth.annotated) < needed:
        raise MaskFileError(
            f"truth of {truth.name} has {len(truth.annotated)} annotated pictures, expected at least {needed}"
            + (" (the first and the last are not scored)" if scoring.skip_ends else "")
        )
    scored = truth.annotated[1:-1] if scoring.skip_ends else truth.annotated
    if not frozenset(scored) & frozenset(prediction.annotated):
        raise MaskFileError(
            f"prediction of {truth.name} has none of the pictures to score, expected {scored[0]} to {scored[-1]}"
        )
    if prediction.size != truth.size:
        ours, theirs = (" x ".join(map(str, item.size)) for item in (prediction, truth))
        raise MaskFileError(f"prediction of {truth.name} is {ours} pixels high and wide, expected truth's {theirs}")
