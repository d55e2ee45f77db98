"""The pub thread: frozen values in, messages out.

Owns: the outlet (socket), the mask codec and the JPEG encoder; all three are made and closed in the thread `pub`.
Thread: `pub` runs the loop; any thread may call `put_*`, `wants_frames` and `wait_drained`. Never: makes a putting
thread wait, or waits for a subscriber; the only thing that it waits for is the device's copy of a delivery.

Loses: see `stream.mailbox` (newest masks per camera) and `stream.outlet` (a subscriber whose queue is full); of
pictures that wait for the JPEG encoder, all but the newest of each camera.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import msgspec

from stream import wire
from stream.frame import CameraState, Delivery, Masks, StageTimes, Stamp, TimingSink
from stream.keys import KeyRing
from stream.mailbox import Batch, Mailbox
from stream.meter import Meter
from stream.outlet import BindError, Outlet

log = logging.getLogger(__name__)

IDLE_LIMIT_MS = 250.0  # the loop moves at least this often: the watchdog reads `num_loops`
EARLY_NS = 5_000_000  # a picture that comes this little too early is still sent: arrivals jitter


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How masks and pictures are encoded; `frames_fps` limits the pictures of each camera."""

    mask_encoding: wire.MaskEncoding = "bits"
    frames_fps: float = 15.0
    jpeg_quality: int = 80


