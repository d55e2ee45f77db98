"""Writes the golden messages beside it (`python tests/golden/make.py`). A changed file needs a new wire.VERSION."""

from __future__ import annotations

import pathlib

import numpy as np

from stream import wire
from stream.frame import CameraCondition, ClockSource, ObjectState
from stream.recording import Record, RecordingWriter

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 61, 40
UTC_NS, NS = 1_790_000_000_000_000_000, 5_000_000_000_000
HEAD = {"run": 1_789_999_999_000_000_001}
PICTURE = {
    "camera": "cam1", "epoch": 2, "seq": 1234, "frame_id": "cam1_optical_frame", "width": WIDTH, "height": HEIGHT,
    "pts_ns": 41_133_333_333, "clock_source": ClockSource.ARRIVAL, "clock_id": "0a1b2c3d",
    "arrival_ns": NS, "decoded_ns": NS + 4_000_000, "inferred_ns": NS + 30_000_000, "published_ns": NS + 31_000_000,
    "arrival_utc_ns": UTC_NS, "decoded_utc_ns": UTC_NS + 4_000_000, "inferred_utc_ns": UTC_NS + 30_000_000,
    "published_utc_ns": UTC_NS + 31_000_000,
}  # fmt: skip


def triangle_hw() -> np.ndarray:
    """Rows 5 to 24; row y holds the pixels 11 to y + 20, so that neither side lies on a byte boundary."""
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    for y in range(5, 25):
        mask_hw[y, 11 : y + 21] = True
    return mask_hw


def objects(encoding: wire.MaskEncoding) -> tuple[wire.ObjectMask, ...]:
    encoder = wire.MaskEncoder(encoding)
    packed_hb = np.packbits(triangle_hw(), axis=1)
    cup = wire.ObjectMask(
        id=7, label="cup", state=ObjectState.TRACKED, score=6.25, predicted_iou=0.875, box=(11, 5, 45, 25),
        area=int(triangle_hw().sum()), centroid=(23.5, 16.25),
        patch=encoder.encode(packed_hb, (11, 5, 45, 25), width=WIDTH),
    )  # fmt: skip
    gone = wire.ObjectMask(
        id=9, label="", state=ObjectState.LOST, score=-3.5, predicted_iou=0.125, box=(0, 0, 0, 0), area=0,
        centroid=None, unseen_ns=3_000_000_000,
        patch=encoder.encode(np.zeros_like(packed_hb), (0, 0, 0, 0), width=WIDTH),
    )  # fmt: skip
    return cup, gone


def masks(items: tuple[wire.ObjectMask, ...]) -> wire.MasksMessage:
    return wire.MasksMessage(
        **HEAD, **PICTURE, serial=1200, num_dropped=3, model="sam2.1-hiera-tiny", backend="eager", objects=items
    )


def messages() -> dict[str, wire.Message]:
    return {
        "masks_bits": masks(objects("bits")),
        "masks_coco_rle": masks(objects("coco_rle")),
        "masks_none": masks(objects("none")),
        "masks_no_objects": masks(()),
        "frame": wire.FrameMessage(
            **HEAD, **PICTURE, serial=12, encoding="jpeg", data=b"\xff\xd8 not a real JPEG \xff\xd9"
        ),
        "state": wire.StateMessage(
            **HEAD, serial=3, camera="cam1", epoch=2, condition=CameraCondition.OFFLINE, reason="no answer for 3 s",
            utc_ns=UTC_NS, backend="eager",
        ),
        "info": wire.Info(
            **HEAD, serial=2, software="0.1.0", model="sam2.1-hiera-tiny", backend="eager", mask_encoding="bits",
            frames_fps=15.0, control="tcp://127.0.0.1:5561", clock_id="0a1b2c3d",
            cameras=(wire.CameraInfo(name="cam1", frame_id="cam1_optical_frame", width=WIDTH, height=HEIGHT),
                     wire.CameraInfo(name="cam2")),
        ),
    }  # fmt: skip


if __name__ == "__main__":
    for name, message in messages().items():
        (HERE / f"{name}.bin").write_bytes(wire.encode(message))
    recording = HERE / "recording.masks"
    recording.unlink(missing_ok=True)
    with RecordingWriter(recording) as writer:
        for index, name in enumerate(("info", "state", "masks_bits", "masks_no_objects")):
            step_ns = index * 40_000_000
            writer.put(Record(NS + step_ns, UTC_NS + step_ns, (HERE / f"{name}.bin").read_bytes()))
