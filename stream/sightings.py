"""`Sightings`: what the last published picture of each camera showed of its objects.

Owns: the objects' states and strides for `Status`, and the tracking half of a camera's condition. The pub thread puts,
when it has resolved a result; the main thread says which cameras there are; any thread reads. Never: waits; remembers a
camera that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream.conditions import ConditionBoard
from stream.frame import CameraCondition, Masks, ObjectState
from stream.status import ObjectStatus

MAX_STRIDE = 1.0  # beyond it, the model has nothing of the object's place to go by
GOOD_STRIDE = 0.5
FADE = 0.97  # of the greatest stride, with every picture
NO_OBJECT = "there is no object to track"


@dataclass(frozen=True, slots=True)
class Sighting:
    """The objects of one picture."""

    masks: Masks
    labels: Mapping[int, str]
    last_seen_ns: tuple[int | None, ...]  # monotonic
    strides: Mapping[int, float] = field(default_factory=dict)  # by object; written by `Sightings`

    def after(self, last: Sighting | None) -> Sighting:
        """With the strides since the last picture: the greatest, which fades."""
        return self if last is None else replace(self, strides=_strides(last, self.masks))


class Sightings:
    """Written by the pub thread: `_last`; by the main thread: `_known`. Both are replaced, never changed."""

    def __init__(self, board: ConditionBoard | None = None) -> None:
        self._board = board
        self._known: frozenset[str] = frozenset()
        self._last: Mapping[str, Sighting] = {}

    def set_cameras(self, cameras: Collection[str]) -> None:
        """Those that may be spoken of."""
        self._known = frozenset(cameras)

    def put(self, camera: str, sighting: Sighting) -> None:
        """Called in the pub thread, in the camera's order."""
        known = self._known
        if camera not in known:
            return
        sighting = sighting.after(self._last.get(camera))
        self._last = {name: last for name, last in self._last.items() if name in known} | {camera: sighting}
        if self._board is not None:
            self._board.put_tracking(camera, *_condition(sighting.masks))

    def status(self, camera: str) -> tuple[ObjectStatus, ...]:
        """The camera's objects on its last picture."""
        last, now_ns = self._last.get(camera), time.monotonic_ns()
        if last is None or camera not in self._known:
            return ()
        masks = last.masks
        rows = zip(masks.object_ids, masks.states, masks.scores.tolist(), last.last_seen_ns, strict=True)
        return tuple(
            ObjectStatus(
                id=object_id, label=last.labels.get(object_id, ""), state=state.value, score=score,
                last_seen_s=0.0 if seen_ns is None else max(0, now_ns - seen_ns) / 1e9,
                stride=round(last.strides.get(object_id, 0.0), 3),
            )
            for object_id, state, score, seen_ns in rows
        )  # fmt: skip


def _condition(masks: Masks) -> tuple[CameraCondition, str]:
    count = len(masks.object_ids)
    if not count:
        return CameraCondition.UNPROMPTED, NO_OBJECT
    if all(state is ObjectState.LOST for state in masks.states):
        return CameraCondition.LOST, "its only object is lost" if count == 1 else f"all {count} objects are lost"
    return CameraCondition.ONLINE, ""


def advice(objects: Sequence[ObjectStatus], fps: float) -> str:
    """What would help the fastest of a camera's objects, of which `fps` pictures a second are processed; "" = nothing
    needs to.
    """
    fast = [item for item in objects if item.stride > MAX_STRIDE]
    if not fast:
        return ""
    worst = max(fast, key=lambda item: item.stride)
    name = f"object {worst.id} {worst.label}".rstrip()
    wanted = f", expected {worst.stride / GOOD_STRIDE * fps:.0f} or more a second" if fps > 0 else ""
    return (
        f"{name} moves {worst.stride:.1f} times its own size between processed pictures ({fps:.1f} a second){wanted}:"
        " a faster model or backend, or fewer objects and cameras"
    )


def _strides(last: Sighting, masks: Masks) -> dict[int, float]:
    """How many of its own sizes each object moved since then."""
    before = {object_id: last.masks.boxes_n4[row] for row, object_id in enumerate(last.masks.object_ids)}
    strides = {}
    for row, object_id in enumerate(masks.object_ids):
        old, new = before.get(object_id), masks.boxes_n4[row]
        moved = 0.0
        if old is not None and new.any() and old.any():
            size = np.maximum(1, (new[2:] - new[:2] + old[2:] - old[:2]) / 2)
            moved = float(np.hypot(*((new[:2] + new[2:] - old[:2] - old[2:]) / 2 / size)))
        strides[object_id] = max(moved, FADE * last.strides.get(object_id, 0.0))
    return strides
