"""`GpuWorker`: the one thread that runs the model: newest frames in, one batch, results on to the publisher.

Owns: the tracker, which frames make up a turn, and the inbox of commands about objects. Runs in its own thread `gpu`,
which makes every call to the device.
Never: decodes, encodes or sends anything, waits for a subscriber, or lets one camera wait for another.

A turn first obeys commands that wait, at least one and for 50 ms, then takes the newest unread picture of at most 8
cameras with at most 16 objects, the longest-waiting camera first. What it does not take is replaced in the ring by
newer pictures, which count it. With pace=offline it first waits for the publisher to have taken the camera's last
result, so that none is replaced.

What fails: a prompt that does not fit its picture is dropped and said. When the device's memory is exhausted the turn's
pictures are lost and counted, what can be spared is freed, and the next turn tries again; the third such turn in a row
ends the thread. Any other error ends it, a sticky CUDA error as `DeviceLost`. Every command that was taken is answered
once, in every case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engines.spec import MAX_FRAMES, MAX_ROWS
from stream.command import ObjectRequest, Reply
from stream.conditions import ConditionBoard
from stream.delivery import Launched, PendingDelivery
from stream.device import DeviceLost, is_device_lost
from stream.enhance import enhanced
from stream.feed import Feed
from stream.frame import Frame
from stream.inbox import Inbox
from stream.orders import Orders
from stream.publish import Publisher
from stream.ring import Lease
from stream.saved import SavedObjects
from stream.sightings import Sightings
from stream.status import ObjectStatus
from stream.tracker import Tracker
from stream.upkeep import Upkeep

log = logging.getLogger(__name__)

IDLE_LIMIT_S = 0.25  # the loop moves at least this often
OBEY_LIMIT_NS = 50_000_000  # a late prompt takes as long as the pictures that it missed
MAX_EXHAUSTED_TURNS = 3
SAVE_EVERY_NS, SAVE_SOON_NS = 10_000_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker may be told besides."""

    max_objects: int = 64
    board: ConditionBoard | None = None
    saved: SavedObjects | None = None
    upkeep: Upkeep | None = None


