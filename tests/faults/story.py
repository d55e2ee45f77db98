"""The story of a daemon whose objects are saved: killed, started again, its disk full. It has a thread of its own.

It consists of waits for the saver (every 10 s), so it runs beside the other fault tests, in the thread `story`.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import scene
from faults.camera import CameraServer
from faults.lab import Lab
from stream.client import MasksMessage
from stream.controller import Controller

CAMERA = "story"
OFFSET = 20000
LIMIT_S = 100.0


class Story:
    """Chapters by name; `result` waits for one and gives what it told, or raises what went wrong."""

    def __init__(self, folder: Path, server: CameraServer, origin_s: float) -> None:
        self._folder, self._server, self._origin_s = folder, server, origin_s
        self._told: dict[str, dict[str, Any]] = {}
        self._error: BaseException | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="story", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(LIMIT_S)

    def result(self, chapter: str) -> dict[str, Any]:
        with self._news:
            if not self._news.wait_for(lambda: chapter in self._told or self._error is not None, LIMIT_S):
                raise AssertionError(f"chapter {chapter!r} did not end within {LIMIT_S} s")
        if chapter not in self._told and self._error is not None:
            raise self._error
        return self._told[chapter]

    def _run(self) -> None:
        try:
            with small_disk(self._folder / "state") as is_small:
                self._live(self._folder / "state", is_small=is_small)
        except BaseException as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _tell(self, chapter: str, **told: Any) -> None:
        with self._news:
            self._told[chapter] = told
            self._news.notify_all()

    def _live(self, disk: Path, *, is_small: bool) -> None:
        lab = Lab(self._folder, self._origin_s, head=f'state = "{disk}"\n')
        with lab:
            lab.put(CAMERA, self._server.url("/story"), offset=OFFSET)
            lab.start()
            lab.witness.next(CAMERA, 0, limit_s=LIMIT_S)
            self._be_killed(lab, disk)
            if is_small:
                self._fill(lab, disk)
            else:
                self._tell("full")

    def _be_killed(self, lab: Lab, disk: Path) -> None:
        with Controller(lab.control_endpoint, timeout_s=20) as controller:
            reply = controller.add(CAMERA, points=[scene.CLICKS[1]], label="added")
        assert reply.object_id == 1, reply
        added_s = time.time()
        file = disk / "objects.state"
        wait(lambda: file.exists() and file.stat().st_mtime > added_s, "the objects are saved")
        before = lab.witness.last(CAMERA).masks
        assert labels(before) == {1: "added", 2: ""}
        lab.kill()
        killed_s = time.monotonic()
        lab.start()
        seen = lab.witness.next(CAMERA, killed_s, num=20, limit_s=LIMIT_S)
        assert all(labels(sighting.masks) == {1: "added", 2: ""} for sighting in seen)
        assert {sighting.masks.epoch for sighting in seen} == {before.epoch + 1}
        lab.check(CAMERA, killed_s)
        lost = lab.num_lost(CAMERA, killed_s, step=2)
        self._tell("killed", recovered_s=seen[0].received_s - killed_s, lost=lost)

    def _fill(self, lab: Lab, disk: Path) -> None:
        file, filler, start_s = disk / "objects.state", disk / "filler", time.monotonic()
        fill(filler)
        saved = file.read_bytes()
        with Controller(lab.control_endpoint, timeout_s=20) as controller:
            controller.rename(CAMERA, 1, label="renamed")
        wait(lambda: num_said(lab) > 0, "the full disk is said")
        assert num_said(lab) == 1
        full_s = time.monotonic()
        lab.witness.next(CAMERA, full_s, num=10)
        assert file.read_bytes() == saved, "the last good file stays"
        filler.unlink()
        free_s = time.monotonic()
        wait(lambda: file.read_bytes() != saved, "the objects are saved again")
        recovered_s = time.monotonic() - free_s
        others = lab.check_others(start_s, CAMERA).replace("healthy", "its")
        self._tell("full", recovered_s=recovered_s, others=others)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of a few megabytes; False where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "sam2-stream-faults", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Until not one byte is left."""
    with file.open("wb", buffering=0) as output:
        for size in (65536, 1):
            while room(file.parent) and write(output.fileno(), size):
                continue


def room(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_bsize


def write(fileno: int, size: int) -> bool:
    try:
        return os.write(fileno, b"\0" * size) > 0
    except OSError:
        return False


def labels(message: MasksMessage) -> dict[int, str]:
    return {item.id: item.label for item in message.objects}


def num_said(lab: Lab) -> int:
    return lab.log.read_text(encoding="utf-8").lower().count("no space left")


def wait(is_so: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        pause.wait(0.1)
