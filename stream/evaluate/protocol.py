"""The protocol of a test: which object is prompted where, and with what.

Owns: `Prompter`. The tracker's thread. Never: looks at the truth after an object's first picture, or prompts it again.

As in DAVIS, MOSE and SA-V every object is prompted once, on the first annotated picture that shows it, with its true
mask ("mask"). "click" is one point, the pixel deepest inside that mask; "box" is the mask's.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from engines.synthetic import deepest_point
from stream.evaluate.fitting import resized
from stream.sequence import Bits, LabelledFrame
from stream.tracker import Tracker

PromptKind = Literal["mask", "click", "box"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)


class Prompter:
    """`prompted` is written by the tracker's thread: the objects that it knows."""

    def __init__(self, kind: PromptKind) -> None:
        self.prompted: list[int] = []
        self._kind = kind

    def prompt(self, tracker: Tracker, truth: LabelledFrame, size: tuple[int, int]) -> bool:
        """Add to the tracker what the truth first shows on this picture of (height, width); whether there was any."""
        num_before = len(self.prompted)
        for object_id, mask in truth.masks.items():
            if object_id in self.prompted:
                continue
            fitting = resized(mask, size)
            if fitting.any():
                add(tracker, object_id, fitting, kind=self._kind)
                self.prompted.append(object_id)
        return len(self.prompted) > num_before


def add(tracker: Tracker, object_id: int, mask: Bits, *, kind: PromptKind) -> None:
    """Prompt one object on the next picture with its mask there, or with what follows from it."""
    if kind == "mask":
        tracker.add(object_id, mask=mask)
    elif kind == "click":
        tracker.add(object_id, points=[(*deepest_point(mask), 1)])
    else:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tracker.add(object_id, box=(float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1))
