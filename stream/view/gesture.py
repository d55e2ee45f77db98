"""Presses, moves and releases of the mouse become clicks and boxes on a picture.

Owns: the button that is held. Runs in the view's main thread. Never: knows objects or windows.

A click is meant for the picture that was shown when the button went down, a box for the one shown when it went up: that
is what the person saw when they chose the place.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream.client import MasksMessage
from stream.view.window import Act, Button, Touch

MIN_DRAG = 6  # pixels of the window: a hand that trembles still clicks


@dataclass(frozen=True, slots=True)
class Spot:
    """A pixel of a picture that is or was on the screen. `x` and `y` lie within the picture."""

    masks: MasksMessage
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Click:
    """A button went down and up again at one place."""

    button: Button
    spot: Spot


@dataclass(frozen=True, slots=True)
class Box:
    """From corner to corner (x0, y0, x1, y1), x1 and y1 exclusive, on the picture of `masks`."""

    masks: MasksMessage
    corners: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Held:
    """Where a button went down: in the window, and on the picture."""

    button: Button
    x: int
    y: int
    spot: Spot


class Gestures:
    """Written by the view's thread. `dragged` is the box that is being drawn."""

    def __init__(self) -> None:
        self.dragged: Box | None = None
        self._held: Held | None = None

    def put(self, touch: Touch, spot: Spot | None) -> Click | Box | None:
        """What this touch completes; `spot` is what it points at, None beside every picture."""
        if touch.act is Act.PRESS:
            is_more = self._held is not None  # a second button: what the first one began is given up
            self.dragged = None
            can_hold = spot is not None and touch.button is not None and not is_more
            self._held = Held(touch.button, touch.x, touch.y, spot) if can_hold and spot and touch.button else None
            return None
        held = self._held
        if held is None:
            return None
        self._drag(held, touch, spot)
        if touch.act is Act.MOVE or touch.button is not held.button:
            return None
        dragged, self.dragged, self._held = self.dragged, None, None
        return dragged or Click(held.button, held.spot)

    def cancel(self) -> None:
        self.dragged = self._held = None

    def _drag(self, held: Held, touch: Touch, spot: Spot | None) -> None:
        is_far = max(abs(touch.x - held.x), abs(touch.y - held.y)) >= MIN_DRAG
        if held.button is not Button.LEFT or spot is None or not (is_far or self.dragged):
            return
        masks, start = spot.masks, held.spot
        if (masks.camera, masks.width, masks.height) != (start.masks.camera, start.masks.width, start.masks.height):
            return
        xs, ys = sorted((start.x, spot.x)), sorted((start.y, spot.y))
        self.dragged = Box(masks, (xs[0], ys[0], xs[1] + 1, ys[1] + 1))
