"""Attention kernels for CUDA: which ones there are, and `choose_kernel`, which takes the fastest that is right here.

Owns: the candidates, the problem that they are measured on, and the limit of what is right. The thread that makes the
engine runs it, before anything is recorded. Never: takes a kernel that it could not compare with plain arithmetic.

The problem is the real one: the queries of a picture against all keys of a full bank, one head of 256 channels. What
is fastest there depends on the card: the fused kernels of cuDNN, FlashAttention and xFormers divide the work by 64 or
128 queries, which leaves half of a large card idle, and only some of them can divide it by keys as well.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engines.graphs import Kernel, Sdpa
from engines.spec import ModelSpec

log = logging.getLogger(__name__)
MAX_ERROR = 0.02  # largest difference from float32, against the largest value; sums in float16 reach 0.005 to 0.15
NUM_CHECKED = 256  # queries
NUM_TIMED = 9
NUM_WARM_UPS = 3

Inputs = tuple[Tensor, Tensor, Tensor]
Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True, slots=True)
class Fused:
    """One of PyTorch's fused kernels, by name instead of by its own choice."""

    backend: SDPBackend
    dtype: torch.dtype | None = None
    narrow_values: bool = False  # only EFFICIENT_ATTENTION takes them

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        with sdpa_kernel(self.backend):
            return Sdpa(self.dtype)(query_bhnc, key_bhkc, value_bhkd)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one candidate; `reason` is empty where it is right."""

    kernel: Kernel
    milliseconds: float
    error: float
    reason: str

    @property
    def text(self) -> str:
        return f"{self.kernel}: {self.reason or f'{self.milliseconds:.3f} ms, error {self.error:.4f}'}"


def choose_kernel(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel for memory attention that is right on this device; PyTorch's own choice where none is."""
    trials = try_kernels(candidates(device, dtype), inputs_of(spec, device, dtype), timer=cuda_milliseconds)
    for trial in trials:
        log.debug("memory attention: %s", trial.text)
    right = [trial for trial in trials if not trial.reason]
    if not right:
        log.warning("no attention kernel could be measured on %s; PyTorch chooses", device)
        return Sdpa()
    best = min(right, key=lambda trial: trial.milliseconds)
    log.info("memory attention: %s, of %d kernels that are right", best.text, len(right))
    return best.kernel


def candidates(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    """In the order in which they are tried; those that a card or a dtype does not have say so when they are called."""
    efficient = SDPBackend.EFFICIENT_ATTENTION
    kernels: list[Kernel] = [Sdpa(), Fused(efficient), Fused(efficient, narrow_values=True)]
    kernels += [Fused(backend) for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION)]
    if dtype is torch.float16:
        in_bfloat16 = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, efficient)
        kernels += [Fused(backend, torch.bfloat16) for backend in in_bfloat16]
    if dtype is not torch.float32 and device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from engines.compiled.cuda_triton import triton_kernels

        kernels += triton_kernels(torch.cuda.get_device_properties(device).multi_processor_count)
    return kernels


def inputs_of(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Queries (1, 1, n, c), keys (1, 1, k, c) and raw memory (1, 1, k, d) of a full bank with one prompt.

    Every query is near to one key, so that the softmax has peaks and an error shows.
    """
    random = torch.Generator().manual_seed(0)
    num_keys, dim = spec.num_keys(1), spec.hidden_dim
    key = torch.randn(num_keys, dim, generator=random)
    near = key[torch.randint(num_keys, (spec.num_tokens,), generator=random)]
    query = near * 0.5 + torch.randn(spec.num_tokens, dim, generator=random)
    value = torch.randn(num_keys, spec.memory_dim, generator=random) + 0.5
    query, key, value = (x[None, None].to(device, dtype) for x in (query, key, value))
    return query, key, value


def try_kernels(kernels: Sequence[Kernel], inputs: Inputs, *, timer: Timer) -> list[Trial]:
    """Compare each kernel with plain arithmetic, and time those that are right."""
    query, key, value = inputs
    wide = value.repeat(1, 1, 1, query.shape[-1] // value.shape[-1])
    wanted = _plain(_spread(query), key, wide)
    values = {True: value, False: wide}
    return [_trial(kernel, (query, key, values[kernel.narrow_values]), wanted, timer=timer) for kernel in kernels]


def cuda_milliseconds(work: Callable[[], object]) -> float:
    """The median time that the device takes for it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times: list[float] = []
    for index in range(NUM_WARM_UPS + NUM_TIMED):
        start.record()
        work()
        end.record()
        end.synchronize()
        times += [start.elapsed_time(end)] if index >= NUM_WARM_UPS else []
    return statistics.median(times)


def host_milliseconds(work: Callable[[], object]) -> float:
    """The same where work is done when the call returns."""
    times = []
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def _trial(kernel: Kernel, inputs: Inputs, wanted: Tensor, *, timer: Timer) -> Trial:
    query, key, value = inputs
    try:
        found = _spread(kernel(query, key, value)).float()
        wanted = wanted[..., : found.shape[-1]]
        error = float((found - wanted).abs().amax() / wanted.abs().amax())
        if not error <= MAX_ERROR:  # also where it is no number
            return Trial(kernel, 0.0, error, f"differs by {error:.4f} from float32; expected at most {MAX_ERROR}")
        return Trial(kernel, timer(lambda: kernel(query, key, value)), error, "")
    except RuntimeError as problem:
        return Trial(kernel, 0.0, 0.0, f"does not run: {str(problem).partition(chr(10))[0]}")


def _spread(x_bhnc: Tensor) -> Tensor:
    """Some queries, at every place of a tile: the step is odd, and a tile's length is a power of two."""
    return x_bhnc[:, :, :: x_bhnc.shape[2] // NUM_CHECKED | 1]


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(c)) v in float32, by ordinary products."""
    scores = query.float() @ key.float().transpose(-1, -2) / query.shape[-1] ** 0.5
    return F.softmax(scores, dim=-1) @ value.float()
