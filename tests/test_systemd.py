"""systemd/: the unit, as systemd checks it and as a test plays it, and the example configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unit_rig import EXAMPLE, PROGRAM, UNIT, environment, service, settings

from stream.client import Subscriber
from stream.config import Config, load_config
from stream.config.load import _CAMERA, _PROMPT, _TOP, ENHANCE, REFINE
from stream.keys.ring import server_path

MAX_EXPOSURE = 2.0  # of 10; 1.6 with systemd 252
CAMERA = '[[camera]]\nname = "{}"\nsource = "testsrc://?width=320&height=240&fps=10&seed=1"\n'
CONFIG = 'bind = ["ipc://RUN/masks"]\ndevice = "cpu"\n' + CAMERA.format("first")


def checked_by_systemd(folder: Path) -> Path:
    """The unit, with a program that is there."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, str(shutil.which("true"))), encoding="utf-8")
    return unit


def analyze(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of systemd-analyze, and all that it says."""
    found = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, needs_apt: Callable[..., None]) -> None:
    needs_apt("systemd")
    unit = checked_by_systemd(tmp_path)
    assert analyze("verify", "--man=no", "--recursive-errors=no", unit) == (0, "")
    unit.write_text(unit.read_text(encoding="utf-8") + "\n[Service]\nRestrt=no\n", encoding="utf-8")
    code, said = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert code != 0 and "Restrt" in said, "a wrong line is found"


def test_the_service_can_do_little_to_the_machine(tmp_path: Path, needs_apt: Callable[..., None]) -> None:
    needs_apt("systemd")
    code, said = analyze("security", "--offline=yes", "--no-pager", checked_by_systemd(tmp_path))
    figure = re.search(r"exposure level for sam2-stream.service: ([\d.]+)", said)
    assert code == 0 and figure is not None and float(figure[1]) <= MAX_EXPOSURE, said


def test_the_sandbox_leaves_gpu_webcams_and_compilers_alive() -> None:
    unit = settings()
    for key in ("PrivateDevices", "MemoryDenyWriteExecute", "PrivateUsers", "PrivateNetwork", "DynamicUser"):
        assert unit.get(key, ["no"]) == ["no"], key
    assert unit["ProcSubset"] == ["all"] and unit["DevicePolicy"] == ["closed"]
    assert {"char-nvidia* rw", "char-video4linux rw"} <= set(unit["DeviceAllow"])
    assert {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"} == set(unit["RestrictAddressFamilies"][0].split())
    assert unit["SystemCallFilter"] == ["@system-service", "~@privileged"] and unit["SystemCallErrorNumber"] == [
        "EPERM"
    ]
    assert unit["SupplementaryGroups"] == ["video"]


def test_the_unit_s_placeholder_for_a_key_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", variables["CREDENTIALS_DIRECTORY"])
    copy = Path(variables["CREDENTIALS_DIRECTORY"], "server.key")
    assert copy.exists() and server_path(tmp_path) == tmp_path / "server.key"
    copy.chmod(0o600)
    copy.write_text("public = 'x'\n", encoding="utf-8")
    assert server_path(tmp_path) == copy


def test_the_example_configuration_is_right_and_tells_every_key(tmp_path: Path) -> None:
    assert load_config(EXAMPLE).bind[0] == "ipc:///run/sam2-stream/masks"
    text = EXAMPLE.read_text(encoding="utf-8")
    for key in {*_TOP, *_CAMERA, *_PROMPT, *REFINE, *ENHANCE} - {"camera", "prompt"}:
        setting = re.search(rf"^(#?{key} = |\[camera\.{key}\]$)", text, re.MULTILINE)
        assert setting is not None, f"{key} is not explained"
    for name in ("model.pt", "gate.png", "recorded.mp4"):
        (tmp_path / name).touch()
    whole = tmp_path / "whole.toml"
    whole.write_text(re.sub(r"^#(?! |$)", "", text, flags=re.MULTILINE), encoding="utf-8")
    config = load_config(whole)
    assert [camera.name for camera in config.cameras] == ["door", "bench", "recorded"]
    assert config.cameras[0].credential == "camera_door" and len(config.cameras[0].prompts) == 3


def test_the_example_tells_the_true_defaults() -> None:
    """What stands there without "#" is the default, but for what a service wants otherwise."""
    config, default = load_config(EXAMPLE), Config(cameras=())
    keys = set(_TOP) - {"camera", "bind", "control", "http"}
    assert {key: getattr(config, key) for key in keys} == {key: getattr(default, key) for key in keys}
    camera = config.cameras[0]
    keys = set(_CAMERA) - {"name", "source", "prompt"}
    plain = type(camera)(name=camera.name, source=camera.source)
    assert {key: getattr(camera, key) for key in keys} == {key: getattr(plain, key) for key in keys}


def test_the_unit_and_the_daemon_agree_on_exit_codes() -> None:
    from stream import daemon  # heavy: torch

    never_again = {int(code) for code in settings()["RestartPreventExitStatus"][0].split()}
    assert never_again == {daemon.EXIT_CONFIG, 2}
    assert never_again.isdisjoint({daemon.EXIT_FAILURE, daemon.EXIT_NO_GPU, daemon.EXIT_GPU_LOST, daemon.EXIT_STUCK})
    assert settings()["Restart"] == ["on-failure"]


def test_the_service_starts_lives_reloads_and_stops_as_systemd_wants_it(tmp_path: Path) -> None:
    with service(tmp_path, CONFIG, watchdog_s=2.0) as running:
        systemd = running.systemd
        running.wait_for("READY=1")
        assert "STATUS=" in " ".join(systemd.said)
        running.wait_for("WATCHDOG=1")
        with Subscriber(f"ipc://{tmp_path}/run/sam2-stream/masks", timeout_s=60) as reader:
            assert reader.receive() is not None
        running.config.write_text(running.config.read_text() + CAMERA.format("second"), encoding="utf-8")
        systemd.said.clear()
        running.reload()
        running.wait_for("READY=1")
        assert systemd.said.index("RELOADING=1") < systemd.said.index("READY=1")
        running.wait_for("STATUS=nano, 2 of 2 cameras")
        running.wait_for("WATCHDOG=1")
        assert running.stop() == 0, running.log.read_text()
        systemd.wait_for("STOPPING=1", 5)


def test_a_wrong_configuration_is_not_tried_again(tmp_path: Path) -> None:
    with service(tmp_path, "oops = 1\n", watchdog_s=2.0) as running:
        code = running.process.wait(60)
        assert str(code) in settings()["RestartPreventExitStatus"][0].split()
        assert running.log.read_text().count("\n") == 1 and "oops" in running.log.read_text()
        assert running.systemd.hear(0.2) == []
