"""The report as one HTML page that needs nothing else: no script, no network, no other file.

Owns: the page's markup and style. Pure; any thread. Never: puts a name from a file into the page unescaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stream.evaluate.figures import Page, WorstView
from stream.evaluate.outline import draw_view
from stream.evaluate.plots import bars_figure, curves_figure, jpeg_address, svg_address

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { max-width: 1180px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.15em; margin: 2.2em 0 .5em; }
.facts { color: #666; font-size: .87em; margin: 0 0 .8em; } .facts span { margin-right: 1.4em; }
.large { display: flex; flex-wrap: wrap; gap: .9em 2.6em; margin: 1.4em 0 0; }
.large b { display: block; font-size: 1.75em; line-height: 1.15; color: #3366aa; }
.large span { color: #666; font-size: .85em; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: .8em; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .28em .5em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th { color: #666; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
tr:last-child td { font-weight: 600; border-bottom: none; border-top: 2px solid #999; }
.views { display: flex; flex-wrap: wrap; gap: 1.1em; }
figure { margin: 0; width: calc(33.3% - .8em); min-width: 300px; }
figcaption { font-size: .84em; color: #444; margin-top: .25em; }
.truth b { color: #1f9d2f; } .found b { color: #d0108a; }
"""
LEGEND = (
    '<span class="truth"><b>green</b>: the truth, and what was missed</span>'
    '<span class="found"><b>magenta</b>: the prediction, and what was too much</span>'
)


def html_page(page: Page) -> str:
    """The whole document."""
    parts = [_head(page), _section("Every sequence", _table(page.table))]
    if page.bars:
        parts.append(
            _section("J and F", _image(svg_address(bars_figure(page.bars)), "J and F of each sequence as bars"))
        )
    if page.curves:
        address = svg_address(curves_figure(page.curves))
        parts.append(_section("IoU over time", _image(address, "IoU of each object over the pictures")))
    if page.views:
        views = "".join(map(_view, page.views))
        parts.append(_section("Worst pictures", f'<p class="facts">{LEGEND}</p><div class="views">{views}</div>'))
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    head += f"<title>{escape(page.title)}</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _head(page: Page) -> str:
    facts = "".join(f"<span>{escape(name)}: {escape(value)}</span>" for name, value in page.facts)
    large = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in page.headline)
    return f'<h1>{escape(page.title)}</h1>\n<p class="facts">{facts}</p>\n<div class="large">{large}</div>'


def _section(headline: str, content: str) -> str:
    return f"<section><h2>{escape(headline)}</h2>\n{content}</section>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [_row(head, "th"), *(_row(row, "td") for row in body)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(cells: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _image(address: str, text: str) -> str:
    return f'<div class="wide"><img src="{address}" alt="{escape(text)}"></div>'


def _view(view: WorstView) -> str:
    text = view.caption
    image = f'<img src="{jpeg_address(draw_view(view))}" alt="{escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"
