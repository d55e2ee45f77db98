"""`Exhibit`: predicted masks beside the true ones, and the video if it is at hand.

Owns: which prediction belongs to which truth. Any thread. Never: reads a mask before somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stream.evaluate.material import Material, choose, find_pictures
from stream.evaluate.progress import Progress
from stream.footage import open_footage
from stream.masksets import open_masks, place_like
from stream.quality import Scoring, SequenceScore, score_sequence
from stream.sequence import Footage, MaskFileError, MaskSequence


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One sequence; `open_footage` is None where there are no pictures."""

    prediction: MaskSequence
    truth: MaskSequence
    open_footage: Callable[[], Footage] | None

    @property
    def name(self) -> str:
        return self.truth.name


def pair(
    predictions: Path, truths: Path, *, sequences: Sequence[str] = (), pictures: Path | None = None
) -> list[Exhibit]:
    """Every true sequence with the prediction of its name; one each belong together whatever they are called.

    Raises `MaskFileError`, also for a sequence that was not predicted.
    """
    wanted, found = choose(open_masks(truths), sequences, where=str(truths)), open_masks(predictions)
    by_name = {item.name: item for item in found}
    if len(wanted) == len(found) == 1:
        by_name = {wanted[0].name: found[0]}
    if missing := [truth.name for truth in wanted if truth.name not in by_name]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MaskFileError(
            f"{predictions}: no masks of {missing[0]}{more}; expected a prediction for each sequence of {truths}, "
            "or --sequences"
        )
    return [_exhibit(by_name[truth.name], truth, pictures) for truth in wanted]


def score_all(exhibits: Sequence[Exhibit], scoring: Scoring, show: Callable[[Progress], None]) -> list[SequenceScore]:
    """The scores of each; `show` is told of every picture. Raises `MaskFileError`."""
    num_pictures, num_before, scores = sum(len(exhibit.truth.annotated) for exhibit in exhibits), 0, []
    for exhibit in exhibits:

        def tell(number: int, name: str = exhibit.name, before: int = num_before) -> None:
            show(Progress(name, before + number, num_pictures))

        scores.append(score_sequence(exhibit.prediction, exhibit.truth, scoring, on_picture=tell))
        num_before += len(exhibit.truth.annotated)
        show(Progress(exhibit.name, num_before, num_pictures))
    return scores


def exhibit_of(material: Material, masks: Path) -> Exhibit:
    """What an evaluation of the tracker has left in a folder."""
    prediction = place_like(open_masks(masks)[0], material.truth)
    return Exhibit(prediction, material.truth, material.open_footage)


def _exhibit(prediction: MaskSequence, truth: MaskSequence, pictures: Path | None) -> Exhibit:
    path = find_pictures(truth, pictures)
    return Exhibit(place_like(prediction, truth), truth, None if path is None else partial(open_footage, path))
