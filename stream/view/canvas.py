"""What the window shows: one camera or all of them, the lines below, hints and help. Pure functions on BGR arrays.

Owns: where everything lies in the window, and so what a pixel of the window is of a picture. Runs in the view's main
thread. Never: changes the pictures that it was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stream.client import MasksMessage
from stream.overlay import Picture, caption_hidden, draw_overlay, scaled
from stream.view.gesture import Spot
from stream.view.window import Touch

PANEL_HEIGHT = 48
BACKGROUND, PANEL = 18, 34  # grey levels
WHITE, GREY, AMBER = (255, 255, 255), (170, 170, 170), (60, 190, 255)
ON, BESIDE = (80, 220, 80), (70, 70, 240)  # a point on the object, and one beside it
FONT, SIZE, HEADLINE = cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0.62
MIN_WIDTH, MIN_HEIGHT = 120, PANEL_HEIGHT + 60
GAP = 4
KEYS = (
    ("left click", "belongs to the selected object; without one: a new object"),
    ("right click", "does not belong to the selected object"),
    ("drag", "a box: the selected object seen anew; without one: a new one"),
    ("N", "the next click or box makes a new object"),
    ("middle click", "select what is there, or nothing"),
    ("Space", "select the next object, at last none"),
    ("R", "name the selected object"),
    ("Del", "remove the selected object"),
    ("Z", "take back the last change"),
    ("Tab, 1 to 9", "the next camera; the first to the ninth"),
    ("G", "all cameras; click on one to see it alone"),
    ("S", "save the picture with its masks as PNG"),
    ("H", "this help"),
    ("Q, Esc", "close"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A prompt that is not on the screen yet, in pixels of the picture: a point, or a box when `box` is given."""

    x: float = 0.0
    y: float = 0.0
    is_on: bool = True
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One camera as it is shown. `picture_hwc` and `masks` belong together; None: nothing has come yet."""

    camera: str
    line: str  # figures and state
    is_well: bool = True  # else the line is a warning, and the picture an old one
    picture_hwc: Picture | None = None
    masks: MasksMessage | None = None
    selected: int | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies in the window."""

    masks: MasksMessage
    left: int
    top: int
    width: int
    height: int

    def spot(self, x: int, y: int) -> Spot | None:
        """The picture's pixel under the middle of the window's; None beside the picture."""
        if not (self.left <= x < self.left + self.width and self.top <= y < self.top + self.height):
            return None
        column = int((x - self.left + 0.5) * self.masks.width / self.width)
        row = int((y - self.top + 0.5) * self.masks.height / self.height)
        return Spot(self.masks, min(column, self.masks.width - 1), min(row, self.masks.height - 1))

    def inside(self, x: float, y: float) -> tuple[int, int]:
        """Where the middle of the picture's pixel is drawn, in the window."""
        column = self.left + (x + 0.5) * self.width / self.masks.width
        return round(column - 0.5), round(self.top + (y + 0.5) * self.height / self.masks.height - 0.5)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture of the window's size, and where the cameras' pictures lie in it."""

    image_hwc: Picture
    places: tuple[Place, ...] = ()

    def spot(self, touch: Touch) -> Spot | None:
        """What the mouse points at."""
        spots = (place.spot(touch.x, touch.y) for place in self.places)
        return next((spot for spot in spots if spot is not None), None)


def compose(cards: Sequence[Card], size: tuple[int, int], *, said: str, is_help: bool = False) -> Canvas:
    """Everything, for a window of this (width, height)."""
    width, height = max(size[0], MIN_WIDTH), max(size[1], MIN_HEIGHT)
    image_hwc = np.full((height, width, 3), BACKGROUND, np.uint8)  # a number: a colour would take ten times as long
    places = _grid(image_hwc[: height - PANEL_HEIGHT], cards) if len(cards) != 1 else _alone(image_hwc, cards[0])
    _panel(image_hwc[height - PANEL_HEIGHT :], cards, said)
    if is_help:
        _help(image_hwc[: height - PANEL_HEIGHT])
    return Canvas(image_hwc, tuple(places))


def window_size(masks: MasksMessage, limit: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) of a window for these pictures: in their own size, or as large as the limit lets it be."""
    factor = min(1.0, limit[0] / masks.width, (limit[1] - PANEL_HEIGHT) / masks.height)
    return max(MIN_WIDTH, round(masks.width * factor)), max(MIN_HEIGHT, round(masks.height * factor) + PANEL_HEIGHT)


def write(image_hwc: Picture, text: str, place: tuple[int, int], *, colour: Sequence[int] = WHITE) -> None:
    """A line of text, its lower left corner at `place`, cut where the picture ends."""
    text = text if hasattr(cv2, "FontFace") else text.encode("ascii", "replace").decode("ascii")
    room = image_hwc.shape[1] - place[0] - 6
    if _text_width(text) > room:
        while len(text) > 1 and _text_width(text + "...") > room:
            text = text[:-1]
        text += "..."
    cv2.putText(image_hwc, text, place, FONT, SIZE, colour, 1, cv2.LINE_AA)


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, FONT, SIZE, 1)[0][0])


