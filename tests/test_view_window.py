"""The window, on a virtual display: it shows the overlay, and ends with q, with Esc, when it is closed, and at INT."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from deliveries import publishing
from test_view import feeding

from stream.overlay import colour_of

# in `make test-all` only: on a virtual display Qt now and then never reads its events, with or without a fault of ours
pytestmark = pytest.mark.slow


@pytest.fixture
def display(needs_apt: Callable[..., None]) -> Iterator[dict[str, str]]:
    """The environment of a virtual screen of 800 x 600, with a window manager: without, Qt at times never paints."""
    needs_apt("xvfb", "openbox", "xdotool", "x11-apps")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        try:
            with os.fdopen(reader) as numbers:
                number = numbers.readline().strip()
            environment = {**os.environ, "DISPLAY": f":{number}", "QT_LOGGING_RULES": "*=false"}
            with subprocess.Popen(["openbox"], env=environment, stderr=subprocess.DEVNULL) as manager:
                yield environment
                manager.terminate()
        finally:
            server.terminate()


def windows(display: dict[str, str]) -> list[str]:
    command = ["xdotool", "search", "--onlyvisible", "--name", "sam2-stream"]
    return subprocess.run(command, env=display, capture_output=True, text=True, check=False).stdout.split()


def screenshot(display: dict[str, str]) -> np.ndarray:
    """What is on the screen, BGR."""
    dump = subprocess.run(["xwd", "-root", "-silent"], env=display, capture_output=True, check=False).stdout
    if len(dump) < 100:
        return np.zeros((1, 1, 3), np.uint8)  # xwd fails while a window comes or goes
    header = np.frombuffer(dump[:100], ">u4")
    start = int(header[0]) + int(header[19]) * 12  # behind the header and its colour map
    rows = np.frombuffer(dump, np.uint8, int(header[5]) * int(header[12]), start)
    return rows.reshape(int(header[5]), -1, 4)[:, : int(header[4]), :3]


def shows_overlay(display: dict[str, str], timeout_s: float) -> bool:
    """Whether the plate of object 1, in its colour, is on the screen in time."""
    colour, deadline, tick = np.array(colour_of(1)), time.monotonic() + timeout_s, threading.Event()
    while time.monotonic() < deadline:
        if windows(display) and (np.abs(screenshot(display) - colour).sum(axis=2) < 12).sum() > 100:
            return True
        tick.wait(0.1)
    return False


def open_view(display: dict[str, str], endpoint: str) -> subprocess.Popen[str]:
    """A view with a painted window; Qt 5 on a virtual screen now and then never reads its first events: then again."""
    command = [sys.executable, "-m", "stream.cli", "view", endpoint]
    for _ in range(4):
        process = subprocess.Popen(command, env=display, stderr=subprocess.PIPE, text=True)
        if shows_overlay(display, 20):
            return process
        process.kill()
        process.communicate()
    raise AssertionError("the overlay was not on the screen in any of four runs")


@pytest.mark.parametrize("how", ["q", "Escape", "alt+F4", "INT"])
def test_the_window_shows_the_overlay_and_ends_when_told(display: dict[str, str], how: str) -> None:
    with publishing(frames_fps=100.0) as publisher, feeding(publisher):
        process = open_view(display, publisher.endpoints[0])
        try:
            (window,) = windows(display)
            if how == "INT":
                process.send_signal(signal.SIGINT)
            else:
                subprocess.run(["xdotool", "windowfocus", "--sync", window, "key", how], env=display, check=True)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0, err
    assert not re.search("Traceback|rror", err)
