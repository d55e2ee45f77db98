"""The base install is the light client: without torch, OpenCV and PyAV it installs, helps, subscribes and replays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from deliveries import FakeDelivery, publishing

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "torchvision", "cv2", "av", "sam2", "prometheus_client", "engines"}


def run(*command: str | Path, **options: object) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=100, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder of the working tree gets into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("stream", "engines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", target, source, cwd=target)
    (built,) = target.glob("sam2_stream-*.whl")
    return built


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that holds the base install and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    return folder / "bin"


def test_the_wheel_holds_both_packages_and_the_zoo(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [
        path for name in ("stream", "engines") for path in (ROOT / name).rglob("*") if "__pycache__" not in path.parts
    ]
    missing = {str(path.relative_to(ROOT)) for path in files if path.is_file()} - names
    assert not missing and {"stream/py.typed", "engines/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_the_environment_is_light(light: Path) -> None:
    code = f"import importlib.util as u, json; print(json.dumps([n for n in {sorted(HEAVY)} if u.find_spec(n)]))"
    assert set(json.loads(run(light / "python", "-c", code, cwd=light))) <= {"engines"}  # ours, but nothing loads it


def test_the_client_loads_nothing_heavy(light: Path) -> None:
    code = "import sys, stream.client, stream.controller as c; print(*{n.partition('.')[0] for n in sys.modules})"
    loaded = set(run(light / "python", "-c", code, cwd=light).split())
    assert "stream" in loaded and "zmq" in loaded and not loaded & HEAVY


@pytest.mark.parametrize("command", ["", "run", "prompt", "status", "subscribe", "replay", "view", "config"])
def test_help_works_without_the_extras(light: Path, command: str) -> None:
    assert "Usage:" in run(light / "sam2-stream", *command.split(), "--help", cwd=light)


def test_a_command_that_needs_more_names_the_extra(light: Path) -> None:
    done = subprocess.run([light / "sam2-stream", "weights", "list"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "needs the package" in done.stderr and "pip install 'sam2-stream[daemon]'" in done.stderr


def test_it_subscribes_records_and_replays(light: Path, tmp_path: Path) -> None:
    with publishing() as publisher:
        stopping = threading.Event()

        def feed() -> None:
            seq = 0
            while not stopping.wait(0.02):
                publisher.put_masks(FakeDelivery("a", seq, picture_hwc=np.zeros((48, 64, 3), np.uint8)))
                seq += 1

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            command = [light / "sam2-stream", "subscribe", publisher.endpoints[0], "--count", "5", "--json"]
            lines = run(*command, "--save", tmp_path / "a.masks", cwd=tmp_path).splitlines()
        finally:
            stopping.set()
            thread.join(5)
    messages = [json.loads(line) for line in lines]
    assert sum(message["topic"] == "masks/a" for message in messages) == 5
    bind = f"ipc://{tmp_path}/again"
    out = run(light / "sam2-stream", "replay", tmp_path / "a.masks", "--bind", bind, cwd=tmp_path)
    assert f"publishing on {bind}" in out and f"{len(lines)} messages sent" in out
