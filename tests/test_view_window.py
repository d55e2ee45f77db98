"""The window on a virtual screen, with a real mouse and keyboard: a person adds, corrects, names and removes objects,
looks around, and closes it. The daemon is a publisher and a control socket that do with discs what a daemon does.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from control_rig import Rig, controlling
from deliveries import FakeDelivery, ellipse_hw, masks_of, publishing
from view_rig import APT_PACKAGES, HEIGHT, WIDTH, Hand, Screen, until, viewing, virtual_screen

from stream import wire
from stream.command import Add, Refine, Remove, Rename, Reply, Request, Undo
from stream.inbox import Command
from stream.keys import KeyFolder, KeyRing
from stream.overlay import colour_of
from stream.publish import Publisher
from stream.view.editor import NO_COMMANDS

pytestmark = [pytest.mark.twice, pytest.mark.timeout(240)]
PICTURE = (70, 70, 70)
RADIUS = 16
NEW = "a new object: click on it, or draw a box around it"
Disc = tuple[int, int]


class Discs:
    """A daemon's camera thread and worker in one: every object is a disc around its prompt; undo knows one step."""

    def __init__(self, publisher: Publisher, rig: Rig | None, cameras: tuple[str, ...]) -> None:
        self.publisher, self.rig, self.cameras = publisher, rig, cameras
        self.objects: dict[str, dict[int, Disc]] = {name: {} for name in cameras}
        self.labels: dict[int, str] = {}
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self._before: dict[int, Disc] = {}
        self._shown: dict[str, list[str]] = {name: [] for name in cameras}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feed")
        if rig is not None:
            rig.obeying.answer = self._obey

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def set_cameras(self, *names: str) -> None:
        """As after a reload of the configuration."""
        for name in names:
            self.objects.setdefault(name, {})
            self._shown.setdefault(name, [])
        cameras = tuple(wire.CameraInfo(name=name) for name in names)
        control = self.rig.endpoint if self.rig is not None else None
        self.cameras = names
        self.publisher.put_info(wire.Info(control=control, cameras=cameras))

    def of_type(self, kind: type) -> list:
        return [item for item in self.requests if isinstance(item, kind)]

    def _feed(self) -> None:
        seq = 0
        while not self._stopping.wait(0.03):
            for name in self.cameras:
                self.publisher.put_masks(self._delivery(name, seq))
            seq += 1

    def _delivery(self, name: str, seq: int) -> FakeDelivery:
        with self._lock:
            discs, labels, shown = dict(self.objects[name]), dict(self.labels), tuple(self._shown[name])
            self._shown[name] = []
        boxes = [(x - RADIUS, y - RADIUS, x + RADIUS + 1, y + RADIUS + 1) for x, y in discs.values()]
        discs_nhw = [ellipse_hw(HEIGHT, WIDTH, box) for box in boxes]
        masks = masks_of(np.stack(discs_nhw) if discs_nhw else np.zeros((0, HEIGHT, WIDTH), np.bool_), tuple(discs))
        delivery = FakeDelivery(name, seq, masks=masks, picture_hwc=np.full((HEIGHT, WIDTH, 3), PICTURE, np.uint8))
        delivery.labels, delivery.requests = labels, shown
        return delivery

    def _obey(self, command: Command[Request]) -> None:
        request = command.request
        with self._lock:
            self.requests.append(request)
            discs = self.objects[request.camera]  # type: ignore[attr-defined]
            reply = self._change(request, discs)
            if reply.ok:
                self._shown[request.camera].append(request.id)  # type: ignore[attr-defined]
        command.answer(reply)

    def _change(self, request: Request, discs: dict[int, Disc]) -> Reply:
        object_id = getattr(request, "object_id", None)
        if self.errors:
            return Reply(ok=False, code="refused", error=self.errors.pop())
        if isinstance(request, Undo):
            discs.clear()
            discs.update(self._before)
            return Reply()
        self._before = dict(discs)
        if isinstance(request, Add):
            object_id = max([0, *discs]) + 1 if object_id is None else object_id
            x, y = request.points[0][:2] if request.points else np.mean(np.reshape(request.box, (2, 2)), axis=0)
            discs[object_id] = (round(x), round(y))
        elif isinstance(request, Remove):
            del discs[object_id]
        elif isinstance(request, Rename):
            self.labels[object_id] = request.label or ""
        return Reply(object_id=object_id)


@contextlib.contextmanager
def discs(
    *cameras: str, is_controlled: bool = True, bind: str = "tcp://127.0.0.1:*", keys: KeyRing | None = None
) -> Iterator[Discs]:
    info = wire.Info(cameras=tuple(wire.CameraInfo(name=name) for name in cameras))
    with contextlib.ExitStack() as stack:
        publisher = stack.enter_context(publishing(bind, frames_fps=100.0, info=info, keys=keys))
        rig = None
        if is_controlled:
            rig = stack.enter_context(
                controlling(*[bind] * (keys is not None), cameras=cameras, run=publisher.run_id, keys=keys)
            )
            publisher.put_info(msgspec.structs.replace(info, control=rig.endpoint))
        daemon = Discs(publisher, rig, cameras)
        daemon.start()
        stack.callback(daemon.stop)
        yield daemon


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with virtual_screen() as found:
        yield found


