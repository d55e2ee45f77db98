"""`pursue`: the tracker through one sequence, prompted as the protocol says.

Owns: the order of one test, and the time that the tracker took. The tracker's thread. Never: counts the reading of
pictures, prompts or scores as the tracker's time; keeps more than one picture.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stream.enhance import Enhancer
from stream.evaluate.fitting import disjoint, resized, shares_no_pixel
from stream.evaluate.material import Material
from stream.evaluate.protocol import Prompter, PromptKind
from stream.masksets import labelled
from stream.sequence import LabelledFrame, MaskSequence, Picture
from stream.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Sight:
    """What the tracker made of one picture; the masks have the truth's size."""

    picture: Picture
    truth: LabelledFrame | None  # None for a picture that is not annotated
    found: LabelledFrame
    seconds: float  # from the decoded picture to the masks, enhancement included; 0 before the first prompt
    is_start: bool  # an object was prompted here: other programs ran than on the pictures that follow


def pursue(
    tracker: Tracker, material: Material, kind: PromptKind, *, enhancer: Enhancer | None = None
) -> Iterator[Sight]:
    """Every picture of the sequence, in order. The tracker forgets what it knew before.

    Raises `FootageError` and `MaskFileError` for a file that cannot be read.
    """
    tracker.reset()
    prompter, fit, annotated = Prompter(kind), _Fit(material.truth), frozenset(material.truth.annotated)
    for picture in material.open_footage().pictures():
        truth = material.truth.frame(picture.index) if picture.index in annotated else None
        is_start = truth is not None and prompter.prompt(
            tracker, truth, (picture.image_hwc.shape[0], picture.image_hwc.shape[1])
        )
        if not prompter.prompted:
            yield Sight(picture, truth, LabelledFrame(picture.index, {}), 0.0, is_start=False)
            continue
        start = time.perf_counter()
        image_hwc = picture.image_hwc if enhancer is None else enhancer.apply(picture.image_hwc)
        masks = tracker.step(image_hwc, time_ns=picture.time_ns)
        seconds = time.perf_counter() - start
        yield Sight(picture, truth, fit(tracker, labelled(masks, picture.index)), seconds, is_start=is_start)


class _Fit:
    """How masks are made comparable to the truth. Nothing in it changes."""

    def __init__(self, truth: MaskSequence) -> None:
        self._size, self._is_disjoint = truth.size, shares_no_pixel(truth)

    def __call__(self, tracker: Tracker, frame: LabelledFrame) -> LabelledFrame:
        """The tracker's masks of its last picture in the truth's size, without overlap if the truth has none."""
        found_nhw = np.stack(list(frame.masks.values()))
        if self._is_disjoint:
            found_nhw = disjoint(found_nhw, np.asarray(tracker.logits_nhw.float().cpu().numpy(), np.float32))
        pairs = zip(frame.masks, found_nhw, strict=True)
        return replace(frame, masks={object_id: resized(mask, self._size) for object_id, mask in pairs})
