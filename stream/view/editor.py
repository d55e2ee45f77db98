"""`Editor`: what clicks and keys mean. Events in; commands, a status line and hints for drawing out.

Owns: what is selected, and the mode (a new object, a name being typed, help). Runs in the view's main thread. Never:
touches a window, a socket or a picture.

A click on the selected object is sent alone, as `refine` on the picture that was clicked on: SAM 2 starts from the
object's mask on that picture, in which the earlier clicks are contained. (Earlier clicks themselves lie on earlier
pictures, where the object may have been elsewhere.) A box shows the selected object anew, as `add` with its id: SAM 2
knows a box only as the first prompt of an object. Until the daemon has told a new object's id, further clicks wait.
"""

from __future__ import annotations

import time

from stream.client import MasksMessage
from stream.command import MAX_LABEL, Add, ObjectRequest, Refine, Remove, Rename, Undo
from stream.view.asking import Ask, Asked, Open, Outcome, answer_text, asking_text, seen_of
from stream.view.choice import Choice
from stream.view.gesture import Box, Click, Spot
from stream.view.window import Button

MAX_WAITING = 16  # clicks that wait for a new object's id; more are not taken
NOTHING = "no object is selected: point at one and press the middle button, or press Space"
NO_COMMANDS = "the daemon takes no commands: `control` is not in its configuration"
NOT_HEARD = "the daemon was not heard yet"


