"""The report: one file that shows how good the masks are.

Owns: what goes into it, and its formats: .html, and .png or .jpg as one picture. Any thread. Never: keeps more than the
pictures that it shows.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stream.evaluate.figures import Bar, Curve, Page, Place, WorstView, worst_places
from stream.evaluate.html import html_page
from stream.evaluate.outcome import Outcome, ReportError, check_report
from stream.evaluate.pairing import Exhibit
from stream.evaluate.plots import page_figure
from stream.evaluate.table import headline_of, rows_of, speed_line
from stream.quality import SequenceScore, summarise
from stream.sequence import Bits, FootageError, Image

DOTS_PER_INCH = {"png": 110, "jpg": 78}
JPEG_QUALITY = 71
GREY = 128


def make_page(outcome: Outcome) -> Page:
    """What the report shows. Raises `MaskFileError` for masks that cannot be read any more."""
    scores, means = outcome.scores, [(score.name, summarise([score])) for score in outcome.scores]
    whole, curves = summarise(scores), [curve for score in scores for curve in _curves(score)]
    bars = [Bar(name, mean.j.mean, mean.f.mean) for name, mean in means if mean is not None]
    if whole is not None and len(bars) > 1:
        bars.append(Bar("all", whole.j.mean, whole.f.mean))
    by_name = {exhibit.name: exhibit for exhibit in outcome.exhibits}
    predicted = {(score.name, item.id): item.predicted_id for score in scores for item in score.objects}
    views = [
        _view(place, by_name[place.sequence], predicted[place.sequence, place.object_id])
        for place in worst_places(curves)
    ]
    speed = () if outcome.speed is None else (("speed", speed_line(outcome.speed)),)
    return Page(
        title=_title(outcome),
        facts=(*outcome.facts.items(), *speed),
        headline=headline_of(whole, outcome.speed),
        table=rows_of(scores, is_wide=True),
        bars=tuple(bars),
        curves=tuple(curves),
        views=tuple(views),
    )


def write_report(path: Path, page: Page) -> None:
    """Raises `ReportError`."""
    check_report(path)
    try:
        if path.suffix.lower() == ".html":
            path.write_text(html_page(page), encoding="utf-8")
            return
        file = io.BytesIO()
        kind = path.suffix.lower()[1:]
        settings = {"quality": JPEG_QUALITY} if kind == "jpg" else {}
        page_figure(page).savefig(file, format=kind, dpi=DOTS_PER_INCH[kind], pil_kwargs=settings)
        path.write_bytes(file.getvalue())
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; expected a file that can be written") from error


def _title(outcome: Outcome) -> str:
    if outcome.settings is None:
        return "Masks against the truth"
    return f"{outcome.settings.model} on {outcome.settings.data}"


def _curves(score: SequenceScore) -> list[Curve]:
    return [Curve(score.name, item.id, item.label, item.frames, item.j) for item in score.objects]


def _view(place: Place, exhibit: Exhibit, predicted_id: int | None) -> WorstView:
    height, width = exhibit.truth.size
    nothing = np.zeros((height, width), np.bool_)
    truth = exhibit.truth.frame(place.number).masks.get(place.object_id, nothing)
    found = nothing if predicted_id is None else _found(exhibit, place.number).get(predicted_id, nothing)
    image = _picture(exhibit, place.number)
    return WorstView(place, np.full((height, width, 3), GREY, np.uint8) if image is None else image, truth, found)


def _found(exhibit: Exhibit, number: int) -> Mapping[int, Bits]:
    return exhibit.prediction.frame(number).masks if number in exhibit.prediction.annotated else {}


def _picture(exhibit: Exhibit, number: int) -> Image | None:
    """The video's picture of this number; None where it is not at hand."""
    if exhibit.open_footage is None:
        return None
    try:
        picture = next(iter(exhibit.open_footage().pictures(number)), None)
    except FootageError:
        return None
    return picture.image_hwc if picture is not None and picture.index == number else None
