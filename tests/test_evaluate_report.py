"""The report: what it shows, that it needs nothing else, and that pictures show the right place."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluate_rig import small_clip, write_davis

from stream.evaluate import Outcome, ReportError, Speed, Wish, check_report, compare
from stream.evaluate.figures import Bar, Curve, Page, Place, WorstView, by_sequence, worst_places
from stream.evaluate.html import html_page
from stream.evaluate.outline import CELL_HEIGHT, CELL_WIDTH, FOUND, TRUTH, draw_view
from stream.evaluate.plots import bars_figure, curves_figure
from stream.evaluate.report import make_page, write_report
from stream.evaluate.table import lines_of, rows_of
from stream.masksets import DavisWriter, open_masks


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """Two sequences whose predictions lag a picture behind; the second one's object 2 is never found."""
    for seed, name in enumerate(("bear", "<b>camel")):
        clip = small_clip(seed)
        write_davis(tmp_path / "data", name, clip)
        writer = DavisWriter(tmp_path / "found" / name)
        for index in range(8):
            masks = dict(enumerate(clip.masks(max(index - 1, 0)), start=1))
            writer.put(index, masks if seed == 0 else {1: masks[1]}, size=(96, 112))
    return compare(tmp_path / "found", tmp_path / "data", lambda _: None, wish=Wish())


def test_the_page_holds_all_that_it_shows_and_no_markup_of_strangers(outcome: Outcome) -> None:
    speed = Speed(pictures_per_s=9.5, ms_per_picture=105, objects_per_picture=2, num_pictures=14, hardware="<i>chip")
    text = html_page(make_page(replace(outcome, speed=speed)))
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2 + 4 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<script|<link|href=|url\(|@import|https?://", text)
    assert "&lt;b&gt;camel" in text and "<b>camel" not in text and "<i>chip" not in text
    for source in sources:
        kind, data = source.removeprefix("data:image/").split(";base64,")
        content = base64.b64decode(data)
        assert (b"<svg" in content) if kind == "svg+xml" else cv2.imdecode(np.frombuffer(content, np.uint8), 1).size


def test_the_table_of_the_page_has_every_sequence_and_the_whole(outcome: Outcome) -> None:
    page = make_page(outcome)
    assert [row[0] for row in page.table] == ["sequence", "<b>camel", "bear", "all"]
    assert len({len(row) for row in page.table}) == 1
    assert [bar.name for bar in page.bars] == ["<b>camel", "bear", "all"]
    lines = lines_of(rows_of(outcome.scores))
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) < 120


def test_the_worst_pictures_come_first_and_show_truth_and_prediction(outcome: Outcome, tmp_path: Path) -> None:
    page = make_page(outcome)
    worst, *others = page.views
    assert (worst.place.sequence, worst.place.object_id, worst.place.iou) == ("<b>camel", 2, 0.0)
    assert not worst.found.any() and all(view.place.iou > 0 for view in others)
    for view in page.views:
        truth = open_masks(tmp_path / "data", sequence=view.place.sequence)[0].frame(view.place.number)
        assert np.array_equal(view.truth, truth.masks[view.place.object_id])
        jpeg = tmp_path / "data/JPEGImages/480p" / view.place.sequence / f"{view.place.number:05d}.jpg"
        assert np.array_equal(view.image_hwc, cv2.imread(str(jpeg))), "the picture of the same number"