class Editor:
    """Written by the view's thread alone. `said` explains what happened last."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.is_help = self.is_over = False
        self.is_new = False  # the next click makes a new object
        self.can_command: bool | None = None  # None: the daemon was not heard yet
        self.name: str | None = None  # what was typed so far of the selected object's name
        self.said = "click on an object to follow it; H: help"
        self._asked = Asked()
        self._selected: dict[str, int] = {}  # by camera
        self._shown: dict[str, MasksMessage] = {}  # by camera
        self._waiting: list[tuple[Spot, bool]] = []
        self._wants_picture = False
        self._keys = {
            "q": self._end, "escape": self._leave, "h": self._toggle_help, "n": self._start_new, "r": self._start_name,
            " ": self._select_next, "delete": self._remove, "backspace": self._remove, "z": self._undo,
            "s": self._save, "g": self._toggle_grid, "tab": self._next_camera,
        }  # fmt: skip

    # --- what the program tells --------------------------------------------------------------------------------------

    def see(self, masks: MasksMessage, now_s: float) -> None:
        """The picture of its camera that is on the screen from now on."""
        camera, last = masks.camera, self._shown.get(masks.camera)
        if last is not None and last.run != masks.run:
            self._asked.forget(camera)
            self._waiting = []
            self.said = "the daemon was started anew"
        self._shown[camera] = masks
        self._asked.show(masks, now_s)
        if not self._asked.awaits_id(camera):
            self._waiting = [one for one in self._waiting if one[0].masks.camera != camera]
        expected = {one.object_id for one in self._asked.of(camera)}
        selected = self._selected.get(camera)
        if selected is not None and selected not in expected | {item.id for item in masks.objects}:
            del self._selected[camera]
            self.name = None

    def note(self, masks: MasksMessage) -> None:
        """Masks that came, whether they will be shown or not."""
        self._asked.note(masks)

    def keep(self, cameras: frozenset[str]) -> None:
        """Forget all other cameras."""
        self._selected = {name: value for name, value in self._selected.items() if name in cameras}
        self._shown = {name: value for name, value in self._shown.items() if name in cameras}

    def answer(self, outcome: Outcome) -> None:
        """A command was answered, or nobody answered."""
        known = self._asked.answer(outcome)
        if known is None:
            return
        self.said = answer_text(known, outcome)
        if known.adds:
            if outcome.reply is not None and outcome.reply.ok and known.object_id is not None:
                self._selected[known.camera] = known.object_id
            self._go_on(known.camera)

    def take_asks(self) -> list[Ask]:
        """Commands to be sent, in this order; each one is to be answered."""
        return self._asked.take_unsent()

    def take_wish_for_picture(self) -> bool:
        """Whether the picture shall be saved now."""
        wanted, self._wants_picture = self._wants_picture, False
        return wanted

    # --- what the picture needs --------------------------------------------------------------------------------------

    def selected(self, camera: str | None) -> int | None:
        return self._selected.get(camera) if camera is not None else None

    def open(self, camera: str) -> list[Open]:
        """What was asked and is not on the screen yet."""
        return self._asked.of(camera)

    def line(self) -> str:
        """The status line: what just happened, or what is being typed."""
        if self.name is not None:
            selected = self.selected(self.choice.camera)
            return f"name of object {selected}: {self.name}_    (Enter: done, Esc: leave it)"
        return self.said

    # --- mouse -------------------------------------------------------------------------------------------------------

    def point(self, gesture: Click | Box) -> None:
        """A click or a box on a picture."""
        self.name = None
        masks = gesture.spot.masks if isinstance(gesture, Click) else gesture.masks
        if self.is_help:
            self.is_help = False
        elif self.choice.is_grid:
            self._say(self.choice.choose(masks.camera))
        elif isinstance(gesture, Click) and gesture.button is Button.MIDDLE:
            self._select(object_at(gesture.spot))
        elif not self.can_command:
            self.said = NO_COMMANDS if self.can_command is not None else NOT_HEARD
        elif isinstance(gesture, Box):
            self._box(gesture)
        else:
            self._click(gesture.spot, is_on=gesture.button is Button.LEFT)

    def _click(self, spot: Spot, *, is_on: bool) -> None:
        camera, seen = spot.masks.camera, seen_of(spot.masks)
        selected = None if self.is_new else self._selected.get(camera)
        if selected is not None:
            point = (float(spot.x), float(spot.y), 1 if is_on else 0)
            self._ask(Refine(camera=camera, object_id=selected, points=(point,), seen=seen))  # type: ignore[arg-type]
        elif not self.is_new and self._asked.awaits_id(camera):
            self._waiting = [*self._waiting, (spot, is_on)][:MAX_WAITING]
        elif is_on:
            self.is_new = False
            self._ask(Add(camera=camera, points=((float(spot.x), float(spot.y), 1),), seen=seen))
        else:
            self.said = "a new object begins with a left click or a box" if self.is_new else NOTHING

    def _box(self, box: Box) -> None:
        camera = box.masks.camera
        selected = None if self.is_new else self._selected.get(camera)
        x0, y0, x1, y1 = map(float, box.corners)
        self.is_new = False
        self._ask(Add(camera=camera, box=(x0, y0, x1, y1), object_id=selected, seen=seen_of(box.masks)))

    def _go_on(self, camera: str) -> None:
        """Clicks that waited for the new object's id; nothing becomes of them if there is none."""
        if self._asked.awaits_id(camera):
            return
        waiting = [one for one in self._waiting if one[0].masks.camera == camera]
        self._waiting = [one for one in self._waiting if one[0].masks.camera != camera]
        for spot, is_on in waiting if camera in self._selected else ():
            self._click(spot, is_on=is_on)

    def _ask(self, request: ObjectRequest) -> None:
        self._asked.ask(request, time.monotonic())
        self.said = asking_text(request)

    # --- keys --------------------------------------------------------------------------------------------------------

    def type(self, key: str) -> None:
        """A character, or the name of a key."""
        if self.name is not None:
            self._type_name(key)
        elif key.lower() in self._keys:
            self._keys[key.lower()]()
        elif len(key) == 1 and key in "123456789":
            self._say(self.choice.choose_number(int(key)))

    def _type_name(self, key: str) -> None:
        assert self.name is not None, "somebody types a name"
        camera, selected = self.choice.camera, self.selected(self.choice.camera)
        if key == "enter" and camera is not None and selected is not None:
            self._ask(Rename(camera=camera, object_id=selected, label=self.name.strip()))
            self.name = None
        elif key in ("escape", "enter"):
            self.name, self.said = None, "the name stays as it is"
        elif key == "backspace":
            self.name = self.name[:-1]
        elif len(key) == 1 and len(self.name) < MAX_LABEL:
            self.name += key

    def _end(self) -> None:
        self.is_over = True

    def _leave(self) -> None:
        """Esc: out of what is open, at last out of the window."""
        if self.is_help or self.is_new:
            self.is_help = self.is_new = False
            self.said = ""
        else:
            self.is_over = True

    def _toggle_help(self) -> None:
        self.is_help = not self.is_help

    def _save(self) -> None:
        self._wants_picture = True

    def _toggle_grid(self) -> None:
        self._say(self.choice.toggle_grid())

    def _next_camera(self) -> None:
        self._say(self.choice.choose_next())

    def _say(self, text: str) -> None:
        """After another choice of cameras."""
        self.is_new = False
        self.said = text

    def _select_next(self) -> None:
        """Through all objects of the camera, also those that are not seen, and then none."""
        selected = self.selected(self.choice.camera)
        ids = sorted(self._labels().keys() | (set() if selected is None else {selected}))
        if not ids:
            self.said = "there is no object to select: a click makes one"
            return
        order = [*ids, None]
        self._select(order[(order.index(selected) + 1) % len(order)])

    def _labels(self) -> dict[int, str]:
        """The objects of the chosen camera."""
        shown = self._shown.get(self.choice.camera or "")
        return {item.id: item.label for item in shown.objects} if shown else {}

    def _select(self, object_id: int | None) -> None:
        camera = self.choice.camera
        assert camera is not None, "there is a picture to point at"
        self.is_new = False
        self._selected.pop(camera, None)
        if object_id is not None:
            self._selected[camera] = object_id
        self.said = "nothing is selected: a click makes a new object"
        if object_id is not None:
            self.said = f"object {object_id} is selected"

    def _start_new(self) -> None:
        if self._may(needs_object=False):
            self.is_new = True
            self.said = "a new object: click on it, or draw a box around it"

    def _start_name(self) -> None:
        if self._may():
            self.name = self._labels().get(self._selected[self.choice.camera or ""], "")

    def _remove(self) -> None:
        if self._may() and self.choice.camera is not None:
            self._ask(Remove(camera=self.choice.camera, object_id=self._selected[self.choice.camera]))

    def _undo(self) -> None:
        if self._may(needs_object=False) and self.choice.camera is not None:
            self._ask(Undo(camera=self.choice.camera))

    def _may(self, *, needs_object: bool = True) -> bool:
        """Whether a command makes sense now; else it is said why not."""
        if self.choice.is_grid or self.choice.camera is None:
            self.said = "choose a camera first: click on it"
        elif not self.can_command:
            self.said = NO_COMMANDS if self.can_command is not None else NOT_HEARD
        elif needs_object and self.choice.camera not in self._selected:
            self.said = NOTHING
        else:
            return True
        return False


def object_at(spot: Spot) -> int | None:
    """The id of the object there, the smallest where several overlap."""
    x, y = spot.x, spot.y
    found = []
    for item in spot.masks.objects:
        x0, y0, x1, y1 = item.box
        if item.patch is not None and x0 <= x < x1 and y0 <= y < y1 and item.crop()[y - y0, x - x0]:
            found.append(item)
    return min(found, key=lambda item: item.area).id if found else None
