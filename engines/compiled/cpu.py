"""`CompiledCpu`: the programs on a CPU, with attention made for its caches.

Owns: the choice of kernels. Called by one thread at a time. Never: compiles anything; it starts as fast as eager.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.compiled.cpu_attention import Chunked
from engines.eager import EagerEngine
from engines.graphs import SDPA, Kernels


class CompiledCpu(EagerEngine):
    """Eager's programs with other kernels."""

    backend = "compiled"


def cpu_engine(model: SAM2Base, *, name: str, device: torch.device, dtype: torch.dtype) -> CompiledCpu:
    """Ready to run."""
    return CompiledCpu(model, name=name, device=device, dtype=dtype, kernels=_kernels(dtype))


def _kernels(dtype: torch.dtype) -> Kernels:
    """In float32 only memory attention gains, by its narrow values; float16 has no fast products on most CPUs."""
    if dtype is torch.float16:
        return SDPA
    chunked = Chunked(dtype)
    return Kernels(chunked if dtype is torch.bfloat16 else SDPA.image, chunked)
