"""`PendingDelivery`: a processed picture on its way to the publisher.

Owns: the picture's lease until somebody releases it. Made in the worker's thread, resolved and released in the pub
thread; frozen. Never: runs a model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frame import Masks, Stamp
from stream.ring import Lease
from stream.sightings import Sighting, Sightings
from stream.verdict import PendingMasks


@dataclass(frozen=True, slots=True)
class Launched:
    """What a turn made of one picture; `launched_ns` is when the host was done, the device may still be computing."""

    pending: PendingMasks
    labels: dict[int, str]
    requests: tuple[str, ...]
    started_ns: int
    launched_ns: int


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """Fulfils `stream.frame.Delivery`."""

    stamp: Stamp
    launched: Launched
    lease: Lease | None  # held only while somebody wants the picture
    sightings: Sightings

    @property
    def labels(self) -> dict[int, str]:
        return self.launched.labels

    @property
    def requests(self) -> tuple[str, ...]:
        return self.launched.requests

    @property
    def started_ns(self) -> int:
        return self.launched.started_ns

    @property
    def picture_hwc(self) -> NDArray[np.uint8] | None:
        return None if self.lease is None else self.lease.frame.image_hwc

    def resolve(self) -> tuple[Masks, int]:
        pending = self.launched.pending
        masks = pending.resolve()
        inferred_ns = time.monotonic_ns() if pending.is_asynchronous else self.launched.launched_ns
        last_seen_ns = tuple(visibility.last_seen_ns for visibility in pending.visibilities)
        self.sightings.put(self.stamp.camera, Sighting(masks, self.labels, last_seen_ns))
        return masks, inferred_ns

    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()
