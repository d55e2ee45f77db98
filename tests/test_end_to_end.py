"""The whole daemon as its users meet it: real files, a real RTSP server, real processes, real sockets."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from daemon_rig import daemon, deliveries, mean_iou, prompts, write_clip
from rtsp import APT_PACKAGES, RtspServer

from engines.synthetic import ClipSpec
from stream.client import Subscriber

MOVING = ClipSpec(seed=3_000_000_326, num_frames=60, height=240, width=320, num_objects=2, speed=2.0)
SETTINGS = "frames_fps = 120\njpeg_quality = 90\n"


def camera(name: str, source: str, more: str = "") -> str:
    return f'[[camera]]\nname = "{name}"\nsource = "{source}"\n{more}'


def test_masks_of_a_file_belong_to_the_picture_they_come_with(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", MOVING)
    config = SETTINGS + camera("file", f"{tmp_path}/clip.mp4", 'pace = "offline"\n' + prompts(clip))
    with daemon(tmp_path, config) as running:
        found = deliveries(running.endpoint, MOVING.num_frames, limit_s=90)
        assert running.process.wait(20) == 0, running.log.read_text()
    numbers = [item.number for item in found]
    assert numbers == list(range(numbers[0], MOVING.num_frames)), "every picture once, in order, once we watch"
    assert len(numbers) >= 20, "the subscriber, which waited for the daemon, was there soon after the start"
    assert all(item.number == item.masks.seq for item in found)
    score = mean_iou(found, clip)
    assert score >= 0.70
    assert max(mean_iou(found, clip, shift=shift) for shift in (-3, 3)) <= score - 0.05


def test_masks_of_an_rtsp_camera_belong_to_the_picture_they_come_with(
    tmp_path: Path, needs_apt: Callable[..., None]
) -> None:
    needs_apt(*APT_PACKAGES)
    clip = write_clip(tmp_path / "clip.mkv", MOVING, codec="ffv1", fps=10)
    with RtspServer(tmp_path / "clip.mkv") as server:
        config = SETTINGS + camera("cam", server.url, prompts(clip))
        with daemon(tmp_path, config) as running:
            found = deliveries(running.endpoint, 40, limit_s=60)
    found = [item for item in found if item.masks.epoch == 0 and item.number is not None]
    again = [index for index in range(1, len(found)) if found[index].number < found[index - 1].number]
    found = found[: (again or [len(found)])[0]]  # the server gives every connection the clip from its start
    numbers = [item.number for item in found]
    assert len(numbers) >= 15 and numbers == sorted(set(numbers)), "pictures come in order, each once"
    score = mean_iou(found, clip)
    assert score >= 0.70
    assert max(mean_iou(found, clip, shift=shift) for shift in (-3, 3)) <= score - 0.05


def test_two_cameras_get_equal_shares(tmp_path: Path) -> None:
    click = "[[camera.prompt]]\nobject_id = 1\npoints = [[160, 120, 1]]\n"
    sources = ("testsrc://?width=320&height=240&fps=60&seed=1", "testsrc://?width=320&height=240&fps=60&seed=2")
    config = "".join(camera(f"cam{index}", source, click) for index, source in enumerate(sources))
    counts = {"cam0": 0, "cam1": 0}
    with daemon(tmp_path, config) as running, Subscriber(running.endpoint, newest_only=False, timeout_s=60) as reader:
        messages = iter(reader)
        while max(counts.values()) < 30:
            counts[next(messages).camera] += 1
    assert min(counts.values()) >= 0.8 * sum(counts.values()) / 2, counts


def test_a_stopped_subscriber_does_not_hold_up_another(tmp_path: Path) -> None:
    config = camera("cam", "testsrc://?width=320&height=240&fps=10")
    with daemon(tmp_path, config) as running:
        command = [sys.executable, "-m", "stream.cli", "subscribe", running.endpoint, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopped:
            try:
                assert stopped.stdout is not None and stopped.stdout.readline()
                stopped.send_signal(signal.SIGSTOP)
                with Subscriber(running.endpoint, ["cam"], newest_only=False, timeout_s=20) as reader:
                    messages = [message for message, _ in zip(reader, range(40), strict=False)]
            finally:
                stopped.kill()
    serials = [message.serial for message in messages]
    assert serials == list(range(serials[0], serials[0] + len(serials))), "the live reader lost nothing"
    assert max(message.published_ns - message.arrival_ns for message in messages) < 2e9


def test_a_late_joiner_learns_what_there_is(tmp_path: Path) -> None:
    with daemon(tmp_path, camera("cam", "testsrc://?width=320&height=240&fps=10")) as running:
        with Subscriber(running.endpoint, ["cam"], timeout_s=60) as early:
            assert next(iter(early)).seq >= 0
        with Subscriber(running.endpoint, timeout_s=20) as late:
            message = next(iter(late))
            deadline = time.monotonic() + 5
            while "cam" not in late.states and time.monotonic() < deadline:
                late.receive()
    assert message.camera == "cam" and len(message.objects) == 0
    assert late.info is not None and [item.name for item in late.info.cameras] == ["cam"]
    assert late.info.model == "nano"
    assert late.states["cam"].condition.value == "unprompted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_within_five_seconds(tmp_path: Path, number: signal.Signals) -> None:
    with daemon(tmp_path, camera("cam", "testsrc://?width=320&height=240&fps=10")) as running:
        with Subscriber(running.endpoint, ["cam"], timeout_s=60) as reader:
            next(iter(reader))
        code, seconds = running.end(number)
    assert code == 0 and seconds < 5, running.log.read_text()
    assert not (tmp_path / "d.sock").exists(), "the socket file is gone"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with daemon(tmp_path, camera("cam", "testsrc://?width=320&height=240&fps=10")) as running:
        with Subscriber(running.endpoint, ["cam"], timeout_s=60) as reader:
            next(iter(reader))
        running.process.send_signal(signal.SIGTERM)
        _, seconds = running.end(signal.SIGTERM)
    assert seconds < 2


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("{folder}/missing.mp4",), 2, ("missing.mp4",)),
        (("{folder}/text.mp4",), 78, ("text.mp4",)),
        (("testsrc://?width=320&height=240", "--point", "900,100"), 78, ("900", "320")),
        (("testsrc://", "--model", "sam3"), 2, ("sam3", "nano")),
        (("testsrc://", "--device", "tpu"), 2, ("tpu", "cuda")),
        (("testsrc://", "--checkpoint", "{folder}/text.mp4"), 1, ("text.mp4",)),
        (("testsrc://", "--bind", "tcp://0.0.0.0:5599"), 2, ("0.0.0.0",)),
        (("testsrc://", "--bind", "ipc:///nowhere/at/all.sock"), 1, ("/nowhere/at/all.sock",)),
    ],
)
def test_what_cannot_work_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    bind = () if "--bind" in arguments else ("--bind", f"ipc://{tmp_path}/d.sock")
    result = run_command(*(argument.format(folder=tmp_path) for argument in arguments), *bind, "--allow-cpu")
    assert result.returncode == code, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("sam2-stream:")]
    assert len(said) == 1 and all(word in said[0] for word in words), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_daemon_ends_with_a_code_that_is_worth_a_restart(tmp_path: Path) -> None:
    result = run_command("testsrc://", "--bind", f"ipc://{tmp_path}/d.sock")
    assert result.returncode == 69 and "finds no GPU" in result.stderr and "--allow-cpu" in result.stderr


BROKEN = """
import sys
import stream.loader as loader
from stream.config import config_from_flags, PromptFlags
from stream.daemon import Daemon
real = loader.Loader.load
def fail(frames):
    raise {error}
