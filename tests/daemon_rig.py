"""A real daemon in a process of its own, for end-to-end tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import ClipSpec, SyntheticClip, draw_counter, read_counter
from stream.client import FrameMessage, MasksMessage, Subscriber

START_LIMIT_S = 60.0


@dataclass(frozen=True)
class DaemonProcess:
    """`sam2-stream run` on a configuration, publishing on an ipc endpoint."""

    process: subprocess.Popen[str]
    endpoint: str
    log: Path

    def end(self, number: int = signal.SIGTERM, *, limit_s: float = 10.0) -> tuple[int, float]:
        """Send a signal and wait; the exit code and the seconds it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(limit_s), time.monotonic() - start


@contextmanager
def daemon(folder: Path, config: str) -> Iterator[DaemonProcess]:
    """Start a daemon on this TOML text (without `bind`); killed at the end if it still runs."""
    endpoint = f"ipc://{folder}/d.sock"
    file = folder / "daemon.toml"
    file.write_text(f'bind = ["{endpoint}"]\nallow_cpu = true\n{config}', encoding="utf-8")
    log = folder / "daemon.log"
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "stream.cli", "run", str(file)]
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True)
        try:
            yield DaemonProcess(process, endpoint, log)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Delivered:
    """A picture as delivered, with the masks that came with it; `number` is burnt into the picture."""

    number: int | None
    picture_hwc: NDArray[np.uint8]
    masks: MasksMessage


def deliveries(endpoint: str, num: int, *, limit_s: float, cameras: list[str] | None = None) -> list[Delivered]:
    """Pictures joined with their masks, until there are `num`, or nothing came for a while after the last."""
    masks: dict[tuple[str, int, int], MasksMessage] = {}
    found: list[Delivered] = []
    deadline = time.monotonic() + limit_s
    with Subscriber(endpoint, cameras, newest_only=False, frames=True, timeout_s=0.5) as subscriber:
        while len(found) < num and time.monotonic() < deadline:
            try:
                message = subscriber.receive().message
            except TimeoutError:
                if found and any(state.reason == "end of file" for state in subscriber.states.values()):
                    break
                continue
            if isinstance(message, MasksMessage):
                masks[message.camera, message.epoch, message.seq] = message
            if isinstance(message, FrameMessage):
                picture = np.asarray(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
                found.append(
                    Delivered(read_counter(picture), picture, masks[message.camera, message.epoch, message.seq])
                )
    return found


def write_clip(path: Path, spec: ClipSpec, *, codec: str = "libx264", fps: int = 30) -> SyntheticClip:
    """A generated clip with burnt-in numbers as a video file; H.264, or FFV1 for a lossless one."""
    clip = SyntheticClip(spec)
    options = {"preset": "ultrafast", "crf": "20"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        for number in range(spec.num_frames):
            picture = clip.frame(number).copy()
            draw_counter(picture, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode())
    return clip


def mean_iou(found: list[Delivered], clip: SyntheticClip, *, shift: int = 0) -> float:
    """Over all delivered pictures and objects, against the truth of the frame whose number the picture shows."""
    values = []
    for item in found:
        assert item.number is not None, "a delivered picture shows its number"
        if not 0 <= item.number + shift < clip.spec.num_frames:
            continue
        truth = clip.masks(item.number + shift)
        for index, entry in enumerate(item.masks.objects):
            mask = item.masks.mask(entry.id)
            union = (mask | truth[index]).sum()
            values.append(1.0 if union == 0 else float((mask & truth[index]).sum() / union))
    return float(np.mean(values))


def prompts(clip: SyntheticClip) -> str:
    """A click on every object at frame 0, as TOML for the last camera."""
    points = [clip.click(index) for index in range(clip.spec.num_objects)]
    return "".join(
        f"[[camera.prompt]]\nobject_id = {index + 1}\npoints = [[{x}, {y}, 1]]\n" for index, (x, y) in enumerate(points)
    )
