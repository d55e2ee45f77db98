"""`SavedObjects`: objects that people added or corrected, on disk, so that a daemon that died goes on with them.

Owns: one file (`stream.state_file`) and the thread `saver`, which writes it. The worker's thread puts what is to be
saved and takes what was; the main thread opens, starts and stops it. Never: makes anybody wait for a disk.

Capacity: one state waits to be written; a newer one replaces it. A write that fails (no space) is logged once, counted,
and tried again after `RETRY_S` or with the next state; the file on disk stays the last good one. A camera that has not
come back yet is written again as it was, for `CARRY_LIMIT_S` at most.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stream.memory import RowMemory
from stream.state_file import (
    LiveCamera,
    SavedCamera,
    State,
    StateError,
    live_camera,
    read_state,
    saved_camera,
    write_state,
)

log = logging.getLogger(__name__)

FILE_NAME = "objects.state"
RETRY_S = 10.0
CARRY_LIMIT_S = 3600.0
IDLE_LIMIT_S = 0.25


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    """A state on its way to the disk; the memories are there when the event has passed."""

    model: str
    carried: tuple[SavedCamera, ...]
    cameras: tuple[LiveCamera, ...]
    event: torch.cuda.Event | None


class SavedObjects:
    """Written by the saver's thread: `num_loops`, `num_written`, `num_failed`, `error`; by the worker's: `_kept` (what
    was saved and nobody took yet), `_model_name`, `_is_empty`; by both, under `_lock`: `_waiting`.
    """

    def __init__(self, folder: Path, model: Callable[[], str], state: State | None = None) -> None:
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.num_loops = self.num_written = self.num_failed = 0
        self.path = folder / FILE_NAME
        self._model = model
        self._model_name: str | None = None
        self._state = state or State("")
        self._kept = {camera.name: camera for camera in self._state.cameras}
        self._is_empty = not self._kept  # what the file says, or will
        self._opened_utc_ns = time.time_ns()
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None
        self._has_failed = False  # the last write
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)

    @classmethod
    def open(cls, folder: Path, model: Callable[[], str]) -> SavedObjects:
        """With what the folder holds. `model` names the weights; the worker's thread asks for it when it has them."""
        try:
            state = read_state(folder / FILE_NAME)
        except (StateError, OSError) as error:
            log.error("the saved objects are not used: %s", error)
            state = None
        return cls(folder, model, state)

    def epochs(self) -> Mapping[str, int]:
        """Each camera's epoch when it was saved; the daemon starts above it."""
        return {camera.name: camera.epoch for camera in self._state.cameras}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end; does not wait for that."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    # --- the worker's thread -----------------------------------------------------------------------------------------

    def take(self, camera: str, memory_gap_s: float) -> LiveCamera | None:
        """What was saved of this camera, once; None where nothing was, or it cannot be used."""
        saved = self._kept.pop(camera, None)
        if saved is None or not saved.objects:
            return None
        age_s = (self._opened_utc_ns - saved.utc_ns) / 1e9
        if self._state.model != self._name():
            reason = f"they are of the model {self._state.model}; expected {self._name()}"
        elif abs(age_s) > memory_gap_s:
            reason = f"the last picture was {age_s:.0f} s old at the start; expected at most {memory_gap_s:g} s"
        else:
            try:
                live = live_camera(saved)
            except StateError as error:
                reason = str(error)
            else:
                log.info("cam:%s: going on with %d saved objects, %.1f s old", camera, len(live.objects), age_s)
                return live
        log.warning("cam:%s: its saved objects are not used: %s", camera, reason)
        return None

    def put(self, cameras: Sequence[LiveCamera]) -> None:
        """Have this written, instead of what still waits. The memories must not change any more."""
        oldest_ns, names = time.time_ns() - int(CARRY_LIMIT_S * 1e9), {camera.name for camera in cameras}
        is_ours = self._state.model == self._name()
        carried = tuple(c for c in self._kept.values() if is_ours and c.name not in names and c.utc_ns >= oldest_ns)
        is_empty = not carried and not any(camera.objects for camera in cameras)
        if is_empty and self._is_empty:
            return
        self._is_empty = is_empty
        host = tuple(_on_host(camera) for camera in cameras)
        event: torch.cuda.Event | None = None
        if any(item.memory.memory_snc.is_cuda for camera in cameras for item in camera.objects):
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        with self._lock:
            self._waiting = _Waiting(self._name(), carried, host, event)
        self._wake.set()

    def _name(self) -> str:
        if self._model_name is None:
            self._model_name = self._model()
        return self._model_name

    # --- the saver's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self.ready.set()
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                self.num_loops += 1
                is_new = self._wake.wait(IDLE_LIMIT_S)
                self._wake.clear()
                if is_new or time.monotonic() >= due:
                    self._write()
                    due = time.monotonic() + RETRY_S
            self._write()
        except Exception as error:
            self.error = error
            log.error("saver: it ends", exc_info=True)

    def _write(self) -> None:
        """What waits; what cannot be written waits again, unless something newer does."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if waiting.event is not None:
            waiting.event.synchronize()
        try:
            write_state(self.path, State(waiting.model, waiting.carried + tuple(map(saved_camera, waiting.cameras))))
        except (StateError, OSError) as error:
            self.num_failed += 1
            if not self._has_failed:
                log.error("the objects cannot be saved, which is tried again and again: %s", error)
            self._has_failed = True
            with self._lock:
                self._waiting = self._waiting or waiting
            return
        self.num_written += 1
        if self._has_failed:
            log.info("the objects are saved again")
        self._has_failed = False


def _on_host(camera: LiveCamera) -> LiveCamera:
    """Copies on their way to the host."""
    objects = tuple(dataclasses.replace(item, memory=_row_on_host(item.memory)) for item in camera.objects)
    return dataclasses.replace(camera, objects=objects)


def _row_on_host(row: RowMemory) -> RowMemory:
    return dataclasses.replace(
        row, memory_snc=_tensor_on_host(row.memory_snc), pointer_sc=_tensor_on_host(row.pointer_sc)
    )


def _tensor_on_host(values: Tensor) -> Tensor:
    if not values.is_cuda:
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
