"""The fault laboratory as fixtures: one scene, one daemon with a healthy camera, and a recorder of the table's rows."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from conftest import missing_apt_packages
from rtsp import APT_PACKAGES

from faults import scene
from faults.camera import CameraServer
from faults.lab import HEALTHY, Lab
from faults.record import Row, record_row
from faults.story import OFFSET as STORY_OFFSET
from faults.story import Story

LOCKED = "locked"
LIMIT_S = 15.0  # of a recovery: five times what an idle machine takes


class Record(Protocol):
    """Writes a row of the table; what the others noticed; how long the recovery may take."""

    def __call__(self, row: Row, others: str, limit_s: float = LIMIT_S) -> None: ...


@dataclass(frozen=True)
class World:
    """What all cameras look at, and since when."""

    raw: Path
    origin_s: float

    def cameras(self, settings: dict[str, dict[str, Any]], **options: Any) -> CameraServer:
        return CameraServer(self.raw, self.origin_s, settings, **options)


@pytest.fixture(scope="package")
def short_folder() -> Iterator[Path]:
    """pytest's own are too long for an ipc socket."""
    folder = Path(tempfile.mkdtemp(prefix="s2f-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def world(short_folder: Path) -> World:
    missing = missing_apt_packages(APT_PACKAGES)
    if missing:
        reason = f"apt packages missing: {' '.join(missing)}"
        pytest.fail(reason) if os_is_ci() else pytest.skip(reason)
    return World(scene.write_raw(short_folder / "scene.i420"), time.monotonic())


@pytest.fixture(scope="package")
def lab(world: World, short_folder: Path) -> Iterator[Lab]:
    """A daemon with one healthy camera; tests put their faulty ones beside it."""
    (short_folder / "a").mkdir()
    server = world.cameras({"/healthy": {"fps": 5}})
    lab = Lab(short_folder / "a", world.origin_s, has_ports=True)
    with server, lab:
        lab.put(HEALTHY, server.url("/healthy"))
        lab.start()
        lab.witness.next(HEALTHY, 0, limit_s=90)
        yield lab
        lab.signal(signal.SIGTERM)
        assert lab.process.wait(30) == 0, "after all that, the daemon still ends as it should"
        assert "Traceback" not in lab.log.read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def locked(lab: Lab, world: World) -> Iterator[float]:
    """A camera that at first had another password than its URL; the moment when that was mended, at the camera."""
    with world.cameras({"/locked": {"offset": 30000, "fps": 2}}, login=("viewer", "other")) as server:
        lab.put(LOCKED, server.url("/locked").replace("rtsp://", "rtsp://viewer:right@"), offset=30000)
        lab.witness.wait_refused(LOCKED)
        server.kill()
        server.login = ("viewer", "right")
        server.start()
        yield time.monotonic()


@pytest.fixture(scope="package")
def story(world: World, short_folder: Path) -> Iterator[Story]:
    """Of a daemon that is killed, and whose disk is full."""
    (short_folder / "b").mkdir()
    with world.cameras({"/story": {"offset": STORY_OFFSET, "fps": 5}}) as server:
        story = Story(short_folder / "b", server, world.origin_s)
        story.start()
        yield story
        story.join()


@pytest.fixture(scope="package", autouse=True)
def early(request: pytest.FixtureRequest) -> None:
    """What takes a minute of waiting begins with the first test, where a test of this run asks for it."""
    for name in ("story", "locked"):
        if any(name in getattr(item, "fixturenames", ()) for item in request.session.items):
            request.getfixturevalue(name)


@pytest.fixture
def record() -> Record:
    """Writes a row of the table, with what the others noticed; a test calls it when its promise held."""

    def write(row: Row, others: str, limit_s: float = LIMIT_S) -> None:
        assert row.recovered_s is None or row.recovered_s < limit_s, row
        record_row(dataclasses.replace(row, others=others))

    return write


def os_is_ci() -> bool:
    return os.environ.get("CI") == "true"
