"""The machine: torch, the GPU and its driver, decoders, the clock, shared memory.

Owns: nothing. Runs in whichever thread calls it. Never: changes the machine; on a GPU it multiplies two small matrices.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from stream.capture import nvdec as gpu_decoder
from stream.capture.probe import decoders, library
from stream.config import Config
from stream.doctor.clock import clock
from stream.doctor.finding import Finding, Verdict, broken, note, ok

DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = Path("/proc/devices")
SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = 64 << 20
NEEDED_CODECS = ("h264", "hevc", "mjpeg")
INSTALL_NVDEC = ".venv/bin/pip install PyNvVideoCodec"
REINSTALL = "make clean && env -u PIP_EXTRA_INDEX_URL make install  # brings a torch for CUDA"


def machine(config: Config) -> Iterator[Finding]:
    """Everything that does not depend on cameras."""
    yield ok("python", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} processors")
    yield from gpu(config)
    yield _decoders()
    yield from nvdec(config)
    yield clock()
    yield shared_memory(SHARED_MEMORY)


def gpu(config: Config) -> Iterator[Finding]:
    """Whether the model can be where the configuration wants it."""
    wanted = config.device.startswith("cuda") or (config.device == "auto" and not config.allow_cpu)
    bad = Verdict.BROKEN if wanted else Verdict.NOTE
    if torch.version.cuda:
        yield ok("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda}")
    else:
        verdict = bad if wanted else Verdict.OK
        yield Finding("torch", verdict, f"{torch.__version__}, built for CPUs", (REINSTALL,) if wanted else ())
    has_cuda = torch.cuda.is_available()
    yield _driver(Verdict.NOTE if has_cuda else bad)
    if has_cuda:
        yield _try_gpu(int(config.device.partition(":")[2] or 0) if config.device.startswith("cuda") else 0)
    elif (found := cuda_version()) and torch.version.cuda and is_too_old(found, torch.version.cuda):
        text = f"the driver knows CUDA {found[0]}.{found[1]}, and torch is built for {torch.version.cuda}"
        yield Finding(
            "gpu", bad, f"{text}: the driver is too old", ("nvidia-smi", "sudo apt-get install nvidia-driver")
        )
    elif wanted:
        fixes = "nvidia-smi", 'device = "cpu"  # or allow_cpu = true, in the configuration'
        yield broken("gpu", f"torch finds none, and device is {config.device!r}", *fixes)
    else:
        yield note("gpu", "torch finds none: the CPU does the work")


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver knows; None without a driver."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return None if failed or not version.value else (version.value // 1000, version.value % 1000 // 10)


def is_too_old(driver: tuple[int, int], built_for: str) -> bool:
    """A driver runs what was built for its own major version, whatever the minor one, and for older ones."""
    return driver[0] < int(built_for.partition(".")[0])


def _try_gpu(index: int) -> Finding:
    try:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        square = torch.eye(64, device=f"cuda:{index}", dtype=torch.float16)
        is_right = bool((square @ square == square).all().item())
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        return broken("gpu", f"cuda:{index} fails: {reason}", "nvidia-smi", "sudo dmesg | grep -i xid")
    name = f"cuda:{index} {properties.name} (sm_{properties.major}{properties.minor})"
    if not is_right:
        return broken("gpu", f"{name} computes wrongly", "nvidia-smi -q -d ECC", "sudo dmesg | grep -i xid")
    return ok("gpu", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")


def _driver(bad: Verdict) -> Finding:
    """`bad` is what its absence means."""
    fixes = ("lspci | grep -i nvidia", "sudo apt-get install nvidia-driver && sudo reboot")
    if not DRIVER.exists():
        text = f"no NVIDIA driver is loaded ({DRIVER} is not there)"
        return Finding("driver", bad, text, fixes if bad is Verdict.BROKEN else ())
    found = re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", DRIVER.read_text(encoding="utf-8", errors="replace"))
    version = found[1] if found else "of unknown version"
    if "nvidia-uvm" in DEVICES.read_text(encoding="utf-8"):
        return ok("driver", f"NVIDIA {version}")
    text = f"NVIDIA {version}, but its module nvidia-uvm, which CUDA needs, is not loaded"
    at_boot = "echo nvidia-uvm | sudo tee /etc/modules-load.d/nvidia-uvm.conf"
    return Finding("driver", bad, text, ("sudo modprobe nvidia-uvm && sudo nvidia-modprobe -u -c 0", at_boot))


def _decoders() -> Finding:
    known = decoders()
    text = f"{library()} decodes " + ", ".join(name for name, is_there in known.items() if is_there)
    missing = [name for name in NEEDED_CODECS if not known[name]]
    if missing:
        return broken("decoder", f"{text}; not {', '.join(missing)}", ".venv/bin/pip install --force-reinstall av")
    return ok("decoder", f"{text}, on the CPU")


def nvdec(config: Config) -> Iterator[Finding]:
    """The GPU's decoder, where there is a GPU, or a camera wants it by name."""
    wanting = [camera.name for camera in config.cameras if camera.decoder == "nvdec"]
    if getattr(gpu_decoder, "PyNvVideoCodec", None) is not None:
        version = importlib.metadata.version("PyNvVideoCodec")
        yield ok("nvdec", f"PyNvVideoCodec {version}: network streams are decoded on the GPU where that gives the same")
    elif wanting:
        text = f"camera {', '.join(wanting)}: decoder is 'nvdec', and PyNvVideoCodec is missing or finds no driver"
        yield broken("nvdec", text, INSTALL_NVDEC, 'decoder = "auto"  # below [[camera]] in the configuration')
    elif torch.cuda.is_available():
        yield note("nvdec", "PyNvVideoCodec is missing: the CPU decodes all cameras", INSTALL_NVDEC)


def shared_memory(folder: Path) -> Finding:
    """A container's default is 64 MB, all of which other programs may use."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return note("shared memory", f"{folder}: {error.strerror}")
    text = f"{usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB of {folder} free"
    if usage.free < MIN_SHARED_BYTES:
        return note("shared memory", text, f"df -h {folder}", "docker run --shm-size=1g ...")
    return ok("shared memory", text)
