"""The view joins pictures with their own masks, saves what it shows, and ends when it should."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import FakeDelivery, ellipse_hw, masks_of, publishing, wait_for
from hypothesis import given
from hypothesis import strategies as st

from stream.client import FrameMessage, MasksMessage
from stream.frame import CameraCondition, CameraState
from stream.movie import MovieError
from stream.overlay import colour_of
from stream.publish import Publisher
from stream.view import NUM_HELD, Joiner, Rate, ViewError, ViewOptions, run_view

HEIGHT, WIDTH = 120, 160


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def delivery(seq: int, camera: str = "a") -> FakeDelivery:
    """A picture whose brightness tells its number, with a disc that moves to the right by 4 pixels a picture."""
    x0 = 10 + 4 * (seq % 25)
    masks = masks_of(ellipse_hw(HEIGHT, WIDTH, (x0, 40, x0 + 40, 80))[None])
    return FakeDelivery(
        camera, seq, masks=masks, picture_hwc=np.full((HEIGHT, WIDTH, 3), 60 + 6 * (seq % 25), np.uint8)
    )


@contextlib.contextmanager
def feeding(publisher: Publisher, *cameras: str, period_s: float = 0.02) -> Iterator[None]:
    """Another thread delivers pictures until the end of the block."""
    stopping = threading.Event()

    def feed() -> None:
        seq = 0
        while not stopping.wait(period_s):
            for camera in cameras or ("a",):
                publisher.put_masks(delivery(seq, camera))
            seq += 1

    thread = threading.Thread(target=feed, name="feed")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(5)


def pictures_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def message(kind: type, seq: int, *, run: int = 1, epoch: int = 0) -> MasksMessage | FrameMessage:
    times = ("arrival", "decoded", "inferred", "published")
    fields = {f"{name}_{clock}": 0 for name in times for clock in ("ns", "utc_ns")}
    fields |= {"camera": "a", "frame_id": "", "width": 8, "height": 8, "pts_ns": None, "clock_source": "arrival"}
    fields |= {"clock_id": "", "run": run, "epoch": epoch, "seq": seq}
    own = {"encoding": "jpeg", "data": b""} if kind is FrameMessage else {"num_dropped": 0, "model": "", "backend": ""}
    return kind(**fields, **own, **({} if kind is FrameMessage else {"objects": ()}))


@given(
    st.lists(
        st.tuples(st.sampled_from([MasksMessage, FrameMessage]), st.integers(0, 5), st.integers(0, 1)), max_size=40
    )
)
def test_a_pair_is_one_of_each_with_the_same_number(items: list[tuple[type, int, int]]) -> None:
    joiner = Joiner()
    for kind, seq, epoch in items:
        pair = joiner.put(message(kind, seq, epoch=epoch))
        if pair is not None:
            masks, frame = pair
            assert isinstance(masks, MasksMessage) and isinstance(frame, FrameMessage)
            assert (masks.run, masks.epoch, masks.seq) == (frame.run, frame.epoch, frame.seq) == (1, epoch, seq)


def test_pictures_of_another_run_or_epoch_are_not_joined() -> None:
    joiner = Joiner()
    assert joiner.put(message(MasksMessage, 5)) is None
    assert joiner.put(message(FrameMessage, 5, run=2)) is None
    assert joiner.put(message(FrameMessage, 5, epoch=1)) is None
    assert joiner.put(message(FrameMessage, 5)) is not None


def test_halves_that_never_meet_do_not_pile_up() -> None:
    joiner = Joiner()
    for seq in range(1000):
        joiner.put(message(MasksMessage, seq))
        joiner.put(message(FrameMessage, seq + 10_000))
    assert joiner.num_given_up == 1000 - NUM_HELD
    assert joiner.put(message(FrameMessage, 999)) is not None
    assert joiner.put(message(FrameMessage, 999 - NUM_HELD)) is None


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.put(0) == 0.0
    assert [rate.put(index * 10**8) for index in range(1, 30)][-1] == pytest.approx(10.0)
    assert [rate.put(3 * 10**9 + index * 5 * 10**7) for index in range(60)][-1] == pytest.approx(20.0)


def test_saved_pictures_show_their_own_masks(tmp_path: Path) -> None:
    with publishing(frames_fps=100.0) as publisher, feeding(publisher):
        options = ViewOptions(save=tmp_path / "a.mp4", num_pictures=20)
        assert run_view(publisher.endpoints[0], options) == 20
    pictures = pictures_of(tmp_path / "a.mp4")
    assert len(pictures) == 20
    for image_hwc in pictures:
        seq = round((float(image_hwc[2:12, 5:150].mean()) - 60) / 6)
        tinted = np.abs(image_hwc[60].astype(int) - image_hwc[60].mean(axis=1, keepdims=True)).sum(axis=1) > 40
        first = int(np.flatnonzero(tinted)[0])
        assert abs(first - (10 + 4 * seq)) <= 2, "the mask lies on another picture than its own"
        fill = 0.58 * (60 + 6 * seq) + 0.42 * np.array(colour_of(1))
        assert np.abs(image_hwc[60, first + 10 : first + 30].mean(axis=0) - fill).max() < 12


def test_the_view_may_come_before_the_daemon(tmp_path: Path, unused_tcp_port: int) -> None:
    endpoint, done = f"tcp://127.0.0.1:{unused_tcp_port}", []
    options = ViewOptions(save=tmp_path / "a.mp4", num_pictures=3)
    thread = threading.Thread(target=lambda: done.append(run_view(endpoint, options)))
    thread.start()
    threading.Event().wait(0.5)
    with publishing(endpoint) as publisher, feeding(publisher):
        thread.join(20)
    assert done == [3]


def test_a_named_camera_is_the_only_one_shown(tmp_path: Path) -> None:
    with publishing(frames_fps=100.0) as publisher, feeding(publisher, "a", "b"):
        options = ViewOptions(camera="b", save=tmp_path / "b.mp4", num_pictures=5)
        thread = threading.Thread(target=run_view, args=(publisher.endpoints[0], options))
        thread.start()
        wait_for(lambda: publisher.is_watched("b"))
        assert not publisher.is_watched("a"), "nobody wants the pictures of a"
        thread.join(20)
    assert len(pictures_of(tmp_path / "b.mp4")) == 5


def test_it_ends_when_the_camera_has_ended(tmp_path: Path) -> None:
    done: list[int] = []
    with publishing(frames_fps=100.0) as publisher:
        options = ViewOptions(camera="a", save=tmp_path / "a.mp4")
        thread = threading.Thread(target=lambda: done.append(run_view(publisher.endpoints[0], options)))
        thread.start()
        wait_for(lambda: publisher.is_watched("a"))
        with feeding(publisher):
            threading.Event().wait(0.5)
        publisher.put_state(CameraState("a", 0, CameraCondition.OFFLINE, "end of file", time.time_ns()))
        thread.join(10)
        assert not thread.is_alive()
    assert done[0] == len(pictures_of(tmp_path / "a.mp4")) > 5


def test_a_camera_that_only_lost_its_connection_is_waited_for(tmp_path: Path) -> None:
    with publishing(frames_fps=100.0) as publisher:
        options = ViewOptions(camera="a", save=tmp_path / "a.mp4", num_pictures=5)
        thread = threading.Thread(target=run_view, args=(publisher.endpoints[0], options))
        thread.start()
        wait_for(lambda: publisher.is_watched("a"))
        publisher.put_state(CameraState("a", 0, CameraCondition.OFFLINE, "connection refused", time.time_ns()))
        thread.join(1.5)
        assert thread.is_alive()
        with feeding(publisher):
            thread.join(20)
    assert len(pictures_of(tmp_path / "a.mp4")) == 5


def test_seconds_count_from_the_first_picture(tmp_path: Path) -> None:
    with publishing(frames_fps=100.0) as publisher, feeding(publisher):
        started_s = time.monotonic()
        num_pictures = run_view(publisher.endpoints[0], ViewOptions(save=tmp_path / "a.mp4", seconds=1.0))
        assert 0.9 < time.monotonic() - started_s < 8
    assert num_pictures > 10


def test_term_ends_it_with_a_whole_video(tmp_path: Path) -> None:
    with publishing(frames_fps=100.0) as publisher, feeding(publisher):
        command = [
            sys.executable,
            "-m",
            "stream.cli",
            "view",
            publisher.endpoints[0],
            "--save",
            str(tmp_path / "a.mp4"),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: publisher.is_watched("a"), 30)
            threading.Event().wait(1.0)
            os.kill(process.pid, signal.SIGTERM)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert out == f"{tmp_path / 'a.mp4'}: {len(pictures_of(tmp_path / 'a.mp4'))} pictures\n"


def test_no_picture_leaves_no_file(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with publishing() as publisher:
        assert run_view(publisher.endpoints[0], ViewOptions(save=tmp_path / "a.mp4"), stopping) == 0
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ViewOptions(), "there is no display"),
        (ViewOptions(window=True), "there is no display"),
        (ViewOptions(window=False), "neither a window nor a file"),
    ],
)
def test_a_view_that_could_show_nothing_says_so(options: ViewOptions, text: str) -> None:
    with pytest.raises(ViewError, match=text):
        run_view("tcp://127.0.0.1:1", options)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MovieError, match=r"none/a\.mp4"):
        run_view("tcp://127.0.0.1:1", ViewOptions(save=tmp_path / "none" / "a.mp4"))


def test_a_wrong_endpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="endpoint 'nowhere'"):
        run_view("nowhere", ViewOptions(camera="a", save=tmp_path / "a.mp4"))
