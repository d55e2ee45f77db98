"""FrameRing: the few picture slots between one camera and the worker; the newest picture wins.

Owns: the pixels of one camera's latest pictures. The camera's capture thread writes; the worker's thread takes leases,
and any thread may release one.
Never: writes a leased slot, waits for a reader (`wait_taken`, for pace=offline, waits only where it is called), copies
pixels while it holds its lock, or says what a picture shows.

Capacity: `num_slots` pictures (one being written, the newest, two leases, and spares). How it loses, counted in
`num_dropped`:

| reason | what happened |
|---|---|
| replaced | a newer picture came before the worker took this one |
| no_slot | every slot was leased or unread: the reader holds too many leases |
| (others) | named by the capture thread, which lost the picture before it came here |
"""

from __future__ import annotations

import enum
import threading
import time
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from stream.frame import Frame, Stamp


class _Use(enum.Enum):
    FREE = "free"
    WRITTEN = "written"
    UNREAD = "unread"
    LEASED = "leased"


class Lease:
    """The right to read one picture; the pixels are valid until `release`.

    Written by the thread that took it; released exactly once, by any thread.
    """

    __slots__ = ("_ring", "_slot", "frame")

    def __init__(self, ring: FrameRing, slot: int, frame: Frame) -> None:
        self.frame = frame
        self._ring: FrameRing | None = ring
        self._slot = slot

    def release(self) -> None:
        """Give the slot back."""
        stamp, ring = self.frame.stamp, self._ring
        assert ring is not None, f"the lease of {stamp.camera} seq {stamp.seq} was released twice"
        self._ring = None
        ring._give_back(self._slot)


class FrameRing:
    """Slots of one camera. One lock, held for microseconds, guards which slot is used how.

    Written by the capture thread: the pixels, `_claimed`, `num_written`, `num_dropped`. Under the lock, by the capture
    thread and the readers: `_uses`, `_unread`, `_waiting_since_ns`.
    """

    def __init__(self, camera: str, *, num_slots: int = 5, doorbell: threading.Event | None = None) -> None:
        assert num_slots >= 3, f"a ring needs a slot to write, an unread one and a leased one, got {num_slots}"
        self.camera = camera
        self.num_slots = num_slots
        self.doorbell = doorbell if doorbell is not None else threading.Event()
        self.num_written = 0
        self._num_dropped: dict[str, int] = {}
        self._images: list[NDArray[np.uint8] | None] = [None] * num_slots
        self._uses = [_Use.FREE] * num_slots
        self._claimed: int | None = None
        self._unread: tuple[int, Frame] | None = None
        self._waiting_since_ns: int | None = None
        self._changed = threading.Condition(threading.Lock())

    # The writer: the capture thread.

    def claim(self, height: int, width: int) -> NDArray[np.uint8] | None:
        """A (height, width, 3) array to decode into, then `commit`; None, and a counted drop, when no slot is free.

        A slot that was claimed and not committed is claimed again.
        """
        assert height > 0 and width > 0, f"a picture has at least one pixel, got {height}x{width}"
        if self._claimed is None:
            with self._changed:
                self._claimed = self._free_slot()
        if self._claimed is None:
            self.count_drop("no_slot")
            return None
        image_hwc = self._images[self._claimed]
        if image_hwc is None or image_hwc.shape != (height, width, 3):
            image_hwc = self._images[self._claimed] = np.empty((height, width, 3), np.uint8)
        return image_hwc

    def commit(self, stamp: Stamp) -> None:
        """The claimed slot is complete: it becomes the newest picture. An unread older one is dropped and counted."""
        assert self._claimed is not None, "commit needs a claim before it"
        image_hwc = self._images[self._claimed]
        assert image_hwc is not None, "a claimed slot has pixels"
        unread = (self._claimed, Frame(stamp, image_hwc))
        now_ns = time.monotonic_ns()
        with self._changed:
            replaced, self._unread = self._unread, unread
            self._uses[self._claimed] = _Use.UNREAD
            if replaced is not None:
                self._uses[replaced[0]] = _Use.FREE
            if self._waiting_since_ns is None:
                self._waiting_since_ns = now_ns
        self._claimed = None
        self.num_written += 1
        if replaced is not None:
            self.count_drop("replaced")
        self.doorbell.set()

    def write(self, image_hwc: NDArray[np.uint8], stamp: Stamp) -> bool:
        """Copy a picture in and make it the newest; False when it was dropped for want of a slot."""
        slot_hwc = self.claim(*image_hwc.shape[:2])
        if slot_hwc is None:
            return False
        np.copyto(slot_hwc, image_hwc)
        self.commit(stamp)
        return True

    def wait_taken(self, timeout_s: float) -> bool:
        """Whether no picture is unread, waiting for that at most `timeout_s` (pace=offline)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._unread is None, timeout_s)

    def wait_free(self, timeout_s: float) -> bool:
        """Whether `claim` would get a slot, waiting for that at most `timeout_s` (pace=offline)."""
        with self._changed:
            return self._claimed is not None or self._changed.wait_for(lambda: _Use.FREE in self._uses, timeout_s)

    def count_drop(self, reason: str, num: int = 1) -> None:
        """Count pictures that are lost, also those that never came here; called by the capture thread only."""
        self._num_dropped[reason] = self._num_dropped.get(reason, 0) + num

    # The reader: the worker.

    def take(self) -> Lease | None:
        """A lease of the newest unread picture, or None."""
        with self._changed:
            if self._unread is None:
                return None
            slot, frame = self._unread
            self._uses[slot] = _Use.LEASED
            self._unread = self._waiting_since_ns = None
            self._changed.notify_all()
        return Lease(self, slot, frame)

    @property
    def has_unread(self) -> bool:
        """Whether `take` would give a picture now; any thread."""
        return self._unread is not None

    @property
    def waiting_since_ns(self) -> int | None:
        """Since when something is unread; a newer picture does not restart the clock, for fairness. Any thread."""
        return self._waiting_since_ns

    @property
    def num_dropped(self) -> MappingProxyType[str, int]:
        """Pictures lost by reason; any thread reads."""
        return MappingProxyType(self._num_dropped.copy())

    @property
    def num_leased(self) -> int:
        """Leases not yet released; any thread."""
        with self._changed:
            return self._uses.count(_Use.LEASED)

    def _free_slot(self) -> int | None:
        if _Use.FREE not in self._uses:
            return None
        slot = self._uses.index(_Use.FREE)
        self._uses[slot] = _Use.WRITTEN
        return slot

    def _give_back(self, slot: int) -> None:
        with self._changed:
            use = self._uses[slot]
            assert use is _Use.LEASED, f"slot {slot} of {self.camera} is {use.value}, expected leased"
            self._uses[slot] = _Use.FREE
            self._changed.notify_all()
