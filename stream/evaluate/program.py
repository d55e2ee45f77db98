"""The two programs behind `sam2-stream evaluate`: masks against masks, and the tracker on a data set.

Owns: the order of their steps. The tracker's thread. Never: prints, or draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stream.evaluate.campaign import Campaign, scores_of
from stream.evaluate.material import find_material
from stream.evaluate.opening import Choice
from stream.evaluate.outcome import Outcome
from stream.evaluate.pairing import exhibit_of, pair, score_all
from stream.evaluate.progress import Progress
from stream.evaluate.protocol import PromptKind
from stream.evaluate.shelf import Settings, Shelf
from stream.evaluate.speed import hardware_of, speed_of
from stream.quality import Scoring
from stream.quality.pairing import SEMI_SUPERVISED

Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What the tracker is to be evaluated on. Masks are kept in `folder`, if there is one, see `Shelf`."""

    data: str
    prompt: PromptKind = "mask"
    sequences: tuple[str, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What of the masks is to be compared, and how; `pictures` is a folder of the videos."""

    sequences: tuple[str, ...] = ()
    pictures: Path | None = None
    scoring: Scoring = SEMI_SUPERVISED


def compare(predictions: Path, truths: Path, show: Show, *, wish: Wish) -> Outcome:
    """Masks against true masks. Raises `MaskFileError`, `FootageError`."""
    exhibits = pair(predictions, truths, sequences=wish.sequences, pictures=wish.pictures)
    scores = score_all(exhibits, wish.scoring, show)
    facts = {"predictions": str(predictions), "truth": str(truths)}
    if wish.scoring != SEMI_SUPERVISED:
        ends = "without the first and the last picture" if wish.scoring.skip_ends else "all pictures"
        facts["scored"] = f"objects by {wish.scoring.match} match, {ends}"
    return Outcome(tuple(scores), tuple(exhibits), facts)


def follow(choice: Choice, order: Order, show: Show) -> Outcome:
    """The tracker through a data set.

    Raises `MaskFileError`, `FootageError`, `ShelfError`, `WeightsError`, `BackendMissing`, `OptionError`.
    """
    materials = find_material(order.data, sequences=order.sequences)  # before the model is loaded: it may be wrong
    tracker = choice.open()
    settings = choice.settings(tracker, order.prompt, order.data)
    shelf = None if order.folder is None else Shelf(order.folder)
    if shelf is not None:
        shelf.open(settings)
    campaign = Campaign(tracker, materials, prompt=order.prompt, shelf=shelf, enhance=choice.enhance)
    for progress in campaign.run():
        show(progress)
    scores = tuple(scores_of(campaign.records))
    judged = {score.name for score in scores if score.objects}
    exhibits = [exhibit_of(item, shelf.masks(item.name)) for item in materials if shelf and item.name in judged]
    speed = speed_of([record.pace for record in campaign.records], hardware_of(tracker.engine.device))
    return Outcome(scores, tuple(exhibits), _facts(settings), settings=settings, speed=speed)


def _facts(settings: Settings) -> dict[str, str]:
    return {
        "data": settings.data,
        "prompt": f"{settings.prompt}, where an object first appears",
        "memory": settings.memory_policy,
        "refinement": settings.refine,
        "pictures": "as they are" if settings.enhance == "off" else settings.enhance,
        "backend": f"{settings.backend}, {settings.dtype} on {settings.device}",
    }
