"""Plots of a report: bars for each sequence, IoU over time, and a page of all of it.

Owns: how figures look. matplotlib without a display; any thread, one at a time. Never: opens a window, touches
pyplot's state, or reads a mask.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import cv2
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stream.evaluate.figures import Bar, Curve, Page, by_sequence
from stream.evaluate.outline import draw_view

REGION, BOUNDARY = "#3366aa", "#ee9933"
INK, FAINT = "#222222", "#bbbbbb"
OBJECT_COLOURS = ("#3366aa", "#ee9933", "#228855", "#cc4466", "#7755bb", "#999933", "#44aacc", "#885533")
NUM_COLUMNS = 4  # of plots over time
VIEW_COLUMNS = 3
PAGE_WIDTH = 14.0  # inches
JPEG_QUALITY = 88


def bars_figure(bars: Sequence[Bar]) -> Figure:
    """J and F of each sequence, the mean last."""
    figure = Figure(figsize=(PAGE_WIDTH, bars_height(bars)), layout="constrained")
    draw_bars(figure.subplots(), bars)
    return figure


def bars_height(bars: Sequence[Bar]) -> float:
    """Inches."""
    return 2.8 + (0.055 * max(len(bar.name) for bar in bars) if _is_crowded(bars) else 0)


def draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """J and F side by side; a value that there is not leaves a gap."""
    places = range(len(bars))
    width = 0.4 if len(bars) > 6 else 0.28
    region, boundary = [bar.region or 0.0 for bar in bars], [bar.boundary or 0.0 for bar in bars]
    axes.bar([place - width / 2 for place in places], region, width, color=REGION, label="J, region")
    axes.bar([place + width / 2 for place in places], boundary, width, color=BOUNDARY, label="F, boundary")
    axes.set_xticks(list(places), [bar.name for bar in bars])
    axes.tick_params(axis="x", labelrotation=40 if _is_crowded(bars) else 0, labelsize=7 if len(bars) > 40 else 9)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if _is_crowded(bars) else "center")
        label.set_rotation_mode("anchor" if _is_crowded(bars) else "default")
    axes.set_xlim(-0.6, max(len(bars), 4) - 0.4)
    _unit(axes)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, ncols=2, borderaxespad=0)


def _is_crowded(bars: Sequence[Bar]) -> bool:
    """Whether the names would run into one another."""
    return max((len(bar.name) for bar in bars), default=0) * len(bars) > 150


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """One small plot a sequence, one line an object."""
    groups = by_sequence(curves)
    num_rows = max(1, math.ceil(len(groups) / NUM_COLUMNS))
    figure = Figure(figsize=(PAGE_WIDTH, 2.1 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, min(NUM_COLUMNS, max(1, len(groups))), squeeze=False, sharey=True)
    draw_curves(list(grid.flat), groups)
    return figure


def draw_curves(plots: Sequence[Axes], groups: Mapping[str, Sequence[Curve]]) -> None:
    """A plot for each group; plots that are left over stay empty."""
    for axes, (name, group) in zip(plots, groups.items(), strict=False):
        for place, curve in enumerate(group):
            colour, label = OBJECT_COLOURS[place % len(OBJECT_COLOURS)], curve.label or f"object {curve.object_id}"
            axes.plot(curve.numbers, curve.ious, color=colour, linewidth=1.3, label=label)
        axes.set_title(textwrap.shorten(name, 40, placeholder="..."), fontsize=10, loc="left", color=INK)
        axes.tick_params(labelsize=8)
        _unit(axes)
        if 1 < len(group) <= 4:
            axes.legend(loc="lower left", fontsize=7, frameon=True, framealpha=0.7, edgecolor="none")
    for axes in plots[len(groups) :]:
        axes.set_axis_off()


def page_figure(page: Page) -> Figure:
    """All of the report as one picture; of the table only the figures shown large."""
    groups = by_sequence(page.curves, most=8)
    curve_rows, view_rows = math.ceil(len(groups) / NUM_COLUMNS), math.ceil(len(page.views) / VIEW_COLUMNS)
    heights = [1.7, bars_height(page.bars), 2.1 * curve_rows, PAGE_WIDTH / VIEW_COLUMNS * 0.76 * view_rows]
    figure = Figure(figsize=(PAGE_WIDTH, sum(heights)), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    grid = figure.add_gridspec(4, 1, height_ratios=[max(height, 0.01) for height in heights])
    parts = [figure.add_subfigure(grid[row]) for row in range(4)]
    _draw_head(parts[0].subplots(), page)
    draw_bars(parts[1].subplots(), page.bars)
    if curve_rows:
        _headline(parts[2], "IoU over time")
        draw_curves(list(parts[2].subplots(curve_rows, NUM_COLUMNS, squeeze=False, sharey=True).flat), groups)
    if view_rows:
        _headline(
            parts[3], "Worst pictures; green: truth, and what was missed; magenta: prediction, and what was too much"
        )
        _draw_views(list(parts[3].subplots(view_rows, VIEW_COLUMNS, squeeze=False).flat), page)
    return figure


def svg_address(figure: Figure) -> str:
    """The figure as an address that holds it, for an <img>."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def jpeg_address(image_hwc: object) -> str:
    """A BGR picture as an address that holds it."""
    is_encoded, data = cv2.imencode(".jpg", image_hwc, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))  # type: ignore[call-overload]
    assert is_encoded, "OpenCV encodes every uint8 picture as JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _unit(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y", color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def _draw_head(axes: Axes, page: Page) -> None:
    axes.set_axis_off()
    axes.text(0.0, 1.0, page.title, fontsize=18, weight="bold", color=INK, va="top", transform=axes.transAxes)
    facts = textwrap.fill("    ".join(f"{name}: {value}" for name, value in page.facts), 190)
    axes.text(0.0, 0.74, facts, fontsize=9, color="#555555", va="top", linespacing=1.5, transform=axes.transAxes)
    for place, (name, value) in enumerate(page.headline):
        left = place / max(len(page.headline), 6)
        axes.text(left, 0.2, value, fontsize=20, weight="bold", color=REGION, va="center", transform=axes.transAxes)
        axes.text(left, -0.08, name, fontsize=9, color="#555555", va="center", transform=axes.transAxes)


def _headline(part: SubFigure, text: str) -> None:
    part.suptitle(text, x=0.009, ha="left", fontsize=11, weight="bold", color=INK)


def _draw_views(plots: Sequence[Axes], page: Page) -> None:
    for axes, view in zip(plots, page.views, strict=False):
        axes.imshow(draw_view(view)[:, :, ::-1])
        axes.set_title(view.caption, fontsize=9, loc="left", color=INK)
    for axes in plots:
        axes.set_axis_off()
