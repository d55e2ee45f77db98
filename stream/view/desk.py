"""`Desk`: one turn of the window: what mouse and keyboard did, what became of commands, what is to be drawn.

Owns: the editor, the gestures, the messenger, and the picture that the window shows. Runs in the view's main thread.
Never: waits for a reply.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stream.client import ClientKeys, Info
from stream.controller import control_endpoint
from stream.overlay import draw_overlay
from stream.view.canvas import Canvas, Card, Mark, compose, window_size
from stream.view.choice import Choice
from stream.view.editor import Editor
from stream.view.gesture import Gestures
from stream.view.messenger import REPLY_LIMIT_S, Messenger
from stream.view.reel import Reel
from stream.view.window import Touch, Window

MAX_SIZE = (1280, 860)  # of the window at first; it may be pulled larger
REDRAW_S = 0.5  # also when nothing comes: it says for how long
LOOK_AFTER_S = 4.0  # without a word from the daemon: find out why, again and again


class Desk:
    """Every field is written by the view's thread."""

    def __init__(self, endpoint: str, choice: Choice, *, keys: ClientKeys | None) -> None:
        self.endpoint = endpoint
        self.editor = Editor(choice)
        self.is_over = False
        self._choice = choice
        self._messenger = Messenger(keys)
        self._gestures = Gestures()
        self._window: Window | None = None
        self._canvas: Canvas | None = None
        self._info: Info | None = None
        self._size: tuple[int, int] | None = None  # that was drawn last
        self._is_fitted = False  # the window has the size of the first picture
        self._drawn_s = 0.0
        self._is_changed = True
        self._look_s = time.monotonic() + LOOK_AFTER_S

    def start(self, window: Window) -> None:
        self._window = window
        self._messenger.start()

    def stop(self) -> None:
        """Once the window is gone; an answer that is due is waited for, but not for ever."""
        self._messenger.stop()
        if self._window is not None:
            self._messenger.join(REPLY_LIMIT_S + 1.0)

    def put_info(self, info: Info, said: str) -> None:
        """What the daemon is and may, and what that changed."""
        if self._info is not None and self._info.run != info.run:
            said = "the daemon was started anew"
        self._info = info
        self.editor.can_command = bool(info.control)
        self.editor.keep(self._choice.kept)
        self.editor.said = said or self.editor.said

    def serve(self, reels: Sequence[Reel]) -> int:
        """One turn for the cameras that are shown; the number of new pictures."""
        window = self._window
        assert window is not None, "the desk was started"
        window.pump()
        self._obey(window.take())
        self._carry()
        num_new = sum(self._advance(reel) for reel in reels)
        if self.editor.take_wish_for_picture():
            self.editor.said = self._save(reels)
        self._look()
        now_s = time.monotonic()
        if num_new or self._is_changed or window.size != self._size or now_s - self._drawn_s > REDRAW_S:
            self._draw(window, self._cards(reels))
        self.is_over = self.editor.is_over or not window.is_open
        return num_new

    def _draw(self, window: Window, cards: Sequence[Card]) -> None:
        self._size, self._drawn_s, self._is_changed = window.size, time.monotonic(), False
        window.pump()  # between the slow steps
        canvas = compose(cards, self._size, said=self.editor.line(), is_help=self.editor.is_help)
        window.pump()
        self._obey(window.take())  # it was meant for the picture that is still on the screen
        self._canvas = canvas
        window.show(canvas.image_hwc)

    def _obey(self, events: Sequence[Touch | str]) -> None:
        for event in events:
            self._is_changed = True
            if isinstance(event, str):
                self._gestures.cancel()
                self.editor.type(event)
            elif self._canvas is not None:
                gesture = self._gestures.put(event, self._canvas.spot(event))
                if gesture is not None:
                    self.editor.point(gesture)

    def _carry(self) -> None:
        """Commands out, answers in."""
        for ask in self.editor.take_asks():
            self._messenger.put(control_endpoint(self.endpoint, self._info), ask)
        for outcome in self._messenger.take():
            self.editor.answer(outcome)
            self._is_changed = True

    def _advance(self, reel: Reel) -> bool:
        """Whether the camera has a new picture; its first one gives the window its size."""
        reel.advance()
        masks = reel.take_unseen()
        if masks is None:
            return False
        self.editor.see(masks, time.monotonic())
        if not self._is_fitted and self._window is not None:
            self._window.resize(window_size(masks, MAX_SIZE))
            self._is_fitted = True
        return True

    def _look(self) -> None:
        """Why is nothing heard?"""
        now_s = time.monotonic()
        if self._info is None and now_s > self._look_s:
            self._look_s = now_s + LOOK_AFTER_S
            self._messenger.look(self.endpoint)

    def _cards(self, reels: Sequence[Reel]) -> list[Card]:
        if not reels:
            reason = f": {self._messenger.why_silent}" if self._messenger.why_silent else ""
            text = f"waiting for {self.endpoint}{reason}" if self._info is None else "the daemon has no cameras"
            return [Card("", text, is_well=False)]
        return [self._card(reel) for reel in reels]

    def _card(self, reel: Reel) -> Card:
        trouble = reel.trouble(time.monotonic())
        if self._info is not None and reel.camera not in self._choice.names:
            trouble = f"the daemon has no camera {reel.camera}"
        if self._info is None and reel.shown is None:
            trouble = f"waiting for {self.endpoint}"
            trouble += f": {self._messenger.why_silent}" if self._messenger.why_silent else ""
        line = trouble or reel.figures()
        if len(self._choice.names) > 1 and reel.camera in self._choice.names:
            line = f"{self._choice.names.index(reel.camera) + 1}: {line}"
        masks, picture_hwc = reel.shown or (None, None)
        line = "   ".join(text for text in (line, reel.problem()) if text)
        return Card(
            reel.camera, line, is_well=not trouble, picture_hwc=picture_hwc, masks=masks,
            selected=self.editor.selected(reel.camera), marks=tuple(self._marks(reel.camera)),
        )  # fmt: skip

    def _marks(self, camera: str) -> list[Mark]:
        """Prompts whose effect is not on the screen yet, and the box that is being drawn."""
        marks = []
        for one in self.editor.open(camera):
            marks += [Mark(x, y, label == 1) for x, y, label in getattr(one.request, "points", ())]
            box = getattr(one.request, "box", None)
            marks += [Mark(box=box)] if box is not None else []
        dragged = self._gestures.dragged
        if dragged is not None and dragged.masks.camera == camera:
            x0, y0, x1, y1 = map(float, dragged.corners)
            marks.append(Mark(box=(x0, y0, x1, y1)))
        return marks

    def _save(self, reels: Sequence[Reel]) -> str:
        """The shown pictures with their masks, in the camera's own size, as PNG; what to tell the person."""
        shown = [reel.shown for reel in reels if reel.shown is not None]
        paths = []
        for masks, image_hwc in shown:
            labels = {item.id: item.label for item in masks.objects}
            drawn_hwc = draw_overlay(image_hwc, masks.masks(), labels=labels)
            path = Path(f"{masks.camera}-{masks.epoch}-{masks.seq}.png")
            _, data = cv2.imencode(".png", drawn_hwc)
            try:
                path.write_bytes(np.asarray(data).tobytes())
            except OSError as error:
                return f"{path.absolute()} is not saved: {error.strerror}"
            paths.append(str(path.absolute()))
        return f"saved {', '.join(paths)}" if paths else "there is no picture to save yet"
