"""`Roster`: what is known of one camera's objects beside their memory: labels, what a person changed, and how to take
that back.

Owns: the stack of undo. The worker's thread alone uses it. Never: touches a tracker, or grows: undo goes back
`MAX_UNDO` commands, and holds the memory of at most `MAX_UNDO_ROWS` objects beside that of the last command; the oldest
command is forgotten first.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stream.command import Seen
from stream.config import CameraConfig
from stream.turn import Snapshot

MAX_UNDO = 8
MAX_UNDO_ROWS = 32
MAX_REQUESTS = 64  # of one picture


@dataclass(frozen=True, slots=True)
class Undoing:
    """What one command changed. `before` has each object's memory, None where there was no such object."""

    what: str
    object_id: int | None
    before: Mapping[int, Snapshot | None]
    labels: Mapping[int, str]
    touched: frozenset[int]
    moved: frozenset[int]
    renamed: tuple[int, int] | None = None

    @property
    def num_rows(self) -> int:
        """How many objects' memories it holds."""
        return sum(snapshot is not None for snapshot in self.before.values())


class Roster:
    """One camera. Written by the worker's thread.

    `touched`: objects added or changed at run time. `moved`: configured ids whose object has another id now.
    """

    __slots__ = ("config", "epoch", "labels", "moved", "requests", "size", "touched", "undo", "utc_ns", "watched_ns")

    def __init__(self, config: CameraConfig) -> None:
        self.config = config
        self.epoch: int | None = None  # of the memory; None before the first picture
        self.utc_ns = 0  # when the last picture arrived
        self.size: tuple[int, int] | None = None  # its (height, width)
        self.watched_ns: int | None = None  # when a picture was last kept for a person's clicks
        self.labels: dict[int, str] = {}
        self.touched: set[int] = set()
        self.moved: set[int] = set()
        self.undo: collections.deque[Undoing] = collections.deque(maxlen=MAX_UNDO)
        self.requests: collections.deque[str] = collections.deque(maxlen=MAX_REQUESTS)

    def begin(self, epoch: int) -> None:
        """Without memory of what was before."""
        self.epoch = epoch
        self.labels, self.touched, self.moved = {}, set(), set()
        self.undo.clear()
        self.requests.clear()

    def keep(self, object_ids: Collection[int]) -> None:
        """Forget the labels of objects that are gone."""
        self.labels = {object_id: label for object_id, label in self.labels.items() if object_id in object_ids}
        self.touched &= set(object_ids)

    def undoing(self, what: str, object_id: int | None, before: Mapping[int, Snapshot | None]) -> Undoing:
        """How to come back to what is now."""
        touched, moved = frozenset(self.touched), frozenset(self.moved)
        return Undoing(what, object_id, before, dict(self.labels), touched, moved)

    def put_back(self, last: Undoing) -> None:
        self.labels, self.touched, self.moved = dict(last.labels), set(last.touched), set(last.moved)

    def remember(self, undoing: Undoing) -> None:
        self.undo.append(undoing)
        while len(self.undo) > 1 and sum(one.num_rows for one in self.undo) > MAX_UNDO_ROWS:
            self.undo.popleft()

    def stale(self, seen: Seen) -> str:
        """Why what was seen cannot be spoken of any more; "" = it can."""
        assert self.size is not None, "only called when a picture has come"
        if seen.epoch != self.epoch:
            return f"the picture is of epoch {seen.epoch}; expected the camera's, {self.epoch}: its memory was dropped"
        if (seen.height, seen.width) != self.size:
            height, width = self.size
            return f"the picture is {seen.width}x{seen.height}; expected the camera's size, {width}x{height}"
        return ""