class GpuWorker:
    """Written by its own thread alone: `num_loops`, `num_turns`, `num_frames`, `num_exhausted`, `num_commands`,
    `error`; by the main thread: `_feeds`, which is replaced, never changed.
    """

    def __init__(
        self,
        load_tracker: Callable[[], Tracker],
        feeds: Sequence[Feed] = (),
        *,
        publisher: Publisher,
        doorbell: threading.Event,
        options: WorkerOptions | None = None,
    ) -> None:
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.inbox: Inbox[ObjectRequest] = Inbox(doorbell.set)
        self.num_loops = 0
        self.num_turns = 0
        self.num_frames = 0
        self.num_exhausted = 0  # pictures lost because the device's memory was exhausted
        self.num_commands = 0
        self._load_tracker = load_tracker
        self._options = options or WorkerOptions()
        self._publisher = publisher
        self._doorbell = doorbell
        self._sightings = Sightings(self._options.board)
        self._exhausted_turns = 0  # in a row
        self._saved_news = (0, 0)  # commands and pictures that the last saved state knew
        self._save_due_ns = time.monotonic_ns() + SAVE_EVERY_NS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)
        self._feeds: Mapping[str, Feed] = {}
        self.set_feeds(feeds)

    def set_feeds(self, feeds: Sequence[Feed]) -> None:
        """Serve these cameras from the next turn on; the objects of a camera that is gone are forgotten.

        Called by the main thread.
        """
        self._feeds = {feed.config.name: feed for feed in feeds}
        self._sightings.set_cameras(self._feeds)
        self._doorbell.set()

    def object_status(self, camera: str) -> tuple[ObjectStatus, ...]:
        """The camera's objects on its last published picture; any thread."""
        return self._sightings.status(camera)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the turn in hand; does not wait for that. Commands that still wait are answered "stopping"."""
        self._stopping.set()
        self._doorbell.set()
        if self._options.upkeep is not None:
            self._options.upkeep.hurry()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Whether no picture waits and none is being processed."""
        return not any(feed.ring.has_unread or feed.ring.num_leased for feed in self._feeds.values())

    def _run(self) -> None:
        upkeep = self._options.upkeep
        try:
            tracker = self._load_tracker()
            saved = self._options.saved
            orders = Orders(tracker, max_objects=self._options.max_objects, saved=saved)
            self.ready.set()
            while not self._stopping.is_set():
                self.num_loops += 1
                self._loop(tracker, orders)
                self._save(orders, saved)
                if upkeep is not None:
                    upkeep.tend()
            if saved is not None:
                saved.put(orders.live_cameras())
        except Exception as error:
            self.error = DeviceLost(_first_line(error)) if is_device_lost(error) else error
            log.debug("gpu: the worker ends", exc_info=True)
        finally:
            self.ready.set()
            self._refuse_rest()
            if upkeep is not None:
                upkeep.close()

    def _loop(self, tracker: Tracker, orders: Orders) -> None:
        if not len(self.inbox) and not any(feed.ring.has_unread for feed in self._feeds.values()):
            self._doorbell.wait(IDLE_LIMIT_S)
        self._doorbell.clear()
        feeds = self._feeds
        orders.set_cameras({name: feed.config for name, feed in feeds.items()})
        self._obey(orders)
        tracker.wait_room()  # pictures grow old in a queue of turns; in the rings newer ones replace them
        leases = self._take(orders, feeds)
        try:
            if leases:
                self._turn(tracker, orders, leases)
                self._exhausted_turns = 0
        except torch.OutOfMemoryError as error:
            self.num_exhausted += len(leases)
            self._spare(orders, error)
        finally:
            for lease in leases.values():
                lease.release()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _obey(self, orders: Orders) -> None:
        """Those that wait now, as long as the pictures can wait; the rest is for the next turn."""
        until_ns = time.monotonic_ns() + OBEY_LIMIT_NS
        for _ in range(len(self.inbox)):
            if time.monotonic_ns() >= until_ns:
                return
            command = self.inbox.take()
            if command is None:
                return  # control took those back that waited too long
            reply = Reply(id=command.request.id, ok=False, code="stopping", error="the daemon is ending")
            try:
                reply = orders.obey(command.request)
                self.num_commands += 1
            except torch.OutOfMemoryError as error:
                log.error("gpu: a command failed: %s", _first_line(error))
                text = "the device's memory is exhausted; expected fewer objects, or try again"
                reply = Reply(id=command.request.id, ok=False, code="busy", error=text)
            finally:
                command.answer(reply)

    def _save(self, orders: Orders, saved: SavedObjects | None) -> None:
        """Every ten seconds while pictures come, and one second after a command."""
        now_ns, news = time.monotonic_ns(), (orders.num_changes, self.num_frames)
        if orders.num_changes != self._saved_news[0]:
            self._save_due_ns = min(self._save_due_ns, now_ns + SAVE_SOON_NS)
        if saved is not None and now_ns >= self._save_due_ns and news != self._saved_news:
            saved.put(orders.live_cameras())
            self._saved_news, self._save_due_ns = news, now_ns + SAVE_EVERY_NS

    def _refuse_rest(self) -> None:
        while (command := self.inbox.take()) is not None:
            command.answer(Reply(id=command.request.id, ok=False, code="stopping", error="the daemon is ending"))

    # --- pictures ----------------------------------------------------------------------------------------------------

    def _take(self, orders: Orders, feeds: Mapping[str, Feed]) -> dict[str, Lease]:
        """Leases of the pictures of this turn, the longest-waiting camera first."""
        rings = {name: feed.ring for name, feed in feeds.items()}
        waiting = [(since, name) for name, ring in rings.items() if (since := ring.waiting_since_ns) is not None]
        leases: dict[str, Lease] = {}
        num_rows = 0
        for _, name in sorted(waiting):
            num_rows += orders.num_rows(name)
            if leases and (len(leases) == MAX_FRAMES or num_rows > MAX_ROWS):
                break
            lease = rings[name].take()
            if lease is not None:
                leases[name] = lease
        return leases

    def _turn(self, tracker: Tracker, orders: Orders, leases: dict[str, Lease]) -> None:
        """Leases that were handed on are taken out of `leases`."""
        started_ns = time.monotonic_ns()
        for lease in leases.values():
            self._follow(orders, lease)
        images = {camera: self._seen_by_model(lease.frame) for camera, lease in leases.items()}
        times_ns = {camera: lease.frame.stamp.arrival_ns for camera, lease in leases.items()}
        pending = tracker.launch(images, times_ns, marks=self._marks(orders, leases))
        launched_ns = time.monotonic_ns()
        self.num_turns += 1
        self.num_frames += len(pending)
        for camera in list(leases):
            labels = orders.labels(camera, pending[camera].object_ids)
            requests = orders.take_requests(camera)
            launched = Launched(pending[camera], labels, requests, started_ns, launched_ns)
            self._hand_on(leases.pop(camera), launched)

    def _seen_by_model(self, frame: Frame) -> NDArray[np.uint8]:
        feed = self._feeds.get(frame.stamp.camera)
        return frame.image_hwc if feed is None else enhanced(frame.image_hwc, feed.config.enhance)

    def _follow(self, orders: Orders, lease: Lease) -> None:
        """A prompt that does not fit its picture is dropped; in the first picture of the only camera it is an error
        of the configuration.
        """
        is_first = self.num_turns == 0 and len(self._feeds) == 1
        for error in orders.follow(lease.frame):
            if is_first:
                raise error
            log.error("cam:%s: a prompt was dropped: %s", lease.frame.stamp.camera, error)

    def _marks(self, orders: Orders, leases: Mapping[str, Lease]) -> dict[str, Hashable]:
        """Names of the pictures that somebody sees."""
        stamps = {camera: lease.frame.stamp for camera, lease in leases.items()}
        watched = {camera: self._publisher.is_watched(camera) for camera in stamps}
        marks = {camera: orders.mark(stamp, is_watched=watched[camera]) for camera, stamp in stamps.items()}
        return {camera: mark for camera, mark in marks.items() if mark is not None}

    def _hand_on(self, lease: Lease, launched: Launched) -> None:
        camera = lease.frame.stamp.camera
        feed = self._feeds.get(camera)
        if feed is not None and feed.config.pace == "offline":
            self._wait_for_publisher()
        kept = lease if self._publisher.wants_frames(camera) else None
        self._publisher.put_masks(PendingDelivery(lease.frame.stamp, launched, kept, self._sightings))
        if kept is None:  # only now: a result does not wait for it
            lease.release()

    def _wait_for_publisher(self) -> None:
        while not self._stopping.is_set() and self._publisher.is_alive():
            if self._publisher.wait_drained(IDLE_LIMIT_S):
                return

    def _spare(self, orders: Orders, error: torch.OutOfMemoryError) -> None:
        """Free what can be freed; raises when that did not help."""
        self._exhausted_turns += 1
        if self._exhausted_turns >= MAX_EXHAUSTED_TURNS:
            raise error
        log.error("gpu: the device's memory is exhausted, the turn's pictures are lost: %s", _first_line(error))
        orders.forget_pictures()
        torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
