"""`Orders`: obeys commands about objects, and prepares each camera's next picture: its epoch, its configured prompts.

Owns: one roster a camera. The worker's thread alone uses it. Never: answers anybody, or touches a picture.

A command takes effect on the next picture, or, where the picture that the person saw is remembered, on that one at
once (`stream.recall`). Undo puts an object's memory back as it was before the command; time has stood still for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stream.command import Add, ObjectRequest, Prompted, Refine, Remove, Rename, Reply, Reset, Undo
from stream.config import CameraConfig, PromptConfig
from stream.frame import Frame, Stamp
from stream.mask_codec import WireError
from stream.prompt import Prompt, PromptError, check_inside, checked_prompt, read_mask
from stream.roster import Roster, Undoing
from stream.saved import SavedObjects
from stream.state_file import LiveCamera, LiveObject
from stream.tracker import Tracker
from stream.tuning import tune, untune
from stream.turn import Snapshot

log = logging.getLogger(__name__)

UNWATCHED_NS = 5_000_000_000  # after so long nobody clicks on what they saw
NOT_KEPT = "what was seen is not remembered: it is applied to the next picture"


class Orders:
    """`num_changes` rises with every command that changed something."""

    def __init__(self, tracker: Tracker, *, max_objects: int, saved: SavedObjects | None = None) -> None:
        self.num_changes = 0
        self._tracker = tracker
        self._saved = saved
        self._max_objects = max_objects
        self._rosters: dict[str, Roster] = {}

    # --- cameras and pictures ----------------------------------------------------------------------------------------

    def set_cameras(self, configs: Mapping[str, CameraConfig]) -> None:
        """Follow these cameras; the objects of others are forgotten."""
        for camera in [name for name in self._rosters if name not in configs]:
            self._tracker.reset(camera)
            self._tracker.forget_pictures(camera)
            untune(self._tracker, camera)
            del self._rosters[camera]
        for camera, config in configs.items():
            roster = self._rosters.setdefault(camera, Roster(config))
            if roster.config != config:
                roster.config = config
                tune(self._tracker, config, moved=roster.moved)

    def num_rows(self, camera: str) -> int:
        """How many objects the camera's next picture will have."""
        roster = self._rosters[camera]
        return len(roster.config.prompts if roster.epoch is None else self._tracker.object_ids(camera))

    def follow(self, frame: Frame) -> list[PromptError]:
        """The camera's next picture: a new epoch starts with the configured prompts. The errors of dropped ones."""
        stamp, roster = frame.stamp, self._rosters[frame.stamp.camera]
        errors = []
        if roster.epoch != stamp.epoch:
            errors = self._begin(stamp, roster)
        roster.utc_ns, roster.size = stamp.arrival_utc_ns, (frame.height, frame.width)
        errors += self._tracker.drop_misfits(stamp.camera, frame.height, frame.width)
        if errors:
            roster.keep(self._tracker.object_ids(stamp.camera))
        return errors

    def mark(self, stamp: Stamp, *, is_watched: bool) -> tuple[int, int] | None:
        """What the picture is remembered as, if somebody sees it."""
        roster = self._rosters[stamp.camera]
        if is_watched:
            roster.watched_ns = stamp.arrival_ns
            return stamp.epoch, stamp.seq
        if roster.watched_ns is not None and stamp.arrival_ns - roster.watched_ns > UNWATCHED_NS:
            roster.watched_ns = None
            self._tracker.forget_pictures(stamp.camera)
        return None

    def forget_pictures(self) -> None:
        """Of all cameras; those that are watched are remembered again from the next picture on."""
        for camera in self._rosters:
            self._tracker.forget_pictures(camera)

    def take_requests(self, camera: str) -> tuple[str, ...]:
        """Ids of the commands whose effect the camera's next masks show."""
        requests = self._rosters[camera].requests
        return tuple(requests.popleft() for _ in range(len(requests)))

    def labels(self, camera: str, object_ids: Sequence[int]) -> dict[int, str]:
        return {object_id: self._rosters[camera].labels.get(object_id, "") for object_id in object_ids}

    def _begin(self, stamp: Stamp, roster: Roster) -> list[PromptError]:
        late = self._tracker.waiting_ids(stamp.camera)
        errors = [PromptError(f"object {i} was prompted for a picture before the memory was dropped") for i in late]
        self._tracker.reset(stamp.camera)
        self._tracker.forget_pictures(stamp.camera)
        is_first = roster.epoch is None
        roster.begin(stamp.epoch)
        if is_first and self._saved is not None:
            self._restore(roster, self._saved)
        for prompt in roster.config.prompts:
            if prompt.object_id in roster.touched | roster.moved:
                continue  # somebody changed that object, and it was saved
            try:
                self._add_configured(stamp.camera, prompt)
                roster.labels[prompt.object_id] = prompt.label
            except PromptError as error:
                errors.append(error)
        tune(self._tracker, roster.config, moved=roster.moved)
        return errors

    def _restore(self, roster: Roster, saved: SavedObjects) -> None:
        """Go on with the objects that were saved."""
        camera = roster.config.name
        live = saved.take(camera, roster.config.memory_gap_s)
        for item in () if live is None else live.objects:
            if not self._tracker.accepts(item.memory) or self._tracker.num_objects >= self._max_objects:
                log.warning("cam:%s: the saved object %d does not fit this daemon's options", camera, item.object_id)
                continue
            self._tracker.restore(item.object_id, Snapshot(item.memory, None, None), camera=camera)
            roster.labels[item.object_id] = item.label
            roster.touched.add(item.object_id)
        roster.moved = set() if live is None else set(live.moved) & {item.object_id for item in roster.config.prompts}

    def live_cameras(self) -> list[LiveCamera]:
        """What is to be saved: a copy of every object that was added or changed at run time."""
        return [self._live(roster) for roster in self._rosters.values() if roster.epoch is not None]

    def _live(self, roster: Roster) -> LiveCamera:
        assert roster.epoch is not None, "a camera whose picture came has an epoch"
        camera, objects = roster.config.name, []
        for object_id in sorted(roster.touched):
            memory = self._tracker.snapshot(object_id, camera=camera).memory if self._knows(camera, object_id) else None
            if memory is not None:
                objects.append(LiveObject(object_id, roster.labels.get(object_id, ""), memory))
        return LiveCamera(camera, roster.epoch, roster.utc_ns, tuple(objects), tuple(sorted(roster.moved)))

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
        if roster.size is None:
            return _no(request, "busy", f"no picture of '{request.camera}' has come yet; expected one before a prompt")
        if request.seen is not None and (reason := roster.stale(request.seen)):
            return _no(request, "stale", reason)
        prompt = checked_prompt(points=request.points, box=request.box, mask=_unpacked(request, roster.size))
        check_inside(prompt, *roster.size)
        object_id = self._free_id(roster) if request.object_id is None else request.object_id
        is_new = not self._knows(request.camera, object_id)
        if is_new and self._tracker.num_objects >= self._max_objects:
            limit = f"expected at most {self._max_objects} (max_objects)"
            return _no(request, "refused", f"there are {self._tracker.num_objects} objects; {limit}")
        what = f"{'add' if isinstance(request, Add) else 'refine'} {object_id}"
        undoing = self._undoing(what, roster, object_id, ids=[object_id])
        try:
            was_past = self._put_prompt(object_id, request, prompt)
        except torch.OutOfMemoryError:
            self._take_back(undoing, roster)  # half done
            raise
        if isinstance(request, Add) and (is_new or request.label):
            roster.labels[object_id] = request.label
        roster.touched.add(object_id)
        roster.moved.discard(object_id)
        roster.remember(undoing)
        note = "" if was_past or request.seen is None else NOT_KEPT
        return Reply(id=request.id, object_id=object_id, note=note, seen=request.seen if was_past else None)

    def _put_prompt(self, object_id: int, request: Add | Refine, prompt: Prompt) -> bool:
        """True when it was decoded on the very picture that the person saw; else it waits for the next one."""
        seen, is_refine = request.seen, isinstance(request, Refine)
        if seen is not None and self._tracker.prompt_past(
            object_id, prompt, (seen.epoch, seen.seq), camera=request.camera, refine=is_refine
        ):
            return True
        put = self._tracker.refine if is_refine else self._tracker.add
        put(object_id, points=prompt.points, box=prompt.box, mask=prompt.mask_hw, camera=request.camera)
        return False

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
            undoing = dataclasses.replace(undoing, renamed=(new, old))
            roster.moved |= {old} & {prompt.object_id for prompt in roster.config.prompts}
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
        self._take_back(last, roster)
        return Reply(id=request.id, object_id=last.object_id, note=f"taken back: {last.what}")

    def _take_back(self, last: Undoing, roster: Roster) -> None:
        camera = roster.config.name
        if last.renamed is not None and self._knows(camera, last.renamed[0]):
            self._tracker.rename(*last.renamed, camera=camera)
        for object_id, snapshot in last.before.items():
            if snapshot is not None:
                self._tracker.restore(object_id, snapshot, camera=camera)
            elif self._knows(camera, object_id):
                self._tracker.remove(object_id, camera=camera)
        roster.put_back(last)

    def _undoing(self, what: str, roster: Roster, object_id: int | None, *, ids: Sequence[int]) -> Undoing:
        camera = roster.config.name
        before = {i: self._tracker.snapshot(i, camera=camera) if self._knows(camera, i) else None for i in ids}
        return roster.undoing(what, object_id, before)

    def _knows(self, camera: str, object_id: int) -> bool:
        return object_id in self._tracker.object_ids(camera)

    def _free_id(self, roster: Roster) -> int:
        taken = {p.object_id for p in roster.config.prompts} | {*self._tracker.object_ids(roster.config.name)}
        return next(number for number in itertools.count(1) if number not in taken)


def _no(request: ObjectRequest, code: str, error: str) -> Reply:
    return Reply(id=request.id, ok=False, code=code, error=error)


def _unpacked(request: Prompted, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask that was sent; its size is checked before a byte of it is unpacked."""
    sent = request.mask
    if sent is None:
        return None
    if (sent.height, sent.width) != size:
        raise PromptError(f"the mask is {sent.width}x{sent.height}; expected the picture's size, {size[1]}x{size[0]}")
    return sent.mask_hw()
