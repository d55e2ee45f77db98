"""CaptureThread: one camera's pictures into its ring, until it is stopped, given up, or its source ends.

Owns: the order open, read, back off, open again, and what is said about the camera meanwhile. Runs as thread
`cam:<name>`, in which the decoder or socket is made, used and closed.
Never: waits for the worker, except with pace=offline; touches a slot that is leased; speaks for the camera once it was
abandoned; or says a password.

A stream that was lost and found keeps the epoch, whatever its size is then; a file that loops, and a gap longer than
`memory_gap_s`, start a new one (`numbering`). With pace=offline nothing is lost: the thread waits until the worker took
the picture before, and until a slot is free.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time

from stream.capture.backoff import BackOff
from stream.capture.freeze import FreezeWatch
from stream.capture.numbering import Numbering
from stream.capture.picture import Loss, Picture, Source, SourceError, SourceFrozen, SourceRefused
from stream.capture.sources import open_source
from stream.capture.watch import Watch
from stream.config import CameraConfig, redact
from stream.frame import CameraCondition, CameraState, Stamp, StateSink
from stream.ring import FrameRing

log = logging.getLogger(__name__)

WAIT_LIMIT_S = 0.1
MAX_FPS_SLACK = 0.25  # of a period: at 30 fps, a limit of 15 takes every second picture in spite of jitter


class CaptureThread:
    """One camera. `ready` is set once the thread runs; the states tell whether pictures come.

    `finished` is set when no picture will ever come again: the source ended, or `error` says why it cannot be used.
    Written by its own thread alone: `numbering`, `num_seen` (decoded pictures), `num_reconnects`, `last_seen_ns`
    (monotonic), `clock_source` (of the last picture), `codec`, `decoder`, `error`. Lost pictures are counted by
    reason in the ring's `num_dropped`; `max_fps` are those left out by that setting.
    """

    def __init__(
        self,
        config: CameraConfig,
        *,
        ring: FrameRing,
        states: StateSink,
        backoff: BackOff | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        self.ready = threading.Event()
        self.finished = threading.Event()
        self.watch = Watch()
        self.numbering = numbering if numbering is not None else Numbering()
        self.num_seen = 0
        self.num_reconnects = 0
        self.last_seen_ns: int | None = None
        self.clock_source = ""
        self.codec = self.decoder = ""
        self.error: Exception | None = None
        self._config = config
        self._ring = ring
        self._states = states
        self._backoff = backoff if backoff is not None else BackOff()
        self._freeze = FreezeWatch(0.0)
        self._frozen_reason = f"the same picture for {config.freeze_s:g} s and longer"
        self._reported: tuple[CameraCondition, str] | None = None
        self._due_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"cam:{config.name}", daemon=True)

    def start(self) -> None:
        self.watch.expect()
        self._thread.start()

    def stop(self) -> None:
        """End soon, also out of a blocking read; does not wait for that."""
        self.watch.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.ready.set()
            self._report(CameraCondition.OFFLINE, "opening")
            self._capture(open_source(self._config))
        except SourceError as error:
            self._give_up(error)
        except Exception as error:
            log.exception("cam:%s: the capture thread ends", self._config.name)
            self.error = error
            self._report(CameraCondition.OFFLINE, f"capture failed: {type(error).__name__}")

    def _capture(self, source: Source) -> None:
        if source.can_freeze and self._config.pace == "live":
            self._freeze = FreezeWatch(self._config.freeze_s)
        if not source.retries and self.numbering.seq:
            self._start_over()  # a file that an earlier thread began
        while not self.watch.is_set():
            num_before = self.num_seen
            ending = self._play(source)
            if self.watch.is_set():
                break
            if source.retries:
                self._back_off(ending)
            elif self.num_seen == num_before:
                raise SourceError(f"source '{redact(self._config.source)}': not one picture could be decoded")
            elif self._config.loop:
                self._start_over()
            else:
                self._finish(str(ending))
                return
        self._report(CameraCondition.OFFLINE, "stopped")

    def _start_over(self) -> None:
        with self.watch.tenure:
            if not self.watch.is_abandoned:
                self.numbering.start_over()

    def _play(self, source: Source) -> SourceError:
        """Pictures until the source ends or fails; returns why."""
        try:
            self._read(source)
        except SourceError as error:
            if not source.retries:
                raise
            return error
        return SourceError("the stream ended" if source.retries else "end of file")

    def _read(self, source: Source) -> None:
        max_gap_s = self._config.memory_gap_s if source.retries else math.inf
        self.watch.expect()
        with contextlib.closing(source.pictures(self.watch)) as items:
            for item in items:
                self.watch.expect()
                if isinstance(item, Loss):
                    self._ring.count_drop(item.reason, item.num)
                else:
                    self.codec, self.decoder = source.codec, source.decoder
                    self._accept(item, max_gap_s)
                if self.watch.is_set():
                    return

    def _accept(self, picture: Picture, max_gap_s: float) -> None:
        now_ns = time.monotonic_ns()
        with self.watch.tenure:
            if self.watch.is_abandoned:
                return
            epoch, seq = self.numbering.take(now_ns, max_gap_s)
        self.num_seen += 1
        self.last_seen_ns = now_ns
        self.clock_source = picture.arrival.clock_source.value
        self._backoff.reset()
        if not self._freeze.is_frozen:
            self._report(CameraCondition.ONLINE, "")
        if self._is_too_soon(picture):
            self._ring.count_drop("max_fps")
            return
        if self._config.pace == "offline" and not self._wait_for_worker():
            return
        slot_hwc = self._ring.claim(picture.height, picture.width)
        if slot_hwc is None:
            return
        picture.copy_into(slot_hwc)
        must_reopen = self._freeze.must_reopen(slot_hwc, now_ns, is_key=picture.is_key)
        self._ring.commit(self._stamp(picture, epoch, seq))
        if self._freeze.is_frozen:
            self._report(CameraCondition.FROZEN, self._frozen_reason)
        if must_reopen:
            raise SourceFrozen(f"source '{self._config.source_shown}': {self._frozen_reason}")

    def _stamp(self, picture: Picture, epoch: int, seq: int) -> Stamp:
        return Stamp(
            camera=self._config.name,
            epoch=epoch,
            seq=seq,
            frame_id=picture.frame_id or self._config.frame_id,
            pts_ns=picture.pts_ns,
            arrival_utc_ns=picture.arrival.utc_ns,
            arrival_ns=picture.arrival.ns,
            decoded_ns=time.monotonic_ns(),
            clock_source=picture.arrival.clock_source,
        )

    def _is_too_soon(self, picture: Picture) -> bool:
        """Whether `max_fps` leaves this picture out: by its own time offline, else by its arrival."""
        if self._config.max_fps is None:
            return False
        is_offline = self._config.pace == "offline" and picture.pts_ns is not None
        now_ns = picture.pts_ns if is_offline and picture.pts_ns is not None else picture.arrival.ns
        period_ns = round(1e9 / self._config.max_fps)
        if self._due_ns is None or abs(now_ns - self._due_ns) > 2 * period_ns:
            self._due_ns = now_ns
        if now_ns < self._due_ns - MAX_FPS_SLACK * period_ns:
            return True
        self._due_ns += period_ns
        return False

    def _wait_for_worker(self) -> bool:
        """Until the picture before was taken and a slot is free; False when told to stop."""
        while not (self._ring.wait_taken(WAIT_LIMIT_S) and self._ring.wait_free(WAIT_LIMIT_S)):
            self.watch.expect()
            if self.watch.is_set():
                return False
        with self.watch.tenure:
            if not self.watch.is_abandoned:
                self.numbering.last_ns = time.monotonic_ns()  # the worker's time is no gap of the camera's
        return True

    def _back_off(self, ending: SourceError) -> None:
        """A stream was lost: say so, wait a step of the ladder, and count the new try."""
        is_refused = isinstance(ending, SourceRefused)
        delay_s = self._backoff.next_s(is_slow=is_refused)
        level = logging.ERROR if is_refused else logging.WARNING
        log.log(level, "cam:%s: %s; next try in %.1f s", self._config.name, ending, delay_s)
        if not isinstance(ending, SourceFrozen):
            self._report(CameraCondition.OFFLINE, str(ending))
        if not self.watch.wait(delay_s):
            self.num_reconnects += 1

    def _finish(self, reason: str) -> None:
        while self._config.pace == "offline" and not self._ring.wait_taken(WAIT_LIMIT_S):
            self.watch.expect()
            if self.watch.is_set():
                break
        self._report(CameraCondition.OFFLINE, reason)
        self.finished.set()

    def _give_up(self, error: SourceError) -> None:
        log.error("cam:%s: %s", self._config.name, error)
        self.error = error
        self._report(CameraCondition.OFFLINE, str(error))
        self.finished.set()

    def _report(self, condition: CameraCondition, reason: str) -> None:
        if (condition, reason) == self._reported:
            return
        self._reported = condition, reason
        with self.watch.tenure:
            if not self.watch.is_abandoned:
                self._states.put_state(
                    CameraState(self._config.name, self.numbering.epoch, condition, reason, time.time_ns())
                )
