"""`ConditionBoard`: what is known of each camera, from capture and from tracking, as the one state that is published.

Owns: per camera the source's condition and the tracking's; the daemon's problem and its backend. Any thread puts; what
changed is handed on to the publisher under the lock, so that states leave in order. Never: waits; remembers a camera
that is gone.

A camera that is not online is what its source says (offline, frozen, paused); an online one is what tracking says
(unprompted, lost, or online).
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping

from stream.frame import CameraCondition, CameraState, StateSink


class ConditionBoard:
    """A `StateSink` for capture threads. Every field is written under `_lock`, held for microseconds."""

    def __init__(self, sink: StateSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._sources: dict[str, CameraState] = {}
        self._trackings: dict[str, tuple[CameraCondition, str]] = {}
        self._published: dict[str, CameraState] = {}
        self._problem = self._backend = ""

    def put_state(self, state: CameraState) -> None:
        """What a capture thread says of its camera."""
        with self._lock:
            self._sources[state.camera] = state
            self._publish(state.camera)

    def put_tracking(self, camera: str, condition: CameraCondition, reason: str = "") -> None:
        """What the worker says: ONLINE, UNPROMPTED or LOST."""
        with self._lock:
            if self._trackings.get(camera) != (condition, reason):
                self._trackings[camera] = condition, reason
                self._publish(camera)

    def put_problem(self, problem: str) -> None:
        """What the operator must mend; "" = mended. Every camera's state tells it."""
        with self._lock:
            self._problem = problem
            for camera in self._sources:
                self._publish(camera)

    def put_backend(self, backend: str) -> None:
        """How the model is run from now on. Every camera's state tells it."""
        with self._lock:
            self._backend = backend
            for camera in self._sources:
                self._publish(camera)

    def forget(self, camera: str) -> None:
        """The camera is gone."""
        with self._lock:
            for table in (self._sources, self._trackings, self._published):
                table.pop(camera, None)

    @property
    def problem(self) -> str:
        return self._problem

    def states(self) -> Mapping[str, CameraState]:
        """What was published last, by camera; a copy."""
        with self._lock:
            return dict(self._published)

    def _publish(self, camera: str) -> None:
        source = self._sources.get(camera)
        if source is None:
            return  # tracking spoke of a camera before its source did, or after it was forgotten
        condition, reason = source.condition, source.reason
        if condition is CameraCondition.ONLINE:
            condition, reason = self._trackings.get(camera, (condition, reason))
        state = dataclasses.replace(source, problem=self._problem, backend=self._backend)
        state = dataclasses.replace(state, condition=condition, reason=reason)
        last = self._published.get(camera)
        if last is not None and dataclasses.replace(state, utc_ns=last.utc_ns) == last:
            return
        if last is not None:
            state = dataclasses.replace(state, utc_ns=max(state.utc_ns, time.time_ns()))
        self._published[camera] = state
        self._sink.put_state(state)
