"""What does a message cost: bytes, encoding, decoding, and the way from the mailbox to a subscriber?

Full HD, 1 and 8 objects with wavy outlines. The ceiling of `encode` is `none`: the same message without masks. The last
line is one JSON object.

    python benchmarks/wire.py [--repeats 300] [--save FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.machine import conclude, machine_facts
from stream import wire
from stream.client import Subscriber
from stream.frame import Masks, ObjectState, Stamp
from stream.publish import Publisher

HEIGHT, WIDTH = 1080, 1920
PERIOD_S = 0.01


class Delivery:
    """Masks that are ready; fulfils `stream.frame.Delivery`."""

    def __init__(self, seq: int, masks: Masks) -> None:
        self.stamp, self.labels, self.picture_hwc, self._masks = stamp_now(seq), {1: "cup"}, None, masks
        self.requests, self.started_ns = (), self.stamp.decoded_ns

    def resolve(self) -> tuple[Masks, int]:
        return self._masks, time.monotonic_ns()

    def release(self) -> None:
        """Nothing is leased."""


def stamp_now(seq: int) -> Stamp:
    now_ns = time.monotonic_ns()
    return Stamp("cam1", 0, seq, "cam1_optical_frame", None, time.time_ns(), now_ns, now_ns)


def blobs(num: int) -> Masks:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    masks, boxes, centroids = [], [], []
    for row in range(num):
        x, y = 300 + 190 * row, 540 + 150 * (-1) ** row
        angle = np.arctan2(ys - y, xs - x)
        mask_hw = np.hypot(xs - x, ys - y) < 200 + 30 * np.sin(5 * angle) + 4 * np.sin(43 * angle)
        rows, columns = np.nonzero(mask_hw)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        centroids.append((columns.mean(), rows.mean()))
        masks.append(mask_hw)
    masks_nhw = np.stack(masks)
    return Masks(
        height=HEIGHT, width=WIDTH, object_ids=tuple(range(1, num + 1)), states=(ObjectState.TRACKED,) * num,
        scores=np.full(num, 5, np.float32), ious=np.full(num, 0.9, np.float32), boxes_n4=np.array(boxes, np.int32),
        areas=masks_nhw.sum(axis=(1, 2)), centroids_n2=np.array(centroids, np.float32),
        packed_nhb=np.packbits(masks_nhw, axis=2),
    )  # fmt: skip


def median_ms(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append((time.perf_counter() - started) * 1e3)
    return round(statistics.median(times), 4)


def codec_row(masks: Masks, encoding: wire.MaskEncoding, repeats: int) -> dict[str, Any]:
    encoder, stamp = wire.MaskEncoder(encoding), stamp_now(0)

    def encode() -> bytes:
        fields = wire.picture_fields(stamp, masks, inferred_ns=stamp.decoded_ns)
        objects = wire.objects_of(masks, {}, encoder)
        message = wire.MasksMessage(serial=1, num_dropped=0, model="nano", backend="eager", objects=objects, **fields)
        return wire.encode(message)

    payload = encode()
    message = wire.decode(payload)
    assert isinstance(message, wire.MasksMessage)
    row: dict[str, Any] = {"objects": len(masks.object_ids), "encoding": encoding, "bytes": len(payload)}
    row["encode_ms"] = median_ms(encode, repeats)
    row["decode_ms"] = median_ms(lambda: wire.decode(payload), repeats)
    row["one_full_mask_ms"] = None if encoding == "none" else median_ms(lambda: message.mask(1), repeats)
    return row


def mailbox_to_subscriber_ms(masks: Masks, repeats: int) -> dict[str, float]:
    """From `put_masks` until `Subscriber` hands the message out, over TCP on this machine, both in this process."""
    publisher = Publisher(["tcp://127.0.0.1:*"], info=wire.Info(cameras=(wire.CameraInfo(name="cam1"),)))
    publisher.start()
    publisher.wait_ready()
    ages: list[float] = []
    with Subscriber(publisher.endpoints[0], ["cam1"], newest_only=False) as subscriber:
        while subscriber.info is None:
            subscriber.receive()
        pause = threading.Event()
        for seq in range(repeats):
            publisher.put_masks(Delivery(seq, masks))
            ages.append(next(iter(subscriber)).age_ms())
            pause.wait(PERIOD_S)
    publisher.stop()
    publisher.join(5)
    return {name: round(float(np.percentile(ages, q)), 3) for name, q in (("p50", 50), ("p99", 99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    rows = []
    for masks in (blobs(1), blobs(8)):
        for encoding in ("bits", "coco_rle", "none"):
            rows.append(codec_row(masks, encoding, options.repeats))  # type: ignore[arg-type]
            print(rows[-1])
    result = {
        "benchmark": "wire", "frame": [WIDTH, HEIGHT], "rows": rows, **machine_facts(),
        "mailbox_to_subscriber_ms": mailbox_to_subscriber_ms(blobs(1), options.repeats),
    }  # fmt: skip
    conclude(result, options.save)


if __name__ == "__main__":
    main()
