"""`Marker`: scores one sequence while the tracker goes through it.

Owns: which pictures count, as `stream.quality.score_sequence` has it: those that are annotated, but for the first and
the last; one that the video lacks counts as empty. The tracker's thread. Never: keeps a picture.
"""

from __future__ import annotations

from collections import deque

from stream.evaluate.pursuit import Sight
from stream.quality import Scene, SequenceScore, SequenceScorer
from stream.sequence import LabelledFrame, MaskSequence

MIN_ANNOTATED = 3


class Marker:
    """Written by the tracker's thread."""

    def __init__(self, truth: MaskSequence) -> None:
        self._truth = truth
        self._first, self._left = next(iter(truth.annotated), None), deque(truth.annotated[:-1])
        self._scorer = SequenceScorer(Scene(truth.name, truth.size, truth.labels))

    def put(self, sight: Sight) -> None:
        """The next picture."""
        self._skip(sight.picture.index)
        if self._left and self._left[0] == sight.picture.index:
            assert sight.truth is not None, "an annotated picture comes with its truth"
            self._put(sight.truth, sight.found)

    def finish(self) -> SequenceScore | None:
        """After the last picture; None where too few are annotated."""
        self._skip(self._truth.num_frames)
        return self._scorer.score() if len(self._truth.annotated) >= MIN_ANNOTATED else None

    def _skip(self, number: int) -> None:
        """Annotated pictures before this one were not in the video."""
        while self._left and self._left[0] < number:
            self._put(self._truth.frame(self._left[0]), None)

    def _put(self, truth: LabelledFrame, found: LabelledFrame | None) -> None:
        self._left.popleft()
        self._scorer.put(truth, found, is_scored=truth.index != self._first)
