"""`Library`: one of NVIDIA's two TensorRT libraries, behind one set of names.

Owns: which modules are tried, the one logger that a library gets for the life of the process, and what identifies a
GPU. Any thread. Never: builds or runs anything, needs a GPU to be loaded, or imports a module that was not asked for.

TensorRT 10, TensorRT 11 and TensorRT-RTX have the same names for all that this package calls; what only some of them
have is asked for with `hasattr` at the one place that uses it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch

from engines.spec import BackendMissing

log = logging.getLogger(__name__)

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
# what `pip install tensorrt` and Jetson's packages bring, and the bindings alone
_MODULES: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_COMMANDS: dict[str, str] = {
    "tensorrt": "pip install 'sam2-stream[tensorrt]' (on a Jetson: apt-get install python3-libnvinfer)",
    "tensorrt-rtx": "pip install 'sam2-stream[tensorrt-rtx]'",
}
_FUSED_ATTENTION_SINCE = (10, 14)  # the ONNX parser's `Attention`
_MAX_WORDS = 20
_DRIVER_FILE = Path("/sys/module/nvidia/version")
_TORCH_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a plan belongs to."""

    name: str
    target: str  # the compute capability as builders call it: sm89
    driver: str


class Library:
    """TensorRT or TensorRT-RTX, loaded. `_errors` is written by the library's own threads, through the logger."""

    def __init__(self, name: LibraryName, module: ModuleType) -> None:
        self.name: LibraryName = name
        self.module: Any = module
        self.version = str(self.module.__version__)
        self._errors: deque[str] = deque(maxlen=_MAX_WORDS)
        self.logger = _make_logger(self.module, self._errors)

    @property
    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for without that GPU; empty where it needs the GPU itself."""
        kinds = getattr(self.module, "ComputeCapability", None)
        names = () if kinds is None else tuple(kinds.__members__)
        return tuple(name.lower() for name in names if name.startswith("SM"))

    @property
    def has_fused_attention(self) -> bool:
        """Whether its ONNX parser takes attention as one operator, which is then never built unfused."""
        if self.name == "tensorrt-rtx":
            return True
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return (major, minor) >= _FUSED_ATTENTION_SINCE

    def torch_dtype(self, dtype: Any) -> torch.dtype | None:
        """The same type in torch's words; None for those that no program has."""
        return _TORCH_DTYPES.get(dtype.name)

    def take_errors(self) -> str:
        """What it complained of since the last call, in its own words."""
        errors = [self._errors.popleft() for _ in range(len(self._errors))]
        return "; ".join(errors) or "no reason given"

    def check_gpu(self, gpu: Gpu | None) -> Gpu:
        """Raises `BackendMissing` where plans of this library cannot run on that GPU."""
        if gpu is None:
            raise BackendMissing(f"{self.name} needs an NVIDIA GPU and torch for CUDA; here torch sees none")
        if self.targets and gpu.target not in self.targets:
            known = ", ".join(self.targets)
            raise BackendMissing(f"{self.name} {self.version} does not know {gpu.name} ({gpu.target}), only {known}")
        return gpu


def load_library(name: LibraryName) -> Library:
    """The installed library, the same object at every call. Raises `BackendMissing` with the command to paste."""
    assert name in get_args(LibraryName), f"{name} is no TensorRT library"
    faults = []
    for module in _MODULES[name]:
        try:
            return _library(name, importlib.import_module(module))
        except (ImportError, OSError) as error:  # OSError: the bindings are there, their libraries are not
            faults.append(str(error).partition("\n")[0])
    raise BackendMissing(f"{name} is not installed ({'; '.join(faults)}): {_COMMANDS[name]}")


def find_gpu(device: torch.device) -> Gpu | None:
    """What stands behind a torch device; None for a CPU, or where torch has no CUDA."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return Gpu(torch.cuda.get_device_name(device), f"sm{major}{minor}", _driver_version())


@functools.cache
def _library(name: LibraryName, module: ModuleType) -> Library:
    """Cached, as the library keeps a bare pointer to the first logger that it is given."""
    return Library(name, module)


def _make_logger(module: Any, errors: deque[str]) -> Any:
    severities = module.ILogger.Severity

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                errors.append(message)
            elif severity == severities.WARNING:
                log.debug("%s", message)

    return Logger()


def _driver_version() -> str:
    """The kernel module's version; where it does not tell (Jetson, WSL), the CUDA version that the driver speaks."""
    if _DRIVER_FILE.exists():
        return _DRIVER_FILE.read_text(encoding="ascii").strip()
    number = ctypes.c_int()
    status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    assert status == 0, "torch talks to the driver, so its library is there"
    return f"cuda-{number.value // 1000}.{number.value % 1000 // 10}"
