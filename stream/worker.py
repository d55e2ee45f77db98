"""`GpuWorker`: the one thread that runs the model: newest frames in, one batch, results on to the publisher.

Owns: the tracker, and which frames make up a turn. Runs in its own thread `gpu`, which makes every call to the device.
Never: decodes, encodes or sends anything, waits for a subscriber, or lets one camera wait for another.

A turn takes the newest unread picture of at most 8 cameras with at most 16 objects, the longest-waiting camera first.
What it does not take is replaced in the ring by newer pictures, which count it. With pace=offline it first waits for
the publisher to have taken the camera's last result, so that none is replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.spec import MAX_FRAMES, MAX_ROWS
from stream.config import CameraConfig
from stream.frame import CameraCondition, CameraState, Masks, Stamp
from stream.prompt import PromptError, read_mask
from stream.publish import Publisher
from stream.ring import FrameRing, Lease
from stream.tracker import Tracker
from stream.verdict import PendingMasks

log = logging.getLogger(__name__)

IDLE_LIMIT_S = 0.25  # the loop moves at least this often


class Feed:
    """One camera as the worker sees it; `epoch` and `labels` are written by the worker's thread."""

    __slots__ = ("config", "epoch", "labels", "ring")

    def __init__(self, config: CameraConfig, ring: FrameRing) -> None:
        self.config, self.ring = config, ring
        self.epoch: int | None = None  # of the memory; None before the first picture
        self.labels: dict[int, str] = {}


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A processed picture on its way to the publisher; fulfils `stream.frame.Delivery`."""

    stamp: Stamp
    labels: dict[int, str]
    pending: PendingMasks
    launched_ns: int
    lease: Lease | None  # held only while somebody wants the picture
    requests: tuple[str, ...] = ()
    started_ns: int = 0

    @property
    def picture_hwc(self) -> NDArray[np.uint8] | None:
        return None if self.lease is None else self.lease.frame.image_hwc

    def resolve(self) -> tuple[Masks, int]:
        masks = self.pending.resolve()
        return masks, time.monotonic_ns() if self.pending.is_asynchronous else self.launched_ns

    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()


class GpuWorker:
    """Written by its own thread alone: `num_loops`, `num_turns`, `num_frames`, `error` and the feeds."""

    def __init__(
        self,
        load_tracker: Callable[[], Tracker],
        feeds: Sequence[Feed],
        *,
        publisher: Publisher,
        doorbell: threading.Event,
    ) -> None:
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.num_loops = 0
        self.num_turns = 0
        self.num_frames = 0
        self._load_tracker = load_tracker
        self._feeds = {feed.config.name: feed for feed in feeds}
        self._publisher = publisher
        self._doorbell = doorbell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the turn in hand; does not wait for that."""
        self._stopping.set()
        self._doorbell.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Whether no picture waits and none is being processed."""
        return not any(feed.ring.has_unread or feed.ring.num_leased for feed in self._feeds.values())

    def _run(self) -> None:
        try:
            tracker = self._load_tracker()
            self.ready.set()
            while not self._stopping.is_set():
                self.num_loops += 1
                if not any(feed.ring.has_unread for feed in self._feeds.values()):
                    self._doorbell.wait(IDLE_LIMIT_S)
                self._doorbell.clear()
                self._turn(tracker)
        except Exception as error:
            self.error = error
            log.debug("gpu: the worker ends", exc_info=True)
        finally:
            self.ready.set()

    def _turn(self, tracker: Tracker) -> None:
        leases = self._take(tracker)
        if not leases:
            return
        try:
            for lease in leases.values():
                self._follow_epoch(tracker, lease)
            images = {camera: lease.frame.image_hwc for camera, lease in leases.items()}
            times_ns = {camera: lease.frame.stamp.arrival_ns for camera, lease in leases.items()}
            pending = self._launch(tracker, images, times_ns)
            launched_ns = time.monotonic_ns()
            for camera in list(leases):
                self._hand_on(leases.pop(camera), pending[camera], launched_ns)
        finally:
            for lease in leases.values():
                lease.release()
        self.num_turns += 1
        self.num_frames += len(pending)

    def _take(self, tracker: Tracker) -> dict[str, Lease]:
        """Leases of the pictures of this turn, the longest-waiting camera first."""
        waiting = [(since, feed) for feed in self._feeds.values() if (since := feed.ring.waiting_since_ns) is not None]
        leases: dict[str, Lease] = {}
        num_rows = 0
        for _, feed in sorted(waiting, key=lambda pair: pair[0]):
            name = feed.config.name
            num_rows += len(tracker.object_ids(name)) or len(feed.config.prompts)
            if leases and (len(leases) == MAX_FRAMES or num_rows > MAX_ROWS):
                break
            lease = feed.ring.take()
            if lease is not None:
                leases[name] = lease
        return leases

    def _follow_epoch(self, tracker: Tracker, lease: Lease) -> None:
        """A new epoch starts without memory, with the configured prompts on its first picture."""
        stamp = lease.frame.stamp
        feed = self._feeds[stamp.camera]
        if feed.epoch == stamp.epoch:
            return
        feed.epoch = stamp.epoch
        tracker.reset(stamp.camera)
        feed.labels = {prompt.object_id: prompt.label for prompt in feed.config.prompts}
        for prompt in feed.config.prompts:
            mask = None if prompt.mask is None else read_mask(prompt.mask)
            tracker.add(prompt.object_id, points=prompt.points, box=prompt.box, mask=mask, camera=stamp.camera)
        if not feed.config.prompts:
            self._report(stamp, "the configuration names no object")

    def _launch(
        self, tracker: Tracker, images: Mapping[str, NDArray[np.uint8]], times_ns: Mapping[str, int]
    ) -> dict[str, PendingMasks]:
        """Each prompt that does not fit its picture is dropped with its object and said; the others go on."""
        for _ in range(sum(len(feed.config.prompts) for feed in self._feeds.values()) + 1):
            try:
                return tracker.launch(images, times_ns)
            except PromptError as error:
                if len(self._feeds) == 1:
                    raise
                log.error("a prompt was dropped: %s", error)
        raise AssertionError("every failed launch drops a prompt, so their number bounds the tries")

    def _hand_on(self, lease: Lease, pending: PendingMasks, launched_ns: int) -> None:
        stamp = lease.frame.stamp
        feed = self._feeds[stamp.camera]
        kept: Lease | None = lease
        if feed.config.pace == "offline":
            self._wait_for_publisher()
        if not self._publisher.wants_frames(stamp.camera):
            lease.release()
            kept = None
        self._publisher.put_masks(PendingDelivery(stamp, dict(feed.labels), pending, launched_ns, kept))

    def _wait_for_publisher(self) -> None:
        while not self._stopping.is_set() and self._publisher.is_alive():
            if self._publisher.wait_drained(IDLE_LIMIT_S):
                return

    def _report(self, stamp: Stamp, reason: str) -> None:
        state = CameraState(stamp.camera, stamp.epoch, CameraCondition.UNPROMPTED, reason, time.time_ns())
        self._publisher.put_state(state)
