"""The emulator's signatures are those of the wheels: `tensorrt-cu13-bindings`, and that of TensorRT-RTX."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bindings.py"
# what the bindings take from the libraries that PyPI does not have; importing calls none of it
SYMBOLS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins", "getNvOnnxParserVersion"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
)


def compare(module: str, flavour: str, **environment: str) -> str:
    command = [sys.executable, str(SCRIPT), module, flavour]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_libraries(bindings: Path, folder: Path) -> None:
    """Empty libraries under the names that the bindings ask for."""
    binary = (bindings / "tensorrt.so").read_bytes()
    names = {name.decode() for name in re.findall(rb"lib(?:nvinfer|nvinfer_plugin|nvonnxparser)\.so\.\d+", binary)}
    assert len(names) == 3, names
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS), encoding="ascii")
    for name in names:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / name), str(source)], check=True)


@pytest.mark.parametrize(("flavour", "major"), [("tensorrt", "11."), ("tensorrt-10", "10.")])
def test_every_signature_is_that_of_tensorrts_bindings(
    tmp_path: Path, needs_apt: Callable[..., None], flavour: str, major: str
) -> None:
    if shutil.which("cc") is None:
        needs_apt("gcc", "libc6-dev")
    place = Path(sysconfig.get_path("purelib")) if flavour == "tensorrt" else Path(sys.prefix) / flavour
    make_libraries(place / "tensorrt_bindings", tmp_path)
    found = compare("tensorrt_bindings", flavour, LD_LIBRARY_PATH=str(tmp_path), PYTHONPATH=str(place))
    assert found.startswith(f"compared with {major}") and found.count("\n") == 1, found


def test_every_signature_is_that_of_tensorrt_rtxs_bindings() -> None:
    found = compare("tensorrt_rtx_bindings", "tensorrt-rtx")
    assert found == f"compared with {version('tensorrt-rtx-cu13-bindings')}\n"


def test_a_wrong_signature_would_be_seen() -> None:
    found = compare("tensorrt_rtx_bindings", "tensorrt")
    assert found.startswith("compared"), "all that is TensorRT's own is TensorRT-RTX's as well"
    wrong = compare("tensorrt_rtx_bindings", "tensorrt", EXTRA_SIGNATURE="Builder.create_network(flag: int) -> None")
    assert "Builder.create_network(flags: int = ...) -> INetworkDefinition" in wrong.partition("says")[2]
