"""The doctor on the clock and on the driver: what other programs say is read as they say it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stream.config import CameraConfig, Config
from stream.doctor import Verdict, clock, machine
from stream.doctor.machine import is_too_old

TRACKING = """\
Reference ID    : C0A80001 (192.168.0.1)
Stratum         : 3
Ref time (UTC)  : Sun Nov 22 19:00:00 2026
System time     : 0.000012345 seconds fast of NTP time
Last offset     : +0.000001234 seconds
Leap status     : {leap}
"""


def say(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """A `chronyc` in front of the path."""
    path = folder / "chronyc"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def no_other_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel and systemd say nothing."""
    monkeypatch.setattr(clock, "kernel", lambda: ("", False))
    monkeypatch.setattr(clock, "TIMESYNCD", Path("/nonexistent"))


@pytest.mark.parametrize(
    ("leap", "verdict"), [("Normal", Verdict.OK), ("Insert second", Verdict.OK), ("Not synchronised", Verdict.NOTE)]
)
def test_chrony_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_other_clock: None, leap: str, verdict: Verdict
) -> None:
    (tmp_path / "told").write_text(TRACKING.format(leap=leap))
    say(tmp_path, monkeypatch, f"cat {tmp_path}/told")
    found = clock.clock()
    assert found.verdict is verdict and leap in found.text and "0.000012345 seconds fast" in found.text


@pytest.mark.parametrize(
    "program", ["exit 1", "echo '506 Cannot talk to daemon'; exit 1", "exec sleep 60", "printf '\\377'"]
)
def test_a_chrony_that_does_not_run_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_other_clock: None, program: str
) -> None:
    monkeypatch.setattr(clock, "ASK_LIMIT_S", 0.5)
    say(tmp_path, monkeypatch, program)
    assert clock.clock().verdict is Verdict.NOTE and clock.clock().fixes


def test_what_cannot_be_asked_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_other_clock: None) -> None:
    """As in a sandbox that forbids the call."""
    monkeypatch.setattr(clock, "kernel", lambda: ("Operation not permitted", False))
    say(tmp_path, monkeypatch, "exit 1")
    found = clock.clock()
    assert found.verdict is Verdict.UNKNOWN and "Operation not permitted" in found.text
    (tmp_path / "synchronized").touch()
    monkeypatch.setattr(clock, "TIMESYNCD", tmp_path / "synchronized")
    assert clock.clock().verdict is Verdict.OK


def test_the_kernel_can_be_asked_here() -> None:
    error, is_synchronised = clock.kernel()
    assert error == "" and isinstance(is_synchronised, bool)


def test_a_driver_runs_what_is_as_old_as_itself() -> None:
    assert is_too_old((12, 4), "13.0") and not is_too_old((12, 4), "12.9") and not is_too_old((13, 0), "12.6")


def test_a_driver_that_is_too_old_is_told_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has none: what it would say stands in for it."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU that works")
    assert machine.cuda_version() is None
    monkeypatch.setattr(machine, "cuda_version", lambda: (12, 2))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = {finding.subject: finding for finding in machine.gpu(Config(cameras=()))}
    assert found["gpu"].verdict is Verdict.BROKEN and "the driver is too old" in found["gpu"].text


def test_a_camera_that_wants_the_gpus_decoder_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.gpu_decoder, "PyNvVideoCodec", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    auto, wanting = CameraConfig("a", "rtsp://h/a"), CameraConfig("b", "rtsp://h/b", decoder="nvdec")
    assert list(machine.nvdec(Config(cameras=(auto,)))) == [], "there is no GPU to decode on"
    [found] = machine.nvdec(Config(cameras=(auto, wanting)))
    assert found.verdict is Verdict.BROKEN and found.text.startswith("camera b: ")
    assert found.fixes[0] == ".venv/bin/pip install PyNvVideoCodec"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    [missed] = machine.nvdec(Config(cameras=(auto,)))
    assert missed.verdict is Verdict.NOTE and missed.fixes == (".venv/bin/pip install PyNvVideoCodec",)
