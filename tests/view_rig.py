"""What the tests of the view share: masks messages made by hand, a virtual screen, and a hand on mouse and keyboard."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from deliveries import ellipse_hw, masks_of
from numpy.typing import NDArray

from stream import wire
from stream.client import MasksMessage
from stream.frame import Stamp
from stream.overlay import Colour
from stream.view.canvas import compose

APT_PACKAGES = ("xvfb", "openbox", "xdotool", "x11-apps", "libx11-xcb1")
HEIGHT, WIDTH = 120, 160
FIRST_WORDS = "click on an object to follow it; H: help"
LIMIT_S = 60.0  # for a busy machine; what is waited for comes in a fraction of a second


def message(
    seq: int = 0,
    boxes: dict[int, tuple[int, int, int, int]] | None = None,
    *,
    camera: str = "a",
    run: int = 1,
    epoch: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    labels: dict[int, str] | None = None,
    requests: tuple[str, ...] = (),
) -> MasksMessage:
    """Ellipses in these boxes, by object id."""
    boxes = boxes or {}
    width, height = size
    ellipses = [ellipse_hw(height, width, box) for box in boxes.values()]
    masks = masks_of(np.stack(ellipses) if ellipses else np.zeros((0, height, width), np.bool_), tuple(boxes))
    stamp = Stamp(camera, epoch, seq, "", None, 1, 1, 1)
    return MasksMessage(
        run=run, serial=seq, num_dropped=0, model="", backend="", requests=requests,
        objects=wire.objects_of(masks, labels or {}, wire.MaskEncoder("bits")),
        **wire.picture_fields(stamp, masks, inferred_ns=1),
    )  # fmt: skip


@dataclass(frozen=True)
class Screen:
    """A virtual screen with a window manager."""

    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """The output of a command; "" when it fails, as xdotool does when there is no such window."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def window(self) -> str | None:
        """The number of the view's window, once it is on the screen."""
        found = self.ask("xdotool", "search", "--onlyvisible", "--name", "^sam2-stream ").split()
        return found[-1] if found else None

    def picture(self, window: str = "-root") -> NDArray[np.uint8]:
        """What the screen or a window shows, BGR; a single pixel while that comes or goes."""
        target = ["-root"] if window == "-root" else ["-id", window]
        dump = subprocess.run(
            ["xwd", *target, "-silent"], env=self.environment, capture_output=True, check=False
        ).stdout
        if len(dump) < 100:
            return np.zeros((1, 1, 3), np.uint8)
        header = np.frombuffer(dump[:100], ">u4")
        width, height, num_bytes, row_bytes = int(header[4]), int(header[5]), int(header[11]) // 8, int(header[12])
        start = int(header[0]) + int(header[19]) * 12  # behind the header and its colour map
        rows = np.frombuffer(dump, np.uint8, height * row_bytes, start).reshape(height, row_bytes)
        return rows[:, : width * num_bytes].reshape(height, width, num_bytes)[:, :, :3].copy()

    def count(self, colour: Colour, window: str = "-root") -> int:
        """How many pixels have about this colour."""
        return int((np.abs(self.picture(window).astype(int) - colour).max(axis=2) < 6).sum())


@dataclass(frozen=True)
class Hand:
    """Mouse and keyboard on the view's window; pixels count from the window's upper left corner."""

    screen: Screen
    window: str

    def _do(self, *words: object) -> None:
        command = ["xdotool", *map(str, words)]
        subprocess.run(command, env=self.screen.environment, check=True, capture_output=True, timeout=30)

    def point(self, x: int, y: int) -> None:
        self._do("mousemove", "--window", self.window, x, y)

    def click(self, x: int, y: int, button: int = 1) -> None:
        self.point(x, y)
        self._do("click", button)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        self.point(*start)
        self._do("mousedown", 1)
        for part in (0.3, 0.7, 1.0):
            self.point(*(round(a + (b - a) * part) for a, b in zip(start, end, strict=True)))
        self._do("mouseup", 1)

    def press(self, key: str, said: str = "") -> None:
        """A key by its X name; then wait until the status line says this. OpenCV keeps one key a turn, and does not
        tell whether it came before or after a click: on a busy machine a turn may be long.
        """
        self._do("windowfocus", "--sync", self.window, "key", key)
        if said:
            until(lambda: self.reads(said), f"the status line {said!r}")

    def reads(self, said: str) -> bool:
        """Whether the status line says this, pixel by pixel."""
        shown_hwc = self.screen.picture(self.window)
        expected_hwc = compose([], (shown_hwc.shape[1], shown_hwc.shape[0]), said=said).image_hwc
        return np.array_equal(shown_hwc[-22:], expected_hwc[-22:]) and shown_hwc.shape == expected_hwc.shape

    def try_press(self, key: str) -> bool:
        """Press a key that closes the window; False, for it may be gone already, or not listen yet."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.press(key)
        threading.Event().wait(1.0)
        return False

    def type_name(self, text: str, object_id: int) -> None:
        """The name of the selected object, which has none yet."""
        line = "name of object {}: {}_    (Enter: done, Esc: leave it)"
        self.press("r", line.format(object_id, ""))
        for end in range(len(text)):
            self.press(text[end], line.format(object_id, text[: end + 1]))
        self.press("Return", f"object {object_id} is called '{text}' now")

    def size(self) -> tuple[int, int]:
        words = dict(
            line.split("=") for line in self.screen.ask("xdotool", "getwindowgeometry", "--shell", self.window).split()
        )
        return int(words.get("WIDTH", 0)), int(words.get("HEIGHT", 0))

    def settle(self, width: int, height: int) -> None:
        """Wait for the first picture in a window of this size; a window manager that is just taking the window over
        may miss its first change of size, so now and then it is pulled, as a person would.
        """
        deadline = time.monotonic() + LIMIT_S
        while not (self.size() == (width, height) and self.reads(FIRST_WORDS)):
            assert time.monotonic() < deadline, f"no window of {width} x {height}, but of {self.size()}"
            if time.monotonic() > deadline - LIMIT_S + 8:
                self._do("windowsize", self.window, width + 9, height)
                threading.Event().wait(1.0)
                self._do("windowsize", self.window, width, height)
            threading.Event().wait(0.3)

    def resize(self, width: int, height: int) -> None:
        self._do("windowsize", "--sync", self.window, width, height)


@contextmanager
def virtual_screen(size: str = "1100x800x24") -> Iterator[Screen]:
    """A screen whose server stays when its last client leaves (`-noreset`): in the moment of such a reset, whoever
    connects is thrown out, and every xdotool is a client that leaves. It is ready when the window manager is.
    """
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", size, "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        try:
            with os.fdopen(reader) as numbers:
                screen = Screen({**os.environ, "DISPLAY": f":{numbers.readline().strip()}"})
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(["openbox"], env=screen.environment, **quiet) as manager:  # type: ignore[call-overload]
                try:
                    until(lambda: screen.ask("xdotool", "get_desktop"), "a window manager")
                    yield screen
                finally:
                    manager.terminate()
        finally:
            server.terminate()


@contextmanager
def viewing(screen: Screen, endpoint: str, *options: str, cwd: object = None) -> Iterator[subprocess.Popen[str]]:
    """`sam2-stream view`; killed at the end if it still runs."""
    command = [sys.executable, "-m", "stream.cli", "view", endpoint, *options]
    process = subprocess.Popen(command, env=screen.environment, stderr=subprocess.PIPE, text=True, cwd=cwd)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for the condition."""
    deadline, tick = time.monotonic() + limit_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s"
        tick.wait(0.05)