def test_without_the_video_the_worst_pictures_are_grey(outcome: Outcome) -> None:
    blind = replace(outcome, exhibits=tuple(replace(exhibit, open_footage=None) for exhibit in outcome.exhibits))
    views = make_page(blind).views
    assert len(views) == 4 and all(view.image_hwc.shape == (96, 112, 3) for view in views)
    assert all((view.image_hwc == 128).all() for view in views)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_report_is_one_picture(outcome: Outcome, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report{suffix}"
    write_report(path, make_page(outcome))
    image = cv2.imread(str(path))
    assert image is not None and image.shape[1] > 1000 and image.shape[0] > 800
    assert (np.abs(image.astype(int) - (170, 102, 51)).max(2) < 12).any(), "there are blue bars"


def test_a_report_with_another_ending_or_place_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"report\.pdf: expected a name that ends in \.html, \.png, \.jpg"):
        check_report(tmp_path / "report.pdf")
    with pytest.raises(ReportError, match=r"there is no folder .*none, expected one that exists"):
        check_report(tmp_path / "none" / "report.html")


def drawn(truth: tuple[int, int, int, int], found: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes x0, y0, x1, y1 on a grey picture of 400 x 600."""
    masks = np.zeros((2, 400, 600), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, (truth, found), strict=True):
        mask[y0:y1, x0:x1] = True
    image = np.full((400, 600, 3), 90, np.uint8)
    picture = draw_view(WorstView(Place("a", 1, 0, 0.5), image, masks[0], masks[1]))
    assert (image == 90).all(), "the picture that was given is as it was"
    return picture


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Columns where an outline of this colour is."""
    return np.flatnonzero((np.abs(picture.astype(int) - colour).max(2) < 30).any(0))


def test_truth_is_outlined_green_and_the_prediction_magenta_where_they_are() -> None:
    picture = drawn((100, 100, 200, 200), (350, 100, 450, 200))
    assert picture.shape == (CELL_HEIGHT, CELL_WIDTH, 3)
    green, magenta = where(picture, TRUTH), where(picture, FOUND)
    assert green.max() < magenta.min() and len(green) and len(magenta)
    # 560 columns around 100 to 450 are shown in 480: 0.857 pixels for each
    assert green.max() - green.min() == pytest.approx(100 * 480 / 560, abs=5)
    assert magenta.min() - green.min() == pytest.approx(250 * 480 / 560, abs=5)


def test_a_small_object_is_shown_larger() -> None:
    green = where(drawn((290, 190, 310, 210), (0, 0, 0, 0)), TRUTH)
    assert green.max() - green.min() > 45


def test_a_picture_without_any_mask_is_shown_whole() -> None:
    assert (drawn((0, 0, 0, 0), (0, 0, 0, 0)) == 90).all()


def test_the_worst_picture_of_each_object_and_the_worst_sequences_are_chosen() -> None:
    curves = [Curve("a", 1, "", (1, 2, 3), (0.9, 0.2, 0.8)), Curve("a", 2, "", (1, 2), (0.7, 0.7))]
    curves += [Curve("b", 1, "", (5, 9), (0.5, 0.1))]
    found = [(place.sequence, place.object_id, place.number) for place in worst_places(curves)]
    assert found == [("b", 1, 9), ("a", 1, 2), ("a", 2, 1)]
    assert len(worst_places(curves, most=1)) == 1
    assert list(by_sequence(curves, most=1)) == ["b"] and list(by_sequence(curves)) == ["a", "b"]


def test_plots_show_every_bar_and_every_curve_from_0_to_1() -> None:
    bars = bars_figure([Bar("a", 0.5, None), Bar("b", 0.25, 0.75)]).axes[0]
    assert sorted(patch.get_height() for patch in bars.patches) == [0, 0.25, 0.5, 0.75]
    axes = curves_figure([Curve("a", 1, "cup", (1, 2), (0.5, 1.0)), Curve("a", 2, "", (1, 2), (0.1, 0.2))]).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.5, 1.0], [0.1, 0.2]]
    assert axes.get_ylim() == (0, 1.02) and [t.get_text() for t in axes.get_legend().texts] == ["cup", "object 2"]


def test_a_page_of_nothing_is_a_page() -> None:
    page = Page(title="none", facts=(), headline=(), table=(("sequence",), ("all",)), bars=(), curves=(), views=())
    assert "<h1>none</h1>" in html_page(page)
