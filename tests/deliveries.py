"""Fakes for the tests of wire, publisher and client: masks of a known shape, deliveries, a running publisher."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.frame import Masks, ObjectState, Stamp
from stream.publish import Publisher, PublishOptions


def ellipse_hw(height: int, width: int, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """A mask that touches all four sides of its box."""
    x0, y0, x1, y1 = box
    ys, xs = np.mgrid[:height, :width]
    cx, cy, rx, ry = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2, max(x1 - x0, 1) / 2, max(y1 - y0, 1) / 2
    inside = ((xs - cx) / rx) ** 2 + ((ys - cy) / ry) ** 2 <= 1
    return inside & (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)


def masks_of(masks_nhw: NDArray[np.bool_], object_ids: Sequence[int] | None = None) -> Masks:
    """What the worker would deliver for these masks."""
    num, height, width = masks_nhw.shape
    boxes, centroids = np.zeros((num, 4), np.int32), np.full((num, 2), np.nan, np.float32)
    for row, mask_hw in enumerate(masks_nhw):
        ys, xs = np.nonzero(mask_hw)
        if xs.size:
            boxes[row] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            centroids[row] = xs.mean(), ys.mean()
    areas = masks_nhw.sum(axis=(1, 2)).astype(np.int64)
    return Masks(
        height=height, width=width, object_ids=tuple(object_ids or range(1, num + 1)),
        states=tuple(ObjectState.TRACKED if area else ObjectState.OCCLUDED for area in areas),
        scores=np.where(areas > 0, 4.5, -3.0).astype(np.float32), ious=np.full(num, 0.875, np.float32),
        boxes_n4=boxes, areas=areas, centroids_n2=centroids, packed_nhb=np.packbits(masks_nhw, axis=2),
    )  # fmt: skip


SMALL = masks_of(ellipse_hw(48, 64, (11, 5, 39, 30))[None])


class FakeDelivery:
    """Counts its releases; `gate`, if given, holds `resolve` until it is set."""

    def __init__(
        self,
        camera: str,
        seq: int,
        *,
        masks: Masks = SMALL,
        picture_hwc: NDArray[np.uint8] | None = None,
        epoch: int = 0,
    ) -> None:
        now_ns = time.monotonic_ns()
        self.requests: tuple[str, ...] = ()
        self.started_ns = now_ns
        self.stamp = Stamp(camera, epoch, seq, f"{camera}_optical_frame", None, time.time_ns(), now_ns, now_ns)
        self.labels = {1: "cup"}
        self.picture_hwc = picture_hwc
        self.masks = masks
        self.num_released = 0
        self.gate: threading.Event | None = None

    def resolve(self) -> tuple[Masks, int]:
        if self.gate is not None:
            assert self.gate.wait(10), "the test never opened the gate"
        return self.masks, time.monotonic_ns()

    def release(self) -> None:
        self.num_released += 1


@contextlib.contextmanager
def publishing(*bind: str, **options: object) -> Iterator[Publisher]:
    """A publisher that runs, and afterwards has ended without an error."""
    info, keys = options.pop("info", None), options.pop("keys", None)
    settings = PublishOptions(**options)  # type: ignore[arg-type]
    bind = bind or ("tcp://127.0.0.1:*",)
    publisher = Publisher(bind, info=info, options=settings, keys=keys)  # type: ignore[arg-type]
    publisher.start()
    try:
        publisher.wait_ready()
        yield publisher
    finally:
        publisher.stop()
        publisher.join(10)
        assert not publisher.is_alive(), "the pub thread did not end"
        assert publisher.error is None, publisher.error


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    """Until the callable is true."""
    deadline = time.monotonic() + timeout_s
    tick = threading.Event()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{condition} did not become true within {timeout_s} s"
        tick.wait(0.005)
