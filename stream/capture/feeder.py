"""CameraFeeder: one camera as the daemon sees it: its capture thread, and the replacement of one that hangs.

Owns: the camera's threads and rings, one of each at a time, and its counts over all of them. Used by the main thread
alone, except that any thread may read `ring`.
Never: waits for a capture thread, except in `join`; or lets one that it gave up touch the camera's numbers, its current
ring or its state.

A call into FFmpeg or a driver can hang for good, and nothing ends a thread. One that is silent for three of its limits
(`watch`) is left where it hangs, counted, and replaced, with a ring of its own. When three of one camera's threads hang
at the same time, only a new process helps: `CameraStuck`.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Mapping

from stream.capture.numbering import Numbering
from stream.capture.thread import CaptureThread
from stream.config import CameraConfig
from stream.frame import CameraCondition, CameraState, StateSink
from stream.ring import FrameRing

log = logging.getLogger(__name__)

MAX_ABANDONED = 3
SLEPT_NS = 2 * 10**9  # between two checks: this process was stopped, and no thread is to blame
OVERDUE_NS = 5 * 10**9
SAMPLE_NS = 5 * 10**8
NUM_SAMPLES = 11  # of the rate: five seconds


class CameraStuck(Exception):
    """Three capture threads of one camera hang in a call: one line that names the camera."""


class CameraFeeder:
    """Written by the main thread: everything. A paused camera has no thread."""

    def __init__(
        self,
        config: CameraConfig,
        *,
        states: StateSink,
        doorbell: threading.Event,
        numbering: Numbering | None = None,
    ) -> None:
        self.config = config
        self.numbering = numbering if numbering is not None else Numbering()
        self.num_abandoned = 0
        self.is_paused = False
        self.fps_in = 0.0
        self._states = states
        self._doorbell = doorbell
        self._is_running = False
        self._leaving: list[CaptureThread] = []  # told to end by `pause`
        self._stuck: list[CaptureThread] = []
        self._past_counts: collections.Counter[str] = collections.Counter()
        self._past_drops: collections.Counter[str] = collections.Counter()
        self._past_seen_ns: int | None = None
        self._checked_ns: int | None = None
        self._awake_ns = 0
        self._samples: collections.deque[tuple[int, int]] = collections.deque(maxlen=NUM_SAMPLES)
        self._make_thread()

    def start(self) -> None:
        self._is_running = True
        self._checked_ns = time.monotonic_ns()
        if not self.is_paused:
            self._thread.start()

    def stop(self) -> None:
        """End soon; does not wait for that."""
        self._is_running = False
        for thread in (self._thread, *self._leaving):
            thread.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for the end; what is late by then says and writes nothing more for this camera."""
        deadline = time.monotonic() + timeout_s
        for thread in (self._thread, *self._leaving):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() and not self._thread.watch.is_abandoned:
            self._retire()

    def is_alive(self) -> bool:
        """Whether a thread runs that was not given up."""
        return any(thread.is_alive() for thread in (self._thread, *self._leaving))

    def check(self, now_ns: int) -> None:
        """Replace the thread if it hangs. Call it about every 0.1 s; raises `CameraStuck`."""
        if self._checked_ns is not None and now_ns - self._checked_ns > SLEPT_NS:
            self._awake_ns = now_ns
        self._checked_ns = now_ns
        self._measure_rate(now_ns)
        for thread in [thread for thread in self._leaving if self._has_left(thread, now_ns)]:
            self._leaving.remove(thread)
        if not self._is_running or self.is_paused:
            return
        if self._thread.watch.is_abandoned:
            self._start_anew()
        elif self._thread.is_alive() and self._thread.watch.is_silent(now_ns, self._awake_ns):
            self._retire()
            self._give_up(self._thread)
            self._start_anew()

    def pause(self) -> None:
        """Close the source until `resume`; no picture comes after this call."""
        if self.is_paused:
            return
        self.is_paused = True
        self._retire()
        self._leaving.append(self._thread)
        self._put_state(CameraCondition.PAUSED, "paused by command")

    def resume(self) -> None:
        """Open the source again, as soon as the last thread has closed it."""
        if not self.is_paused:
            return
        self.is_paused = False
        self._put_state(CameraCondition.OFFLINE, "opening")
        self.check(time.monotonic_ns())

    @property
    def ring(self) -> FrameRing:
        """The current one: a thread that replaces another gets a new ring. Any thread."""
        return self._ring

    @property
    def epoch(self) -> int:
        return self.numbering.epoch

    @property
    def seq(self) -> int | None:
        """Of the last decoded picture."""
        return self.numbering.seq - 1 if self.num_seen else None

    @property
    def num_seen(self) -> int:
        return self._past_counts["seen"] + (0 if self._thread.watch.is_abandoned else self._thread.num_seen)

    @property
    def num_reconnects(self) -> int:
        is_past = self._thread.watch.is_abandoned
        return self._past_counts["reconnects"] + (0 if is_past else self._thread.num_reconnects)

    @property
    def num_dropped(self) -> Mapping[str, int]:
        """Pictures lost, by reason."""
        is_past = self._thread.watch.is_abandoned
        return dict(self._past_drops + collections.Counter({} if is_past else self._ring.num_dropped))

    @property
    def last_seen_ns(self) -> int | None:
        return self._past_seen_ns if self._thread.last_seen_ns is None else self._thread.last_seen_ns

    @property
    def codec(self) -> str:
        return self._thread.codec

    @property
    def decoder(self) -> str:
        return self._thread.decoder

    @property
    def clock_source(self) -> str:
        return self._thread.clock_source

    @property
    def finished(self) -> bool:
        """Whether no picture will ever come again: the source ended, or cannot be used (`error`)."""
        return self._thread.finished.is_set()

    @property
    def error(self) -> Exception | None:
        return self._thread.error

    @property
    def is_overdue(self) -> bool:
        """Whether `check` has not been called for five seconds; any thread."""
        checked_ns = self._checked_ns
        return self._is_running and checked_ns is not None and time.monotonic_ns() - checked_ns > OVERDUE_NS

    def _make_thread(self) -> None:
        self._ring = FrameRing(self.config.name, doorbell=self._doorbell)
        self._thread = CaptureThread(self.config, ring=self._ring, states=self._states, numbering=self.numbering)

    def _start_anew(self) -> None:
        if not self._leaving:
            self._make_thread()
            self._thread.start()

    def _retire(self) -> None:
        """From here on the thread says and writes nothing more for this camera; its counts are kept."""
        thread = self._thread
        thread.watch.abandon()
        self._past_counts.update({"seen": thread.num_seen, "reconnects": thread.num_reconnects})
        self._past_drops.update(self._ring.num_dropped)
        self._past_seen_ns = self.last_seen_ns

    def _has_left(self, thread: CaptureThread, now_ns: int) -> bool:
        """Whether a thread that was told to end did so, or hangs and is given up."""
        if thread.is_alive() and thread.watch.is_silent(now_ns, self._awake_ns):
            self._give_up(thread)
            return True
        return not thread.is_alive()

    def _give_up(self, thread: CaptureThread) -> None:
        self.num_abandoned += 1
        self._stuck = [stuck for stuck in (*self._stuck, thread) if stuck.is_alive()]
        name, limit_s = self.config.name, thread.watch.limit_s
        log.error("cam:%s: a call did not come back within three times %.1f s; the thread is replaced", name, limit_s)
        if len(self._stuck) >= MAX_ABANDONED:
            raise CameraStuck(
                f"camera '{name}': {len(self._stuck)} capture threads hang in a call that never came back"
            )
        if not self.is_paused:
            self._put_state(CameraCondition.OFFLINE, "a call did not come back; opening anew")

    def _put_state(self, condition: CameraCondition, reason: str) -> None:
        self._states.put_state(CameraState(self.config.name, self.epoch, condition, reason, time.time_ns()))

    def _measure_rate(self, now_ns: int) -> None:
        if self._samples and now_ns - self._samples[-1][0] < SAMPLE_NS:
            return
        self._samples.append((now_ns, self.num_seen))
        since_ns, num_before = self._samples[0]
        self.fps_in = (self.num_seen - num_before) / max((now_ns - since_ns) / 1e9, 0.5)