@contextlib.contextmanager
def opened(screen: Screen, endpoint: str, *options: str, cwd: Path | None = None) -> Iterator[tuple]:
    """The view with its first picture on the screen, in the picture's own size."""
    with viewing(screen, endpoint, *options, cwd=cwd) as process:
        until(lambda: screen.window() or process.poll() is not None, "a window")
        assert process.poll() is None, process.communicate()[1]
        window = screen.window()
        assert window is not None
        hand = Hand(screen, window)
        hand.settle(WIDTH, HEIGHT + 48)
        until(lambda: screen.count(PICTURE, window) > 0.7 * WIDTH * HEIGHT, "the first picture")
        yield process, hand


@pytest.fixture(autouse=True)
def programs(needs_apt: Callable[..., None]) -> None:
    needs_apt(*APT_PACKAGES)


def seen_disc(screen: Screen, hand: Hand, object_id: int, *, is_there: bool = True) -> None:
    """Wait until a disc in the object's colour is on the screen, or is gone."""
    fill = tuple(round(0.58 * grey + 0.42 * part) for grey, part in zip(PICTURE, colour_of(object_id), strict=True))
    state = "there" if is_there else "gone"
    until(lambda: (screen.count(fill, hand.window) > 60) == is_there, f"object {object_id} {state}")  # type: ignore[arg-type]


