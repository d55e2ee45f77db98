"""Which device and number format to run on: names from a configuration to torch objects.

Owns: the defaults, and `OptionError`. Any thread. Never: allocates on a device.
"""

from __future__ import annotations

import os
import re

import torch


class GpuMissing(RuntimeError):
    """The daemon is meant to run on a GPU and there is none; the text says what was found and what to do."""


class DeviceLost(RuntimeError):
    """The GPU failed in a way that only a new process can mend; the text is CUDA's."""


class OptionError(ValueError):
    """An option that cannot work here; the text names it, its value and what was expected."""


SMALL_IMAGE_SIZE = 256  # pixels
# CUDA errors after which the process can go on using the device; all others stay until it ends
_PASSING_ERRORS = (
    "out of memory", "invalid argument", "invalid configuration argument", "invalid device ordinal",
    "invalid device function", "invalid resource handle", "no kernel image is available",
    "too many resources requested", "peer access", "STATUS_ALLOC_FAILED", "STATUS_NOT_SUPPORTED",
)  # fmt: skip
_LIBRARY_ERRORS = re.compile(r"\b(CUDNN|CUBLAS|CUFFT|CUSOLVER)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`; auto takes CUDA where there is one. Raises `OptionError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise OptionError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            f"device is {name!r}, but torch {torch.__version__} finds no CUDA device; expected cpu or a working GPU"
        )
    return device


def check_gpu(name: str, *, allow_cpu: bool) -> None:
    """Raise `GpuMissing` where device `auto` would quietly become a CPU, or a named GPU is not there.

    `cpu` by name is what the user wants; `allow_cpu` makes `auto` take what there is.
    """
    if name == "cpu" or (name == "auto" and allow_cpu) or torch.cuda.is_available():
        return
    build = "a build for CPUs" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
    expected = "expected a GPU with its driver, --device cpu, or --allow-cpu (allow_cpu = true)"
    raise GpuMissing(f"device is {name!r}, but torch {torch.__version__} ({build}) finds no GPU; {expected}")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`, `fp32`, `bf16` or `fp16`.

    auto: fp16 on CUDA, bf16 on a CPU that multiplies it in hardware (AMX or AVX512-BF16), else fp32.
    Raises `OptionError`.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else _cpu_dtype()
    if name not in _DTYPES:
        raise OptionError(f"dtype is {name!r}; expected auto, {', '.join(_DTYPES)}")
    if _DTYPES[name] is torch.float16 and device.type == "cpu":
        raise OptionError("dtype is 'fp16' on a CPU, where it is emulated; expected auto, fp32 or bf16")
    return _DTYPES[name]


def is_device_lost(error: BaseException) -> bool:
    """Whether this is a sticky CUDA error: every later call to the device would fail as well.

    An exhausted memory is none: what asked for it fails, and the device goes on.
    """
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    text = str(error)
    if not re.search(r"CUDA (driver )?error|Triton Error \[CUDA\]", text):
        return _LIBRARY_ERRORS.search(text) is not None
    return not any(passing in text.partition("\n")[0] for passing in _PASSING_ERRORS)


def limit_cpu_threads(device: torch.device, image_size: int) -> None:
    """Give a small model on a CPU one thread of torch, unless OMP_NUM_THREADS says otherwise.

    Two are no faster at 192 pixels (27 against 28 ms a step), and the cameras need the other core.
    """
    if device.type == "cpu" and image_size <= SMALL_IMAGE_SIZE and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _cpu_dtype() -> torch.dtype:
    abilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 does not have it
    fast = any(abilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32
