"""`Orders`: obeys commands about objects, and knows of each camera what the tracker does not: labels, what a person
changed, and how to take it back.

Owns: one roster a camera. The worker's thread alone uses it. Never: answers anybody, touches a picture, or grows: undo
goes back `MAX_UNDO` commands, and holds the memory of at most `MAX_UNDO_ROWS` objects beside that of the last command.

A command takes effect on the next picture, or, where the picture that the person saw is remembered, on that one at
once (`stream.recall`). Undo puts an object's memory back as it was before the command; time has stood still for it.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.command import Add, ObjectRequest, Prompted, Refine, Remove, Rename, Reply, Reset, Seen, Undo
from stream.config import CameraConfig, PromptConfig
from stream.frame import Frame, Stamp
from stream.mask_codec import WireError
from stream.prompt import Prompt, PromptError, check_inside, checked_prompt, read_mask
from stream.tracker import Snapshot, Tracker

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


class Roster:
    """One camera. Written by the worker's thread.

    `touched`: objects added or changed at run time. `moved`: configured ids whose object has another id now.
    """

    __slots__ = ("config", "epoch", "labels", "moved", "requests", "seq", "size", "touched", "undo")

    def __init__(self, config: CameraConfig) -> None:
        self.config = config
        self.epoch: int | None = None  # of the memory; None before the first picture
        self.seq: int | None = None  # of the last picture
        self.size: tuple[int, int] | None = None  # its (height, width)
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

    def remember(self, undoing: Undoing) -> None:
        self.undo.append(undoing)
        while len(self.undo) > 1 and sum(len(one.before) for one in self.undo) > MAX_UNDO_ROWS:
            self.undo.popleft()


class Orders:
    """`num_changes` rises with every command that changed something."""

    def __init__(self, tracker: Tracker, *, max_objects: int) -> None:
        self.num_changes = 0
        self._tracker = tracker
        self._max_objects = max_objects
        self._rosters: dict[str, Roster] = {}

    # --- cameras and pictures ----------------------------------------------------------------------------------------

    def set_cameras(self, configs: Mapping[str, CameraConfig]) -> None:
        """Follow these cameras; the objects of others are forgotten."""
        for camera in [name for name in self._rosters if name not in configs]:
            self._tracker.reset(camera)
            del self._rosters[camera]
        for camera, config in configs.items():
            self._rosters.setdefault(camera, Roster(config)).config = config

    def roster(self, camera: str) -> Roster:
        return self._rosters[camera]

    @property
    def rosters(self) -> Mapping[str, Roster]:
        return self._rosters

    def num_rows(self, camera: str) -> int:
        """How many objects the camera's next picture will have."""
        roster = self._rosters[camera]
        known = len(self._tracker.object_ids(camera))
        return known if roster.epoch is not None else max(known, len(roster.config.prompts))

    def follow(self, frame: Frame) -> list[PromptError]:
        """The camera's next picture: a new epoch starts without memory, with the configured prompts.

        Returns what is wrong with prompts, which are dropped.
        """
        stamp, roster = frame.stamp, self._rosters[frame.stamp.camera]
        errors = []
        if roster.epoch != stamp.epoch:
            errors = self._begin(stamp, roster)
        roster.seq, roster.size = stamp.seq, (frame.height, frame.width)
        return errors + self._tracker.drop_misfits(stamp.camera, frame.height, frame.width)

    def take_requests(self, camera: str) -> tuple[str, ...]:
        """Ids of the commands whose effect the camera's next masks show."""
        requests = self._rosters[camera].requests
        taken = tuple(requests)
        requests.clear()
        return taken

    def labels(self, camera: str, object_ids: Sequence[int]) -> dict[int, str]:
        known = self._rosters[camera].labels
        return {object_id: known.get(object_id, "") for object_id in object_ids}

    def _begin(self, stamp: Stamp, roster: Roster) -> list[PromptError]:
        self._tracker.reset(stamp.camera)
        roster.begin(stamp.epoch)
        errors = []
        for prompt in roster.config.prompts:
            try:
                self._add_configured(stamp.camera, prompt)
                roster.labels[prompt.object_id] = prompt.label
            except PromptError as error:
                errors.append(error)
        return errors

    def _add_configured(self, camera: str, prompt: PromptConfig) -> None:
        mask = None if prompt.mask is None else read_mask(prompt.mask)
        self._tracker.add(prompt.object_id, points=prompt.points, box=prompt.box, mask=mask, camera=camera)

    # --- commands ----------------------------------------------------------------------------------------------------

    def obey(self, request: ObjectRequest) -> Reply:
        """Do it, or say why not."""
        roster = self._rosters.get(request.camera)
        if roster is None:
            known = ", ".join(self._rosters) or "none"
            return _no(request, "unknown", f"there is no camera '{request.camera}'; expected one of: {known}")
        object_id = getattr(request, "object_id", None)
        if not isinstance(request, Add) and object_id is not None and not self._knows(request.camera, object_id):
            ids = ", ".join(map(str, self._tracker.object_ids(request.camera))) or "none"
            return _no(request, "unknown", f"there is no object {object_id} on '{request.camera}'; known ids: {ids}")
        try:
            reply = self._do(request, roster)
        except (PromptError, WireError) as error:
            return _no(request, "refused", str(error))
        if reply.ok:
            self.num_changes += 1
            if request.id:
                roster.requests.append(request.id)
        return reply

    def _do(self, request: ObjectRequest, roster: Roster) -> Reply:
        match request:
            case Add() | Refine():
                return self._prompt(request, roster)
            case Remove():
                return self._remove(request, roster)
            case Rename():
                return self._rename(request, roster)
            case Reset():
                return self._reset(request, roster)
            case Undo():
                return self._undo(request, roster)

    def _prompt(self, request: Add | Refine, roster: Roster) -> Reply:
        if request.seen is not None and (reason := _stale(request.seen, roster)):
            return _no(request, "stale", reason)
        prompt = checked_prompt(points=request.points, box=request.box, mask=_unpacked(request, roster.size))
        if roster.size is not None:
            check_inside(prompt, *roster.size)
        object_id = self._free_id(roster) if request.object_id is None else request.object_id
        is_new = not self._knows(request.camera, object_id)
        if is_new and self._tracker.num_objects >= self._max_objects:
            limit = f"expected at most {self._max_objects} (max_objects)"
            return _no(request, "refused", f"there are {self._tracker.num_objects} objects; {limit}")
        what = f"{'add' if isinstance(request, Add) else 'refine'} {object_id}"
        undoing = self._undoing(what, roster, object_id, ids=[object_id])
        self._put_prompt(object_id, request, prompt)
        if isinstance(request, Add) and (is_new or request.label):
            roster.labels[object_id] = request.label
        roster.touched.add(object_id)
        roster.moved.discard(object_id)
        roster.remember(undoing)
        note = "" if roster.size is not None else "no picture has come yet: it is applied to the first one"
        return Reply(id=request.id, object_id=object_id, note=note)

    def _put_prompt(self, object_id: int, request: Add | Refine, prompt: Prompt) -> None:
        put = self._tracker.add if isinstance(request, Add) else self._tracker.refine
        put(object_id, points=prompt.points, box=prompt.box, mask=prompt.mask_hw, camera=request.camera)

    def _remove(self, request: Remove, roster: Roster) -> Reply:
        object_id = request.object_id
        roster.remember(self._undoing(f"remove {object_id}", roster, object_id, ids=[object_id]))
        self._tracker.remove(object_id, camera=request.camera)
        roster.labels.pop(object_id, None)
        roster.touched.discard(object_id)
        return Reply(id=request.id, object_id=object_id)

    def _rename(self, request: Rename, roster: Roster) -> Reply:
        old, new = request.object_id, request.object_id if request.new_id is None else request.new_id
        undoing = self._undoing(f"rename {old}", roster, old, ids=[])
        if new != old:
            self._tracker.rename(old, new, camera=request.camera)
            undoing = Undoing(undoing.what, old, {}, undoing.labels, undoing.touched, undoing.moved, (new, old))
            roster.moved.add(old)
        roster.labels[new] = roster.labels.pop(old, "") if request.label is None else request.label
        if new != old:
            roster.labels.pop(old, None)
        roster.touched = (roster.touched - {old}) | {new}
        roster.remember(undoing)
        return Reply(id=request.id, object_id=new)

    def _reset(self, request: Reset, roster: Roster) -> Reply:
        ids = self._tracker.object_ids(request.camera)
        if not ids:
            return Reply(id=request.id, note="there was no object")
        roster.remember(self._undoing("reset", roster, None, ids=ids))
        self._tracker.reset(request.camera)
        roster.labels, roster.touched = {}, set()
        return Reply(id=request.id)

    def _undo(self, request: Undo, roster: Roster) -> Reply:
        if not roster.undo:
            return _no(request, "refused", "there is nothing to take back")
        last = roster.undo.pop()
        if last.renamed is not None and self._knows(request.camera, last.renamed[0]):
            self._tracker.rename(*last.renamed, camera=request.camera)
        for object_id, snapshot in last.before.items():
            if snapshot is not None:
                self._tracker.restore(object_id, snapshot, camera=request.camera)
            elif self._knows(request.camera, object_id):
                self._tracker.remove(object_id, camera=request.camera)
        roster.labels, roster.touched, roster.moved = dict(last.labels), set(last.touched), set(last.moved)
        return Reply(id=request.id, object_id=last.object_id, note=f"taken back: {last.what}")

    def _undoing(self, what: str, roster: Roster, object_id: int | None, *, ids: Sequence[int]) -> Undoing:
        camera = roster.config.name
        before = {i: self._tracker.snapshot(i, camera=camera) if self._knows(camera, i) else None for i in ids}
        touched, moved = frozenset(roster.touched), frozenset(roster.moved)
        return Undoing(what, object_id, before, dict(roster.labels), touched, moved)

    def _knows(self, camera: str, object_id: int) -> bool:
        return object_id in self._tracker.object_ids(camera)

    def _free_id(self, roster: Roster) -> int:
        taken = {prompt.object_id for prompt in roster.config.prompts}
        taken.update(self._tracker.object_ids(roster.config.name))
        return next(number for number in itertools.count(1) if number not in taken)


def _no(request: ObjectRequest, code: str, error: str) -> Reply:
    return Reply(id=request.id, ok=False, code=code, error=error)


def _stale(seen: Seen, roster: Roster) -> str:
    """Why what was seen cannot be spoken of any more; "" = it can."""
    if roster.size is None or roster.epoch is None:
        return "no picture of this camera has been processed yet; expected a prompt without the picture seen"
    if seen.epoch != roster.epoch:
        return f"the picture is of epoch {seen.epoch}; expected the camera's, {roster.epoch}: its memory was dropped"
    if (seen.height, seen.width) != roster.size:
        height, width = roster.size
        return f"the picture is {seen.width}x{seen.height}; expected the camera's size, {width}x{height}"
    return ""


def _unpacked(request: Prompted, size: tuple[int, int] | None) -> NDArray[np.bool_] | None:
    """The mask that was sent; its size is checked before a byte of it is unpacked."""
    sent = request.mask
    if sent is None:
        return None
    if size is not None and (sent.height, sent.width) != size:
        raise PromptError(f"the mask is {sent.width}x{sent.height}; expected the picture's size, {size[1]}x{size[0]}")
    return sent.mask_hw()