def test_qt_finds_the_systems_own_libx11_xcb() -> None:
    """Else it may lose events: a window in a hundred is never painted or hears no key."""
    program = (
        "import ctypes, cv2; from stream.view.window import own_x11_events\n"
        "assert not hasattr(ctypes.CDLL(None), 'XSetEventQueueOwner')\n"
        "own_x11_events()\n"
        "found = ctypes.cast(ctypes.CDLL(None).XSetEventQueueOwner, ctypes.c_void_p).value\n"
        "own = ctypes.cast(ctypes.CDLL('libX11-xcb.so.1').XSetEventQueueOwner, ctypes.c_void_p).value\n"
        "assert found == own, (found, own)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["q", "Escape", "alt+F4", "INT"])
def test_the_window_ends_when_told(screen: Screen, how: str) -> None:
    with discs("a") as daemon, opened(screen, daemon.publisher.endpoints[0]) as (process, hand):
        if how == "INT":
            process.send_signal(signal.SIGINT)
        else:
            until(lambda: process.poll() is not None or hand.try_press(how), "a window that heard the key")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert not re.search("Traceback|rror", err)


def test_a_person_adds_corrects_names_removes_and_takes_back(screen: Screen) -> None:
    with discs("a") as daemon, opened(screen, daemon.publisher.endpoints[0]) as (process, hand):
        hand.click(40, 50)
        seen_disc(screen, hand, 1)
        (add,) = daemon.of_type(Add)
        assert (add.points, add.seen.width, add.seen.height) == (((40, 50, 1),), WIDTH, HEIGHT)
        hand.click(45, 60, button=3)
        hand.click(35, 55)
        until(lambda: len(daemon.of_type(Refine)) == 2, "two corrections")
        assert [item.points for item in daemon.of_type(Refine)] == [((45, 60, 0),), ((35, 55, 1),)]
        until(lambda: hand.reads("object 1 corrected: this belongs to it"), "the last answer")
        hand.press("n", NEW)
        hand.drag((90, 20), (130, 60))
        seen_disc(screen, hand, 2)
        box = daemon.of_type(Add)[-1].box
        assert box == (90, 20, 131, 61)
        hand.type_name("cup", 2)
        assert daemon.of_type(Rename)[0].label == "cup" and daemon.of_type(Rename)[0].object_id == 2
        hand.press("Delete", "object 2 removed; Z brings it back")
        seen_disc(screen, hand, 2, is_there=False)
        hand.press("z", "the last change is taken back")
        seen_disc(screen, hand, 2)
        seen_disc(screen, hand, 1)
        assert process.poll() is None


def test_every_click_maps_to_its_pixel_whatever_size_the_window_has(screen: Screen) -> None:
    with discs("a") as daemon, opened(screen, daemon.publisher.endpoints[0]) as (_, hand):
        for num, (width, height) in enumerate([(160, 168), (480, 408), (1000, 408), (330, 700)]):
            hand.resize(width, height)
            until(lambda w=width, h=height: hand.size() == (w, h), "another size")
            factor = min(width / WIDTH, (height - 48) / HEIGHT)
            shown = (round(WIDTH * factor), round(HEIGHT * factor))
            until(lambda s=shown: screen.count(PICTURE, hand.window) > 0.8 * s[0] * s[1], "the picture in that size")
            left, top = (width - shown[0]) // 2, (height - 48 - shown[1]) // 2
            x, y = 20 + 30 * num, 100 - 25 * num
            hand.press("n", NEW)
            hand.click(left + int((x + 0.5) * factor), top + int((y + 0.5) * factor))
            until(lambda n=num: len(daemon.of_type(Add)) == n + 1, "another object")
            until(lambda n=num: hand.reads(f"object {n + 1} added: 1 point"), "the answer")
            assert daemon.of_type(Add)[-1].points == ((x, y, 1),)


def test_cameras_are_switched_and_shown_together_and_saved(screen: Screen, tmp_path: Path) -> None:
    with discs("a", "b") as daemon:
        daemon.objects["b"][7] = (80, 60)
        with opened(screen, daemon.publisher.endpoints[0], cwd=tmp_path) as (process, hand):
            seen_disc(screen, hand, 7, is_there=False)
            hand.press("2", "camera b")
            seen_disc(screen, hand, 7)
            hand.press("s")
            until(lambda: list(tmp_path.glob("b-0-*.png")), "a saved picture")
            hand.press("Tab", "camera a")
            seen_disc(screen, hand, 7, is_there=False)
            hand.press("g", "click on a camera to see it alone")
            seen_disc(screen, hand, 7)
            daemon.set_cameras("a", "b", "c")
            until(lambda: hand.reads("the daemon has a new camera c"), "a new camera is told")
            daemon.set_cameras("b", "c")
            until(lambda: hand.reads("the daemon has no camera a any more; Tab: the next one"), "a camera that is gone")
            hand.press("1", "camera b")
            seen_disc(screen, hand, 7)
            assert process.poll() is None
        (path,) = tmp_path.iterdir()
        until(lambda: cv2.imread(str(path)) is not None, "a whole file")
        image_hwc = cv2.imread(str(path))
        assert image_hwc.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(image_hwc[68, 80].astype(float) - [0.58 * 70 + 0.42 * part for part in colour_of(7)]).max() < 3


def test_it_lives_through_a_restart_of_the_daemon(screen: Screen, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/d.sock"
    with contextlib.ExitStack() as stack:
        with discs("a", bind=endpoint) as daemon:
            process, hand = stack.enter_context(opened(screen, endpoint))
            hand.click(40, 50)
            seen_disc(screen, hand, 1)
        until(lambda: screen.count(PICTURE, hand.window) < 100, "a dark picture: nothing comes any more")
        with discs("a", bind=endpoint) as daemon:
            until(lambda: screen.count(PICTURE, hand.window) > 0.9 * WIDTH * HEIGHT, "the new daemon's pictures")
            hand.click(60, 70)
            seen_disc(screen, hand, 1)
            assert daemon.of_type(Add)[0].points == ((60, 70, 1),)
            assert process.poll() is None


def test_without_commands_it_only_shows(screen: Screen) -> None:
    with (
        discs("a", is_controlled=False) as daemon,
        opened(screen, daemon.publisher.endpoints[0]) as (process, hand),
    ):
        hand.click(40, 50)
        until(lambda: hand.reads(NO_COMMANDS), "an explanation")
        hand.press("h")
        until(lambda: screen.count(PICTURE, hand.window) < 0.5 * WIDTH * HEIGHT, "help")
        assert process.poll() is None


def test_over_curve_a_control_key_commands_and_a_view_key_only_sees(screen: Screen, tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    alice, carol = folder.new("alice", "view"), folder.new("carol", "control")
    with discs("a", bind="tcp://0.0.0.0:*", keys=KeyRing.open(folder.path)) as daemon:
        endpoint = daemon.publisher.endpoints[0].replace("0.0.0.0", "127.0.0.1")
        with opened(screen, endpoint, "--key", str(carol)) as (_, hand):
            hand.click(40, 50)
            seen_disc(screen, hand, 1)
            hand.press("q")
            until(lambda: screen.window() is None, "the window is closed")
        with opened(screen, endpoint, "--key", str(alice)) as (process, hand):
            seen_disc(screen, hand, 1)
            hand.click(90, 50)
            until(lambda: hand.reads("adding an object ..."), "an attempt")
            until(lambda: not hand.reads("adding an object ..."), "an answer")
            assert process.poll() is None and len(daemon.of_type(Add)) == 1


def test_a_window_and_a_video_show_the_same(screen: Screen, tmp_path: Path) -> None:
    with discs("a") as daemon:
        path = tmp_path / "a.mp4"
        with viewing(screen, daemon.publisher.endpoints[0], "--save", str(path), "--frames", "30") as process:
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    assert path.stat().st_size > 1000
