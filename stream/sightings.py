"""`Sightings`: what the last published picture of each camera showed of its objects.

Owns: the objects' states for `Status`, and the tracking half of a camera's condition. The pub thread puts, when it has
resolved a result; the main thread says which cameras there are; any thread reads. Never: waits; remembers a camera that
is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stream.conditions import ConditionBoard
from stream.frame import CameraCondition, Masks, ObjectState
from stream.status import ObjectStatus

NO_OBJECT = "there is no object to track"


@dataclass(frozen=True, slots=True)
class Sighting:
    """The objects of one picture."""

    masks: Masks
    labels: Mapping[int, str]
    last_seen_ns: tuple[int | None, ...]  # monotonic


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