class Publisher:
    """Started and stopped by the daemon; `pub` writes every field, the mailbox and `_stopping` excepted.

    `ready` is set when every endpoint is bound (`endpoints` then holds the real ports), or when that failed
    (`error`). `num_loops`, `num_published` (messages on masks/) and `num_replaced` may be read from any thread.
    """

    def __init__(
        self,
        bind: Sequence[str] = ("tcp://127.0.0.1:5560",),
        *,
        info: wire.Info | None = None,
        options: PublishOptions | None = None,
        times: TimingSink | None = None,
        keys: KeyRing | None = None,
    ) -> None:
        options = options or PublishOptions()
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.endpoints: tuple[str, ...] = ()
        self.num_loops = 0
        self.num_published = 0
        self.run_id = 0
        self._bind = tuple(bind)
        self._encoder = wire.MaskEncoder(options.mask_encoding)
        self._jpeg = (cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality)
        self._frames_fps = options.frames_fps
        self._times, self._keys = times, keys
        self._info = info or wire.Info()
        self._mailbox = Mailbox()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pub", daemon=True)
        self._outlet: Outlet | None = None
        self._first_serial = 0  # of topics that begin from now on: above those of cameras that are gone
        self._serials: dict[str, int] = {}  # by topic; never restarts within a run
        self._last: dict[str, Stamp] = {}  # by camera
        self._meters: dict[str, Meter] = {}  # by camera
        self._frame_due_ns: dict[str, int] = {}  # by camera
        self._pictured: dict[str, tuple[Delivery, wire.MasksMessage]] = {}  # by camera: waits for the JPEG encoder

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return when the endpoints are bound; raise what prevented it."""
        if not self.ready.wait(timeout_s):
            raise TimeoutError(f"publisher on {', '.join(self._bind)} is not ready after {timeout_s} s")
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Publish what waits, then end; does not wait for that."""
        self._stopping.set()
        self._mailbox.wake()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_replaced(self) -> int:
        """Deliveries that a newer one of the same camera replaced before `pub` took them."""
        return self._mailbox.num_replaced

    def meter(self, camera: str) -> Meter:
        """How many of a camera's masks were published, and how often; any thread."""
        return self._meters.get(camera) or Meter()

    def size(self, camera: str) -> tuple[int, int]:
        """Width and height of a camera's pictures, 0 before the first; any thread."""
        return next(((known.width, known.height) for known in self._info.cameras if known.name == camera), (0, 0))

    def put_masks(self, delivery: Delivery) -> None:
        """Newest per camera. The publisher releases the delivery, whatever happens to it; never blocks."""
        self._mailbox.put_masks(delivery)

    def put_state(self, state: CameraState) -> None:
        """Never blocks."""
        self._mailbox.put_state(state)

    def put_info(self, info: wire.Info) -> None:
        """Replace what `info` says; run, serial, clock and encoding are filled in here, sizes where they are 0."""
        self._mailbox.put_info(info)

    def wait_drained(self, timeout_s: float) -> bool:
        """For pace=offline: wait until every delivery was taken, so that none is replaced; False after `timeout_s`."""
        return self._mailbox.wait_taken(timeout_s)

    def is_watched(self, camera: str) -> bool:
        """Whether somebody subscribed to the camera's frames."""
        outlet = self._outlet
        return outlet is not None and self._frames_fps > 0 and outlet.has_reader(wire.prefix(f"frames/{camera}"))

    def wants_frames(self, camera: str) -> bool:
        """Whether a delivery of this camera should hold its picture now: somebody watches, and one is due."""
        is_due = time.monotonic_ns() + EARLY_NS >= self._frame_due_ns.get(camera, 0)
        return is_due and self.is_watched(camera)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as exc:
            self.error = exc
            log.error("pub: %s", exc, exc_info=not isinstance(exc, BindError))
        finally:
            self._mailbox.close()
            self.ready.set()

    def _serve(self) -> None:
        fileno = self._mailbox.open()
        self.run_id = time.time_ns()
        outlet = Outlet(self._bind, num_cameras=len(self._info.cameras), keys=self._keys)
        try:
            outlet.watch(fileno)
            self._outlet, self.endpoints = outlet, outlet.endpoints
            self._send_info(outlet, self._info)
            self.ready.set()
            while not self._stopping.is_set():
                self.num_loops += 1
                outlet.wait(0.0 if self._pictured else IDLE_LIMIT_MS)
                self._publish(outlet, self._mailbox.take())  # before `serve`: results are never late for a newcomer
                outlet.serve()
                self._send_frame(outlet)
            self._publish(outlet, self._mailbox.take())
        finally:
            self._outlet = None
            for delivery, _ in self._pictured.values():
                delivery.release()
            outlet.close()

    def _publish(self, outlet: Outlet, batch: Batch) -> None:
        waiting = list(batch.deliveries)
        try:
            if batch.info is not None:
                self._send_info(outlet, batch.info)
            for state in batch.states:
                serial = self._next_serial(f"state/{state.camera}")
                outlet.send(wire.encode(wire.state_of(state, run=self.run_id, serial=serial)), kept=True)
            while waiting:
                message = self._send_masks(outlet, waiting[0])
                self._keep_picture(waiting.pop(0), message)
        finally:
            for delivery in waiting:
                delivery.release()

    def _keep_picture(self, delivery: Delivery, message: wire.MasksMessage) -> None:
        """Hold the delivery while its picture waits to be encoded, or release it; per camera the newest waits."""
        if delivery.picture_hwc is None or not self.wants_frames(message.camera):
            delivery.release()
            return
        due_ns = self._frame_due_ns.get(message.camera, 0) + int(1e9 / self._frames_fps)
        self._frame_due_ns[message.camera] = max(due_ns, time.monotonic_ns())
        if message.camera in self._pictured:
            self._pictured.pop(message.camera)[0].release()
        self._pictured[message.camera] = (delivery, message)

    def _send_masks(self, outlet: Outlet, delivery: Delivery) -> wire.MasksMessage:
        stamp = delivery.stamp
        masks, inferred_ns = delivery.resolve()
        last = self._last.get(stamp.camera)
        order, last_order = (stamp.epoch, stamp.seq), (last.epoch, last.seq) if last else (-1, -1)
        assert order > last_order, (
            f"{stamp.camera}: (epoch, seq) {order} follows {last_order}; the worker must keep order"
        )
        self._last[stamp.camera] = stamp
        self._learn_size(outlet, stamp, masks)
        message = wire.MasksMessage(
            run=self.run_id, serial=self._next_serial(f"masks/{stamp.camera}"),
            num_dropped=max(0, stamp.seq - last_order[1] - 1),
            model=self._info.model, backend=self._info.backend,
            objects=wire.objects_of(masks, delivery.labels, self._encoder), requests=delivery.requests,
            **wire.picture_fields(stamp, masks, inferred_ns=inferred_ns),
        )  # fmt: skip
        outlet.send(wire.encode(message))
        self._count(message, delivery.started_ns)
        return message

    def _count(self, message: wire.MasksMessage, started_ns: int) -> None:
        self.num_published += 1
        self._meters.setdefault(message.camera, Meter()).put(message.published_ns)
        if self._times is not None:
            spans_ns = (
                message.decoded_ns - message.arrival_ns, started_ns - message.decoded_ns,
                message.inferred_ns - started_ns, message.published_ns - message.inferred_ns,
                message.published_ns - message.arrival_ns,
            )  # fmt: skip
            self._times.observe(message.camera, StageTimes(*(max(0, span_ns) / 1e9 for span_ns in spans_ns)))

    def _send_frame(self, outlet: Outlet) -> None:
        """Encode and send one waiting picture: a JPEG takes milliseconds, and masks go first."""
        if not self._pictured:
            return
        camera = next(iter(self._pictured))
        delivery, message = self._pictured[camera]
        picture_hwc = delivery.picture_hwc
        assert picture_hwc is not None, "a picture must stay leased until its delivery is released"
        is_encoded, data = cv2.imencode(".jpg", picture_hwc, self._jpeg)
        assert is_encoded, f"OpenCV refused to encode a picture of shape {picture_hwc.shape} as JPEG"
        del self._pictured[camera]
        delivery.release()
        fields = wire.picture_fields(delivery.stamp, message, inferred_ns=message.inferred_ns)
        serial = self._next_serial(f"frames/{camera}")
        frame = wire.FrameMessage(run=self.run_id, serial=serial, encoding="jpeg", data=data.tobytes(), **fields)
        outlet.send(wire.encode(frame))

    def _next_serial(self, topic: str) -> int:
        self._serials[topic] = self._serials.get(topic, self._first_serial) + 1
        return self._serials[topic]

    def _learn_size(self, outlet: Outlet, stamp: Stamp, masks: Masks) -> None:
        """Cameras in `info` get their size, and unknown ones their entry, from their first masks."""
        seen = wire.CameraInfo(name=stamp.camera, frame_id=stamp.frame_id, width=masks.width, height=masks.height)
        if seen not in self._info.cameras:
            names = [camera.name for camera in self._info.cameras]
            others = [camera for camera in self._info.cameras if camera.name != seen.name]
            others.insert(names.index(seen.name) if seen.name in names else len(others), seen)
            self._send_info(outlet, msgspec.structs.replace(self._info, cameras=tuple(others)))

    def _send_info(self, outlet: Outlet, info: wire.Info) -> None:
        known = {camera.name: camera for camera in self._info.cameras}
        cameras = tuple(camera if camera.width else known.get(camera.name, camera) for camera in info.cameras)
        for gone in known.keys() - {camera.name for camera in cameras}:
            self._forget(outlet, gone)
        self._info = msgspec.structs.replace(
            info, run=self.run_id, serial=self._next_serial("info"), cameras=cameras,
            software=info.software or software_version(), clock_id=wire.local_clock_id(),
            mask_encoding=self._encoder.encoding, frames_fps=self._frames_fps,
        )  # fmt: skip
        outlet.send(wire.encode(self._info), kept=True)

    def _forget(self, outlet: Outlet, camera: str) -> None:
        """The camera is gone; should it come back, its serials go on above all that were used."""
        outlet.forget(wire.prefix(f"state/{camera}"))
        gone = [self._serials.pop(f"{kind}/{camera}", 0) for kind in ("masks", "frames", "state")]
        self._first_serial = max(self._first_serial, *gone)
        if camera in self._pictured:
            self._pictured.pop(camera)[0].release()
        for table in (self._last, self._meters, self._frame_due_ns):
            table.pop(camera, None)


def software_version() -> str:
    """The installed version; "" when run from a source tree."""
    try:
        return importlib.metadata.version("sam2-stream")
    except importlib.metadata.PackageNotFoundError:
        return ""
