"""How fast is memory attention alone? Every implementation that this machine has, at the shape of a full memory.

One head: 4,096 queries of 256 channels against 28,736 keys, values of 256 channels or, where an implementation takes
them (`Kernel.narrow_values`), of the memory's own 64: the same result after a projection, with 37 % fewer operations
here. GFLOP/s counts what an implementation multiplies, 2 n k (c + d); the ceiling is the fastest plain matrix product
measured in the same run, in the same dtype. Implementations take turns, so that a drifting machine hits all alike. One
that is wrong by more than 2 % of the largest value, or does not run, is named with its reason. The last line is one
JSON object.

    python benchmarks/attention.py [--device auto] [--batch 1 2 4 8] [--rounds 9] [--save FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import conclude, machine_facts, matmul_peak, synchronize
from engines.compiled.cpu_attention import Chunked
from engines.compiled.cpu_attention32 import Sliced32
from engines.compiled.cpu_linear import can_fuse
from engines.compiled.cuda_kernels import Fused, candidates, inputs_of, try_kernels
from engines.graphs import Kernel, Sdpa
from engines.spec import ModelSpec
from stream.device import resolve_device

SHAPE = ModelSpec(
    "shape of SAM 2 at 1024", image_size=1024, hidden_dim=256, memory_dim=64, num_memories=7, max_pointers=16
)
CPU_DTYPES, CUDA_DTYPES = (torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)
NAMES = {
    SDPBackend.MATH: "SDPA math", SDPBackend.FLASH_ATTENTION: "SDPA FlashAttention",
    SDPBackend.EFFICIENT_ATTENTION: "SDPA efficient", SDPBackend.CUDNN_ATTENTION: "SDPA cuDNN",
}  # fmt: skip


def name_of(kernel: Kernel) -> str:
    if isinstance(kernel, Chunked | Sliced32):
        name = "slices (ours)"
    elif isinstance(kernel, Fused):
        name = NAMES[kernel.backend]
    elif isinstance(kernel, Sdpa):
        name = "SDPA, PyTorch's choice"
    else:
        name = f"Triton {kernel} (ours)"
    island = "" if kernel.dtype is None else f", {kernel.dtype} inside".replace("torch.", "")
    return f"{name}{', narrow values' if kernel.narrow_values else ''}{island}"


def kernels_for(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    """Without an implementation that would stand there twice."""
    if device.type == "cpu":
        has_own = dtype is torch.float32 and can_fuse(dtype)
        return [Sdpa(), Sliced32() if has_own else Chunked(dtype)]
    return [*candidates(device, dtype), Fused(SDPBackend.MATH)]


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds until the work is done."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return (time.perf_counter() - start) * 1e3


def measure(dtype: torch.dtype, device: torch.device, *, batch: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each implementation that is right; those that are not, with the reason."""
    query, key, value = (x.repeat(batch, 1, 1, 1) for x in inputs_of(SHAPE, device, dtype))
    # which warms up as well
    trials = try_kernels(kernels_for(device, dtype), (query, key, value), timer=lambda work: clock(work, device))
    wide = value.repeat(1, 1, 1, query.shape[-1] // value.shape[-1])
    right = [(trial.kernel, value if trial.kernel.narrow_values else wide) for trial in trials if not trial.reason]
    times: dict[str, list[float]] = {name_of(kernel): [] for kernel, _ in right}
    for _ in range(rounds):
        for kernel, values in right:
            times[name_of(kernel)].append(clock(lambda k=kernel, v=values: k(query, key, v), device))
    rows = [figures(trial.kernel, times.get(name_of(trial.kernel), []), query, key) for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        row |= {"batch": batch, "error": round(trial.error, 5)} | ({"refused": trial.reason} if trial.reason else {})
    return rows


def figures(kernel: Kernel, times: list[float], query_bhnc: Tensor, key_bhkc: Tensor) -> dict[str, Any]:
    row: dict[str, Any] = {"implementation": name_of(kernel), "dtype": str(query_bhnc.dtype).removeprefix("torch.")}
    if times:
        batch, _, num, dim = query_bhnc.shape
        value_dim = SHAPE.memory_dim if kernel.narrow_values else dim
        operations = 2 * batch * num * key_bhkc.shape[2] * (dim + value_dim)
        median = statistics.median(times)
        row |= {"median_ms": round(median, 3), "p99_ms": round(float(np.percentile(times, 99)), 3)}
        row |= {"gflop": round(operations / 1e9, 1), "gflop_per_s": round(operations / median / 1e6)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    device = resolve_device(options.device)
    facts = machine_facts()
    ceilings, rows = {}, []
    for dtype in CUDA_DTYPES if device.type == "cuda" else CPU_DTYPES:
        ceiling = matmul_peak(dtype, device)
        ceilings[str(dtype).removeprefix("torch.")] = round(ceiling)
        for batch in options.batch:
            for row in measure(dtype, device, batch=batch, rounds=options.rounds):
                row |= {"share_of_ceiling": round(row["gflop_per_s"] / ceiling, 3)} if "gflop_per_s" in row else {}
                rows.append(row)
                print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    report = {
        "benchmark": "attention",
        **facts,
        "device": device.type,
        "shape": [SHAPE.num_tokens, SHAPE.num_keys(1), SHAPE.hidden_dim, SHAPE.memory_dim],
        "rounds": options.rounds,
        "ceiling_gflop_per_s": ceilings,
        "rows": rows,
    }
    conclude(report, options.save, indent=1)


if __name__ == "__main__":
    torch.inference_mode()(main)()