def _alone(image_hwc: Picture, card: Card) -> list[Place]:
    place = _paint(image_hwc[: image_hwc.shape[0] - PANEL_HEIGHT], card)
    if place is None:
        write(image_hwc, card.line, (14, 30), colour=AMBER)
    return [place] if place else []


def _grid(image_hwc: Picture, cards: Sequence[Card]) -> list[Place]:
    """All cameras, each with its line on it."""
    places = []
    num_columns = _num_columns(image_hwc, cards)
    num_rows = max(1, math.ceil(len(cards) / num_columns))
    height, width = image_hwc.shape[0] // num_rows, image_hwc.shape[1] // num_columns
    for index, card in enumerate(cards):
        left, top = index % num_columns * width, index // num_columns * height
        part_hwc = image_hwc[top : top + height - GAP, left : left + width - GAP]
        place = _paint(part_hwc, card)
        bar_hwc = part_hwc[:22]
        cv2.convertScaleAbs(bar_hwc, bar_hwc, alpha=0.4)
        write(bar_hwc, card.line, (6, 16), colour=WHITE if card.is_well else AMBER)
        if place is not None:
            places.append(Place(place.masks, place.left + left, place.top + top, place.width, place.height))
    return places


def _num_columns(image_hwc: Picture, cards: Sequence[Card]) -> int:
    """That which leaves the pictures largest, taken for as wide as the first."""
    known = next((card.masks for card in cards if card.masks is not None), None)
    ratio = known.width / known.height if known is not None else 16 / 9
    height, width = image_hwc.shape[:2]
    counts = range(1, len(cards) + 1)
    return max(counts, key=lambda num: min(width / num, height / math.ceil(len(cards) / num) * ratio), default=1)


def _paint(part_hwc: Picture, card: Card) -> Place | None:
    """The camera's picture with its masks, as large as the part of the window lets it be, in its middle."""
    masks, picture_hwc = card.masks, card.picture_hwc
    if masks is None or picture_hwc is None:
        return None
    room_height, room_width = part_hwc.shape[:2]
    factor = min(room_width / masks.width, room_height / masks.height)
    width, height = max(1, round(masks.width * factor)), max(1, round(masks.height * factor))
    left, top = (room_width - width) // 2, (room_height - height) // 2
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    fitted_hwc = np.asarray(cv2.resize(picture_hwc, (width, height), interpolation=how), np.uint8)
    if not card.is_well:
        fitted_hwc = np.asarray(cv2.convertScaleAbs(fitted_hwc, alpha=0.5), np.uint8)
    labels = {item.id: item.label for item in masks.objects}
    drawn_hwc = draw_overlay(fitted_hwc, scaled(masks.masks(), height, width), labels=labels, selected=card.selected)
    place = Place(masks, left, top, width, height)
    own = Place(masks, 0, 0, width, height)
    for mark in card.marks:
        _mark(drawn_hwc, own, mark)
    part_hwc[top : top + height, left : left + width] = drawn_hwc
    return place


def _mark(image_hwc: Picture, place: Place, mark: Mark) -> None:
    """A small cross or a thin box, readable on every background."""
    colour = ON if mark.is_on else BESIDE
    for line, thickness in (((0, 0, 0), 4), (colour, 2)):
        if mark.box is not None:
            x0, y0, x1, y1 = mark.box
            corners = place.inside(x0, y0), place.inside(x1 - 1, y1 - 1)
            cv2.rectangle(image_hwc, *corners, line, thickness, cv2.LINE_AA)
            continue
        x, y = place.inside(mark.x, mark.y)
        cv2.line(image_hwc, (x - 6, y), (x + 6, y), line, thickness, cv2.LINE_AA)
        if mark.is_on:
            cv2.line(image_hwc, (x, y - 6), (x, y + 6), line, thickness, cv2.LINE_AA)


def _panel(panel_hwc: Picture, cards: Sequence[Card], said: str) -> None:
    panel_hwc[:] = PANEL
    if len(cards) == 1:
        card, line = cards[0], cards[0].line
        if card.masks is not None and card.is_well:
            masks, labels = card.masks.masks(), {item.id: item.label for item in card.masks.objects}
            hidden = (caption_hidden(masks, row, labels) for row in range(len(masks.object_ids)))
            line = "     ".join([line, *(text for text in hidden if text)])
        write(panel_hwc, line, (8, 18), colour=GREY if card.is_well else AMBER)
    else:
        write(panel_hwc, f"{len(cards)} cameras", (8, 18), colour=GREY)
    write(panel_hwc, said, (8, 39))


def _help(image_hwc: Picture) -> None:
    """The keys, on a dark plate in the middle."""
    height, width = image_hwc.shape[:2]
    step = min(22, max(12, (height - 24) // len(KEYS)))
    room_width, room_height = min(width, 560), min(height, step * len(KEYS) + 24)
    left, top = (width - room_width) // 2, (height - room_height) // 2
    plate_hwc = image_hwc[top : top + room_height, left : left + room_width]
    cv2.convertScaleAbs(plate_hwc, plate_hwc, alpha=0.18)
    for index, (key, text) in enumerate(KEYS):
        base = 12 + step * index + 14
        write(plate_hwc, key, (16, base), colour=AMBER)
        write(plate_hwc, text, (126, base))
