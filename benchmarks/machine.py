"""What a benchmark was run on, for its JSON: hardware, versions, commit, load, and the ceiling of matrix products.

Also how a benchmark ends: `conclude`.

Run by every benchmark whose numbers stand in the README. Never: a name, address or path that tells whose machine it is.

    from benchmarks.machine import machine_facts    # after sys.path.insert(0, <the repository>)
    report = {"benchmark": "...", **machine_facts(), ...}
    conclude(report, options.save)
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
_MATRIX_SIZES = ((2048, 2048, 2048), (4096, 256, 8192), (4096, 1024, 4096))  # m, k, n
_GPU_MATRIX_SIZES = ((8192, 8192, 8192), (4096, 256, 28736))


def machine_facts() -> dict[str, Any]:
    """Keys that every result has: machine, processor, cores, threads, gpu, load, versions, commit, date."""
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": gpu(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def conclude(result: Mapping[str, Any], save: Path | None, *, indent: int | None = None) -> None:
    """Keep the result in a file, if one is asked for, and print it: the last line is one JSON object."""
    if save is not None:
        save.write_text(json.dumps(result, indent=indent) + "\n", encoding="utf-8")
    print(json.dumps(result))


def processor() -> str:
    """AMD EPYC (family 26, model 2; avx512_bf16)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    fields = dict(re.findall(r"^(model name|cpu family|model|flags)\s*:\s*(.*)$", text, re.MULTILINE))
    flags = fields.get("flags", "").split()
    fast = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags][:1]
    detail = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}; {', '.join(fast) or 'no AVX2'}"
    return f"{fields.get('model name', platform.machine()).strip()} ({detail})"


def gpu() -> str | None:
    """Name, compute capability and memory of the first CUDA device."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return f"{found.name} (sm{found.major}{found.minor}, {found.total_memory >> 30} GiB, CUDA {torch.version.cuda})"


def commit() -> str:
    """The short hash that was checked out; `+` where tracked files differ from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "stream", "engines", "benchmarks/*.py"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed.strip() else "")


def matmul_peak(dtype: torch.dtype, device: torch.device, *, seconds: float = 0.7) -> float:
    """GFLOP/s of the fastest of a few matrix products: what this machine gives to those who do nothing else.

    Each size is tried for so many seconds, but three times at least.
    """
    sizes = _GPU_MATRIX_SIZES if device.type == "cuda" else _MATRIX_SIZES
    return max(_product_rate(size, dtype, device, seconds) for size in sizes)


def _product_rate(size: Sequence[int], dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    m, k, n = size
    left, right = torch.randn(m, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype).T
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        synchronize(device)
        start = time.perf_counter()
        _ = left @ right
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2e-9 * m * k * n / min(times)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; on a CPU nothing is ever under way."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