def broken(self):
    tracker = real(self)
    tracker.engine.encode = fail
    return tracker
loader.Loader.load = broken
options = {{"bind": [sys.argv[1]], "allow_cpu": True}}
config = config_from_flags("testsrc://?width=320&height=240", PromptFlags(("160,120",)), options=options)
sys.exit(Daemon(config).run())
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("ZeroDivisionError('a bug')", 1, "ZeroDivisionError"),
        ("RuntimeError('CUDA error: an illegal memory access was encountered')", 70, "an illegal memory access"),
    ],
)
def test_a_crashed_thread_ends_the_process_with_a_code_that_says_why(
    tmp_path: Path, error: str, code: int, said: str
) -> None:
    command = [sys.executable, "-c", BROKEN.format(error=error), f"ipc://{tmp_path}/d.sock"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code and said in result.stderr
    assert code == 70 or not (tmp_path / "d.sock").exists()


STUCK = """
import sys
from stream.capture import CameraFeeder, CameraStuck
from stream.config import config_from_flags, PromptFlags
from stream.daemon import Daemon
def check(self, now_ns):
    raise CameraStuck("camera 'a': 3 capture threads hang")
CameraFeeder.check = check
options = {"bind": [sys.argv[1]], "allow_cpu": True}
sys.exit(Daemon(config_from_flags("testsrc://?width=320&height=240", PromptFlags(), options=options)).run())
"""


def test_a_camera_whose_calls_never_come_back_ends_the_process_with_a_code_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK, f"ipc://{tmp_path}/d.sock"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 75 and "3 capture threads hang" in result.stderr
