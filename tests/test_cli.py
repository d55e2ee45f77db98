"""The command line: every failure is one line on stderr with its exit code, and help needs nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.cli.failure import CommandFailed, told
from stream.config import Config

COMMANDS = (
    "run", "prompt", "camera", "status", "view", "subscribe", "replay", "demo", "weights list", "weights pull",
    "config check", "segment", "evaluate", "finetune", "train-nano",
)  # fmt: skip

Outcome = tuple[int, str, str]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """In place of the real daemon, one that notes its configuration and ends with code 3."""
    seen: list[Config] = []

    class Daemon:
        def __init__(self, config: Config, *, file: Path | None = None) -> None:
            seen.append(config)

        def run(self) -> int:
            return 3

    module = types.ModuleType("stream.daemon")
    module.Daemon = Daemon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stream.daemon", module)
    return seen


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Callable[..., Outcome], command: str) -> None:
    code, out, err = call(*command.split(), "--help")
    assert (code, err) == (0, "") and "Usage:" in out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        ("frobnicate", 2, "No such command 'frobnicate'"),
        ("run", 2, "SOURCE"),
        ("run 0 --random-weights 3", 2, "No such option: --random-weights"),
        ("run none.mp4", 2, "SOURCE = 'none.mp4': expected an existing file"),
        ("run 0 --point 1;2", 2, "--point = '1;2': expected x,y"),
        ("run 0 --bind tcp://0.0.0.0:1", 2, "--bind = 'tcp://0.0.0.0:1': expected a loopback address"),
        ("run 0 --model sam9", 2, "--model = 'sam9': expected one of nano"),
        ("run 0 --pace fast", 2, "--pace = 'fast': expected one of live, offline"),
        ("run c.toml --device cpu", 2, "--device beside c.toml: expected all settings in the configuration file"),
        ("run c.toml --point 1,2", 2, "beside c.toml: expected all settings"),
        ("run c.toml", 78, "c.toml: No such file or directory: expected a readable TOML file"),
        ("config check c.toml", 78, "c.toml: No such file or directory: expected a readable TOML file"),
        ("weights path sam9", 1, "'sam9': no such model, expected one of nano"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    call: Callable[..., Outcome], arguments: str, exit_code: int, text: str
) -> None:
    code, out, err = call(*arguments.split())
    assert code == exit_code and text in err and out == ""
    assert err.count("\n") == 1 and err.startswith("sam2-stream: ")


def test_run_hands_its_options_to_the_daemon(call: Callable[..., Outcome], daemon: list[Config]) -> None:
    options = (
        "--point 3:4,5 --label 3:cup --model sam2.1-hiera-tiny --device cpu --dtype fp32 --bind ipc:///tmp/x --loop"
    )
    assert call("run", "testsrc://", *options.split(), "--name", "a")[0] == 3  # the daemon's exit code is ours
    (config,) = daemon
    (camera,) = config.cameras
    assert (config.model, config.device, config.dtype, config.bind) == (
        "sam2.1-hiera-tiny",
        "cpu",
        "fp32",
        ("ipc:///tmp/x",),
    )
    assert (camera.name, camera.loop, camera.prompts[0].object_id, camera.prompts[0].label) == ("a", True, 3, "cup")


def test_run_reads_a_configuration_file(call: Callable[..., Outcome], daemon: list[Config], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[[camera]]\nname = "door"\nsource = "0"\n')
    assert call("run", str(tmp_path / "c.toml"))[0] == 3
    assert [camera.name for camera in daemon[0].cameras] == ["door"]


def test_config_check_says_what_a_file_holds_but_no_password(call: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[[camera]]\nname = "door"\nsource = "rtsp://joe:geheim@host/1"\n')
    code, out, err = call("config", "check", str(path))
    assert code == 0 and err == "" and "camera door: rtsp://***@host/1" in out and "geheim" not in out
    path.write_text("colour = 1")
    assert call("config", "check", str(path))[0] == 78


def test_a_missing_package_names_the_extra(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "engines.weights", raising=False)
    code, _, err = call("weights", "list")
    assert code == 1 and "needs the package torch" in err and "pip install 'sam2-stream[daemon]'" in err


def test_only_named_exceptions_are_told() -> None:
    with pytest.raises(CommandFailed, match="no such thing"), told(KeyError, OSError):
        raise OSError("no such thing")
    with pytest.raises(ValueError, match="a bug"), told(KeyError):
        raise ValueError("a bug")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from stream.cli import main; main(['run', '--help']);"
        "sys.exit(', '.join({'torch', 'cv2', 'av', 'sam2', 'zmq'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
