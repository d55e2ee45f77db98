"""What was asked of the daemon, until its effect is on the screen; and the words for what became of it.

Owns: the list of open commands. Runs in the view's main thread; the values are frozen. Never: sends anything.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from stream.client import MasksMessage
from stream.command import Add, ObjectRequest, Refine, Remove, Rename, Reply, Seen, Undo

MAX_OPEN = 32  # the oldest is forgotten: its answer is then not told
SEEN_LIMIT_S = 30.0  # a command whose effect is not seen after so long is forgotten
NUM_SHOWN_KEPT = 256  # ids of commands in masks, for replies that come later than the masks

Order = tuple[int, int]  # (epoch, seq)


@dataclass(frozen=True, slots=True)
class Ask:
    """A command to be sent; the outcome has the same token."""

    token: int
    request: ObjectRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reply, also one that refuses, or why there is none."""

    token: int
    reply: Reply | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Open:
    """A command whose effect is not on the screen yet. `object_id` is None until the daemon has chosen it."""

    token: int
    request: ObjectRequest
    asked_s: float
    object_id: int | None
    request_id: str = ""  # known from the reply
    shown_from: Order | None = None  # the first picture that shows its effect, when its masks have come

    @property
    def camera(self) -> str:
        return self.request.camera

    @property
    def adds(self) -> bool:
        """Whether it makes an object whose id the daemon chooses."""
        return isinstance(self.request, Add) and self.request.object_id is None


class Asked:
    """All open commands. Written by the view's thread."""

    def __init__(self) -> None:
        self._open: list[Open] = []
        self._unsent: list[Ask] = []
        self._num_asked = 0
        self._shown: deque[tuple[str, Order]] = deque(maxlen=NUM_SHOWN_KEPT)

    def ask(self, request: ObjectRequest, now_s: float) -> None:
        self._num_asked += 1
        self._unsent.append(Ask(self._num_asked, request))
        object_id = getattr(request, "object_id", None)
        self._open = [*self._open[-MAX_OPEN + 1 :], Open(self._num_asked, request, now_s, object_id)]

    def take_unsent(self) -> list[Ask]:
        """Commands to be sent, in this order."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def of(self, camera: str) -> list[Open]:
        return [one for one in self._open if one.camera == camera]

    def awaits_id(self, camera: str) -> bool:
        """Whether the daemon has still to tell the id of a new object."""
        return any(one.adds and one.object_id is None for one in self.of(camera))

    def answer(self, outcome: Outcome) -> Open | None:
        """The command as it is known now; None if it was forgotten meanwhile."""
        known = next((one for one in self._open if one.token == outcome.token), None)
        if known is None:
            return None
        self._open.remove(known)
        reply = outcome.reply
        if reply is None or not reply.ok:
            return known
        shown_from = next((order for request_id, order in self._shown if request_id == reply.id), None)
        object_id = known.object_id if reply.object_id is None else reply.object_id
        answered = replace(known, object_id=object_id, request_id=reply.id, shown_from=shown_from)
        if reply.id:
            self._open.append(answered)
        return answered

    def note(self, masks: MasksMessage) -> None:
        """Masks that came: the commands in `requests` show from this picture on."""
        order = (masks.epoch, masks.seq)
        self._shown.extend((request_id, order) for request_id in masks.requests)
        self._open = [replace(one, shown_from=order) if one.request_id in masks.requests else one for one in self._open]

    def show(self, masks: MasksMessage, now_s: float) -> None:
        """This picture is on the screen: what it shows is done."""
        order = (masks.epoch, masks.seq)
        self._open = [
            one
            for one in self._open
            if now_s - one.asked_s < SEEN_LIMIT_S
            and not (one.camera == masks.camera and one.shown_from is not None and one.shown_from <= order)
        ]

    def forget(self, camera: str) -> None:
        """The daemon that was asked is gone."""
        self._open = [one for one in self._open if one.camera != camera]


def seen_of(masks: MasksMessage) -> Seen:
    return Seen(epoch=masks.epoch, seq=masks.seq, width=masks.width, height=masks.height, run=masks.run)


def asking_text(request: ObjectRequest) -> str:
    """While there is no answer."""
    object_id = getattr(request, "object_id", None)
    match request:
        case Add() if object_id is None:
            return "adding an object ..."
        case Add():
            return f"showing object {object_id} anew ..."
        case Refine():
            return f"correcting object {object_id} ..."
        case Remove():
            return f"removing object {object_id} ..."
        case Rename():
            return f"renaming object {object_id} ..."
        case _:
            return "taking back the last change ..."


def answer_text(known: Open, outcome: Outcome) -> str:
    """What became of it, in a line for the person who asked."""
    reply = outcome.reply
    if reply is None:
        return outcome.error
    if not reply.ok:
        return f"{'refused' if reply.code in ('', 'refused') else reply.code}: {reply.error}"
    if isinstance(known.request, Undo) and reply.note:
        return reply.note  # it names what was taken back
    done = _done_text(known)
    return f"{done} ({reply.note})" if reply.note else done


def _done_text(known: Open) -> str:
    object_id = known.object_id
    match known.request:
        case Add(object_id=None):
            return f"object {object_id} added: {_marks(known.request)}"
        case Add():
            return f"object {object_id} shown anew: {_marks(known.request)}"
        case Refine(points=points):
            said = "this belongs to it" if points[0][2] else "this does not belong to it"
            return f"object {object_id} corrected: {said}"
        case Remove():
            return f"object {object_id} removed; Z brings it back"
        case Rename(label=label):
            return f"object {object_id} is called '{label}' now" if label else f"object {object_id} has no name now"
        case Undo():
            return "the last change is taken back"
        case _:
            return "done"


def _marks(request: Add) -> str:
    num_points = len(request.points)
    points = [f"{num_points} point{'s' * (num_points > 1)}"] * (num_points > 0)
    return " and ".join([*points, *["a box"] * (request.box is not None)])
