"""Cameras that come, change and go while the daemon runs: by HUP and a new file, and by command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_rig import DaemonProcess, daemon

from stream.client import MasksMessage, StateMessage, Subscriber
from stream.controller import CommandRefused, Controller
from stream.status import CameraStatus, Status

LIMIT_S = 30.0
CAMERA = """[[camera]]
name = "{name}"
source = "testsrc://?width=160&height=120&fps={fps}&frames=10000"
{more}[[camera.prompt]]
object_id = {object_id}
points = [[80, 60, 1]]
"""


def camera(name: str, *, fps: int = 5, object_id: int = 1, more: str = "") -> str:
    return CAMERA.format(name=name, fps=fps, object_id=object_id, more=more)


class Site:
    """A running daemon, its file, and a controller."""

    def __init__(self, running: DaemonProcess, folder: Path) -> None:
        self.running, self.file = running, folder / "daemon.toml"
        self.head = self.file.read_text(encoding="utf-8").partition("[[camera]]")[0]
        self.controller = Controller(f"{running.endpoint}-control", timeout_s=LIMIT_S)

    def reload(self, text: str) -> None:
        self.file.write_text(self.head + text, encoding="utf-8")
        self.running.process.send_signal(signal.SIGHUP)

    def wait(self, is_so: Callable[[Status], bool]) -> Status:
        deadline = time.monotonic() + LIMIT_S
        while not is_so(status := self.controller.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        return status

    def camera(self, name: str) -> CameraStatus:
        return next(camera for camera in self.controller.status().cameras if camera.name == name)


def names(status: Status) -> list[str]:
    return [camera.name for camera in status.cameras]


def is_producing(status: Status, *cameras: str) -> bool:
    return set(cameras) <= {camera.name for camera in status.cameras if camera.num_published > 2}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with daemon(tmp_path, camera("a") + camera("b")) as running:
        site = Site(running, tmp_path)
        site.wait(lambda status: is_producing(status, "a", "b"))
        try:
            yield site
        finally:
            site.controller.close()


def test_hup_adds_removes_and_changes_cameras_without_touching_the_others(site: Site) -> None:
    before = site.controller.status()
    with Subscriber(site.running.endpoint, ["a"], newest_only=False, timeout_s=LIMIT_S) as subscriber:
        last = next(iter(subscriber))
        site.reload(camera("a") + camera("c"))
        status = site.wait(lambda status: names(status) == ["a", "c"] and is_producing(status, "c"))
        assert status.num_reloads == {"ok": 1, "refused": 0} and status.problem == ""
        for message in subscriber:  # what came meanwhile: no gap that the reload made
            assert message.epoch == last.epoch and message.seq == last.seq + 1 + message.num_dropped
            last = message
            if message.published_utc_ns > time.time_ns() - 500_000_000:
                break
    assert status.cameras[0].num_reconnects == before.cameras[0].num_reconnects


def test_other_settings_of_a_live_camera_keep_its_memory_and_its_numbers(site: Site, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/push"
    live = f'[[camera]]\nname = "live"\nsource = "push://live?bind={address}"\n'
    sender = subprocess.Popen([sys.executable, str(Path(__file__).with_name("push_example.py")), address, "100000"])
    try:
        site.reload(live)
        before = site.wait(lambda status: names(status) == ["live"] and is_producing(status, "live"))
        site.reload(live + "max_fps = 4\n")
        site.wait(lambda status: status.num_reloads["ok"] == 2)
        seq = site.camera("live").seq or 0
        after = site.wait(lambda status: (status.cameras[0].seq or 0) > seq + 3)
    finally:
        sender.kill()
        sender.wait()
    assert after.cameras[0].epoch == before.cameras[0].epoch
    assert (after.cameras[0].seq or 0) > (before.cameras[0].seq or 0) + 3


def test_other_objects_begin_a_new_epoch(site: Site) -> None:
    site.reload(camera("a") + camera("b", object_id=7))
    status = site.wait(lambda status: [item.id for item in status.cameras[1].objects] == [7])
    assert status.cameras[1].epoch >= 1 and status.cameras[0].epoch == 0
    assert [item.id for item in status.cameras[0].objects] == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[camera]\n", ("daemon.toml", "expected a TOML file")),
        ("colour = 1\n", ("colour", "expected one of the keys")),
        (camera("a", more="stall_s = 0\n"), ("stall_s", "seconds from 0.5")),
    ],
)
def test_a_bad_file_keeps_the_old_configuration_and_says_so_everywhere(
    site: Site, text: str, words: tuple[str, ...]
) -> None:
    with Subscriber(site.running.endpoint, ["a"], newest_only=False, timeout_s=LIMIT_S) as subscriber:
        next(iter(subscriber))
        site.reload(text)
        told = next(m for m in subscriber.messages() if isinstance(m, StateMessage) and m.problem)
    status = site.wait(lambda status: status.num_reloads["refused"] == 1)
    assert names(status) == ["a", "b"] and status.is_ready
    for said in (told.problem, status.problem, site.running.log.read_text(encoding="utf-8")):
        assert all(word in said for word in words) and "the old one stays" in said
    site.reload(camera("a") + camera("b"))
    assert site.wait(lambda status: status.num_reloads["ok"] == 1).problem == ""


def test_what_needs_a_restart_is_told(site: Site) -> None:
    site.head = site.head + "jpeg_quality = 50\n"
    site.reload(camera("a") + camera("b"))
    assert "restart is needed for: jpeg_quality" in site.wait(lambda status: status.problem != "").problem


def test_a_camera_that_was_removed_and_comes_back_goes_on_above_its_numbers(site: Site) -> None:
    with Subscriber(site.running.endpoint, newest_only=False, timeout_s=LIMIT_S) as subscriber:
        first = next(m for m in subscriber if m.camera == "b")
        site.controller.remove_camera("b")
        site.wait(lambda status: names(status) == ["a"])
        site.reload(camera("a") + camera("b"))
        again = next(m for m in subscriber if m.camera == "b" and m.epoch > first.epoch)
    assert again.serial > first.serial and (again.epoch, again.seq) > (first.epoch, first.seq)


def test_cameras_are_added_paused_resumed_and_removed_by_command(site: Site) -> None:
    control = site.controller
    with pytest.raises(CommandRefused, match="testsrc"):
        control.add_camera("c", "testsrc://?fps=5")  # not one of wire_schemes
    with pytest.raises(CommandRefused, match="there is a camera 'a' already"):
        control.add_camera("a", "rtsp://127.0.0.1:9/x")
    control.add_camera("c", "rtsp://joe:se%2Fcret@127.0.0.1:9/x")
    status = site.wait(lambda status: names(status) == ["a", "b", "c"])
    assert status.cameras[2].condition == "offline" and "cret" not in repr(status) and "joe" not in repr(status)
    site.reload(camera("a") + camera("b", more="max_fps = 4\n"))
    assert "c" in names(site.wait(lambda status: status.num_reloads["ok"] == 1)), "HUP leaves it alone"
    control.pause_camera("a")
    status = site.wait(lambda status: status.cameras[0].condition == "paused")
    assert control.pause_camera("a").note
    control.resume_camera("a")
    before = status.cameras[0].num_published
    site.wait(lambda status: status.cameras[0].num_published > before + 2)
    assert [item.id for item in site.camera("a").objects] == [1], "its objects were kept"
    control.remove_camera("c")
    assert names(control.status()) == ["a", "b"]
    with pytest.raises(CommandRefused, match="expected one of: a, b"):
        control.remove_camera("c")


def test_a_daemon_without_cameras_waits_for_commands(tmp_path: Path) -> None:
    with daemon(tmp_path, "") as running, Controller(f"{running.endpoint}-control", timeout_s=LIMIT_S) as control:
        status = control.status()
        assert status.cameras == ()
        code, _ = running.end()
        assert code == 0


def test_a_file_that_is_gone_is_told_and_changes_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, camera("a")) as running:
        site = Site(running, tmp_path)
        site.wait(lambda status: is_producing(status, "a"))
        (tmp_path / "daemon.toml").unlink()
        running.process.send_signal(signal.SIGHUP)
        status = site.wait(lambda status: status.num_reloads["refused"] == 1)
        site.controller.close()
        assert "daemon.toml" in status.problem
        with Subscriber(running.endpoint, ["a"], timeout_s=LIMIT_S) as subscriber:
            assert isinstance(next(iter(subscriber)), MasksMessage)
