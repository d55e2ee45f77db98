"""The worker: which pictures make a turn, what becomes of their leases, epochs and prompts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from fake_engine import FakeEngine

from engines.spec import MAX_FRAMES, MAX_ROWS
from engines.synthetic import ClipSpec, SyntheticClip
from stream.conditions import ConditionBoard
from stream.config import CameraConfig, PromptConfig
from stream.feed import Feed, FixedRing
from stream.frame import CameraCondition, CameraState, Delivery, Masks, Stamp
from stream.prompt import PromptError
from stream.ring import FrameRing
from stream.saved import SavedObjects
from stream.tracker import Tracker
from stream.worker import GpuWorker, WorkerOptions


class Sink:
    """What the worker needs of a publisher: it keeps everything, and resolves at once."""

    def __init__(self, *, watched: bool = False) -> None:
        self.watched = watched
        self.masks: list[tuple[Stamp, Masks, dict[int, str]]] = []
        self.requests: list[tuple[str, ...]] = []
        self.pictures: list[np.ndarray] = []
        self.states: list[CameraState] = []
        self.arrived = threading.Condition()

    def put_masks(self, delivery: Delivery) -> None:
        masks, inferred_ns = delivery.resolve()
        assert inferred_ns >= delivery.stamp.decoded_ns
        if delivery.picture_hwc is not None:
            self.pictures.append(delivery.picture_hwc.copy())
        with self.arrived:
            assert delivery.started_ns >= delivery.stamp.decoded_ns
            self.masks.append((delivery.stamp, masks, delivery.labels))
            self.requests.append(delivery.requests)
            self.arrived.notify_all()
        delivery.release()

    def put_state(self, state: CameraState) -> None:
        self.states.append(state)

    def wants_frames(self, camera: str) -> bool:
        return self.watched

    def is_watched(self, camera: str) -> bool:
        return self.watched

    def wait_drained(self, timeout_s: float) -> bool:
        return True

    def is_alive(self) -> bool:
        return True

    def wait(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.masks) >= count, 20), f"{len(self.masks)} of {count} came"


class Bench:
    """A worker with rings that the test writes to."""

    def __init__(
        self,
        num_cameras: int,
        num_objects: int,
        *,
        watched: bool = False,
        max_objects: int = 64,
        saved: SavedObjects | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.engine = FakeEngine()
        self.doorbell = threading.Event()
        prompts = tuple(PromptConfig(i + 1, f"thing {i}", points=((5.0, 5.0, 1),)) for i in range(num_objects))
        configs = [CameraConfig(f"cam{i}", "testsrc://", prompts=prompts) for i in range(num_cameras)]
        self.sink = Sink(watched=watched)
        self.board = ConditionBoard(self.sink)
        self.feeds = [self.feed(config) for config in configs]
        self.tracker = tracker or Tracker(self.engine)
        self.worker = GpuWorker(
            lambda: self.tracker,
            self.feeds,
            publisher=self.sink,
            doorbell=self.doorbell,  # type: ignore[arg-type]
            options=WorkerOptions(max_objects, self.board, saved),
        )

    def feed(self, config: CameraConfig) -> Feed:
        online = CameraState(config.name, 0, CameraCondition.ONLINE, "", 0)
        self.board.put_state(online)
        return Feed(config, FixedRing(FrameRing(config.name, doorbell=self.doorbell)))

    def put(
        self,
        camera: int,
        seq: int,
        *,
        epoch: int = 0,
        value: int = 0,
        size: tuple[int, int] = (48, 64),
        later_s: float = 0.0,
        picture_hwc: np.ndarray | None = None,
    ) -> None:
        now = time.monotonic_ns()
        picture_hwc = np.full((*size, 3), value, np.uint8) if picture_hwc is None else picture_hwc
        stamp = Stamp(f"cam{camera}", epoch, seq, "frame", None, time.time_ns(), now + int(later_s * 1e9), now)
        assert self.feeds[camera].ring.write(picture_hwc, stamp)


@contextmanager
def bench(num_cameras: int, num_objects: int, *, watched: bool = False, max_objects: int = 64) -> Iterator[Bench]:
    rig = Bench(num_cameras, num_objects, watched=watched, max_objects=max_objects)
    rig.worker.start()
    assert rig.worker.ready.wait(10)
    try:
        yield rig
    finally:
        rig.engine.gate.set()
        rig.worker.stop()
        rig.worker.join(10)
        assert not rig.worker.is_alive()


def test_every_picture_is_answered_with_its_own_stamp() -> None:
    with bench(1, 2) as rig:
        for seq in range(10):
            rig.put(0, seq)
            rig.sink.wait(seq + 1)
    assert [stamp.seq for stamp, _, _ in rig.sink.masks] == list(range(10))
    _, masks, labels = rig.sink.masks[-1]
    assert masks.object_ids == (1, 2) and (masks.height, masks.width) == (48, 64)
    assert labels == {1: "thing 0", 2: "thing 1"} and masks.masks_nhw.all()
    assert rig.worker.num_frames == 10 and rig.worker.error is None


def test_leases_are_returned_whether_or_not_somebody_watches() -> None:
    for watched in (False, True):
        with bench(1, 1, watched=watched) as rig:
            for seq in range(20):
                rig.put(0, seq, value=seq)
                rig.sink.wait(seq + 1)
            assert rig.feeds[0].ring.num_leased == 0
            assert len(rig.sink.pictures) == (20 if watched else 0)
            assert all((picture == seq).all() for seq, picture in enumerate(rig.sink.pictures))


def test_a_turn_takes_at_most_eight_frames_and_sixteen_rows_longest_waiting_first() -> None:
    for num_objects, expected in ((1, MAX_FRAMES), (3, MAX_ROWS // 3)):
        with bench(12, num_objects) as rig:
            rig.engine.gate.clear()
            rig.put(11, 0)  # holds the worker in its first turn
            deadline = time.monotonic() + 10
            while rig.feeds[11].ring.has_unread and time.monotonic() < deadline:
                rig.doorbell.wait(0.01)
            for camera in range(11):
                rig.put(camera, 0)
            rig.engine.gate.set()
            rig.sink.wait(12)
        order = [stamp.camera for stamp, _, _ in rig.sink.masks]
        assert order == ["cam11", *(f"cam{camera}" for camera in range(11))]
        assert max(rig.engine.encoded) <= MAX_FRAMES and max(rig.engine.tracked, default=0) <= MAX_ROWS
        assert rig.engine.encoded[1] >= expected


def test_the_newest_picture_wins_while_the_device_is_busy() -> None:
    with bench(1, 1) as rig:
        rig.engine.gate.clear()
        rig.put(0, 0)
        deadline = time.monotonic() + 10
        while rig.feeds[0].ring.has_unread and time.monotonic() < deadline:
            rig.doorbell.wait(0.01)
        for seq in range(1, 6):
            rig.put(0, seq)
        rig.engine.gate.set()
        rig.sink.wait(2)
    assert [stamp.seq for stamp, _, _ in rig.sink.masks] == [0, 5]
    assert rig.feeds[0].ring.num_dropped["replaced"] == 4


def test_a_new_epoch_starts_without_memory_and_with_its_prompts() -> None:
    with bench(1, 1) as rig:
        for seq, epoch in enumerate((0, 0, 0, 1, 1)):
            rig.put(0, seq, epoch=epoch)
            rig.sink.wait(seq + 1)
        assert rig.tracker._bank.num_rows == 1
        row = next(iter(rig.tracker._objects.values())).row
        assert rig.tracker._bank.age(row) == 2, "the row of the new epoch has seen two frames"
    assert len(rig.engine.tracked) == 3, "the first picture of each epoch is prompted, not tracked"


def test_a_changed_picture_size_keeps_the_memory() -> None:
    with bench(1, 1) as rig:
        rig.put(0, 0)
        rig.sink.wait(1)
        rig.put(0, 1, size=(60, 100))
        rig.sink.wait(2)
    assert len(rig.engine.tracked) == 1
    assert (rig.sink.masks[1][1].height, rig.sink.masks[1][1].width) == (60, 100)


def test_a_camera_without_objects_is_answered_but_not_encoded_and_says_so() -> None:
    with bench(1, 0) as rig:
        rig.put(0, 0)
        rig.sink.wait(1)
    assert rig.engine.encoded == [] and rig.sink.masks[0][1].object_ids == ()
    assert [state.condition.value for state in rig.sink.states] == ["online", "unprompted"]


def test_a_prompt_outside_the_picture_ends_a_single_camera_and_spares_several() -> None:
    for num_cameras in (1, 2):
        rig = Bench(num_cameras, 0)
        beyond = (PromptConfig(1, points=((500.0, 5.0, 1),)), PromptConfig(2, points=((5.0, 5.0, 1),)))
        first = CameraConfig("cam0", "testsrc://", prompts=beyond)
        rig.feeds[0].config = first
        rig.worker.start()
        rig.put(0, 0)
        if num_cameras == 1:
            rig.worker.join(10)
            assert isinstance(rig.worker.error, PromptError) and "(500, 5)" in str(rig.worker.error)
        else:
            rig.sink.wait(1)
            assert rig.sink.masks[0][1].object_ids == (2,)
        assert rig.feeds[0].ring.num_leased == 0
        rig.worker.stop()
        rig.worker.join(10)


def test_a_fault_in_a_turn_is_kept_and_ends_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    rig = Bench(1, 1)
    rig.engine.encode = lambda frames: 1 / 0  # type: ignore[assignment,method-assign]
    rig.worker.start()
    rig.put(0, 0)
    rig.worker.join(10)
    assert isinstance(rig.worker.error, ZeroDivisionError) and rig.feeds[0].ring.num_leased == 0


def test_an_object_is_followed_through_a_change_of_resolution_but_not_into_another_epoch() -> None:
    """The real nano: the pictures become half as large, then grow; then the camera's memory is dropped."""
    clip = SyntheticClip(ClipSpec(seed=3_000_000_326, num_frames=40, height=240, width=320, leave_probability=0.0))
    rig = Bench(1, 0, tracker=Tracker.load("nano", device="cpu", dtype="fp32"))
    x, y = clip.click(0)
    rig.feeds[0].config = CameraConfig("cam0", "testsrc://", prompts=(PromptConfig(1, points=((x, y, 1),)),))
    rig.worker.start()
    ious = []
    for index, scale in enumerate([1.0] * 8 + [0.5] * 8 + [2.0] * 8):
        height, width = int(240 * scale), int(320 * scale)
        rig.put(0, index, picture_hwc=cv2.resize(clip.frame(index), (width, height), interpolation=cv2.INTER_AREA))
        rig.sink.wait(index + 1)
        _, masks, _ = rig.sink.masks[-1]
        assert (masks.height, masks.width, masks.object_ids) == (height, width, (1,))
        found = masks.masks_nhw[0]
        truth = cv2.resize(clip.masks(index)[0].astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        ious.append(float((found & truth).sum() / (found | truth).sum()))
    assert rig.tracker._bank.age(1) == 24, "one life, in which it was prompted once"
    assert min(ious) > 0.6 and np.mean(ious) > 0.8, ious
    rig.put(0, 24, epoch=1, picture_hwc=np.zeros((240, 320, 3), np.uint8))
    rig.sink.wait(25)
    assert rig.tracker._bank.age(1) == 1 and rig.sink.masks[-1][1].object_ids == (1,), "prompted anew"
    rig.worker.stop()
    rig.worker.join(10)
    assert rig.worker.error is None
