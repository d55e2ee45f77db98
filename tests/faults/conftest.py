"""The fault laboratory as fixtures: one scene, one daemon with a healthy camera, and a recorder of the table's rows."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import missing_apt_packages
from rtsp import APT_PACKAGES

from faults import scene
from faults.camera import CameraServer
from faults.lab import HEALTHY, Lab
from faults.record import Row, record_row
from faults.story import OFFSET as STORY_OFFSET
from faults.story import Story

Record = Callable[[Row, str], None]


@dataclass(frozen=True)
class World:
    """What all cameras look at, and since when."""

    raw: Path
    origin_s: float

    def cameras(self, settings: dict[str, dict[str, Any]], **options: Any) -> CameraServer:
        return CameraServer(self.raw, self.origin_s, settings, **options)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """pytest's own are too long for an ipc socket."""
    folder = Path(tempfile.mkdtemp(prefix="s2f-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def world(short_folder: Path) -> World:
    missing = missing_apt_packages(APT_PACKAGES)
    if missing:
        reason = f"apt packages missing: {' '.join(missing)}"
        pytest.fail(reason) if os_is_ci() else pytest.skip(reason)
    return World(scene.write_raw(short_folder / "scene.i420"), time.monotonic())


@pytest.fixture(scope="session")
def lab(world: World, short_folder: Path, story: Story) -> Iterator[Lab]:
    """A daemon with one healthy camera; tests put their faulty ones beside it."""
    (short_folder / "a").mkdir()
    server = world.cameras({"/healthy": {"fps": 5}})
    lab = Lab(short_folder / "a", world.origin_s, ports=(free_port(), free_port()))
    with server, lab:
        lab.put(HEALTHY, server.url("/healthy"))
        lab.start()
        lab.witness.next(HEALTHY, 0, limit_s=90)
        yield lab


@pytest.fixture(scope="session")
def story(world: World, short_folder: Path) -> Iterator[Story]:
    """Started with the first fault test that asks for it or for `lab`; most of it is waiting."""
    (short_folder / "b").mkdir()
    with world.cameras({"/story": {"offset": STORY_OFFSET, "fps": 5}}) as server:
        story = Story(short_folder / "b", server, world.origin_s)
        story.start()
        yield story
        story.join()


@pytest.fixture
def record() -> Record:
    """Writes a row of the table, with what the others noticed; a test calls it when its promise held."""

    def write(row: Row, others: str) -> None:
        record_row(dataclasses.replace(row, others=others))

    return write


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def os_is_ci() -> bool:
    return os.environ.get("CI") == "true"
