"""`CompiledCpu`: the programs on a CPU, rearranged for its caches and for oneDNN.

Owns: the choice of forms. Called by one thread at a time. Never: compiles anything; it starts as fast as eager.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.compiled.cpu_attend import CpuAttend
from engines.compiled.cpu_attention import Chunked
from engines.compiled.cpu_attention32 import Sliced32
from engines.compiled.cpu_encode import suit_encoder
from engines.compiled.cpu_linear import can_fuse, fuse
from engines.eager import EagerEngine
from engines.graphs import SDPA, Attend, Kernels
from engines.spec import FrameFeatures


class CompiledCpu(EagerEngine):
    """Eager's programs in other forms; in eager's own where oneDNN has no products for the dtype."""

    backend = "compiled"

    def __init__(self, model: SAM2Base, *, name: str, device: torch.device, dtype: torch.dtype) -> None:
        is_suited = can_fuse(dtype)
        kernels = _kernels(dtype) if is_suited else SDPA
        super().__init__(model, name=name, device=device, dtype=dtype, kernels=kernels)
        if is_suited:
            assert isinstance(self._track.attend, Attend), "made so by eager"
            self._track.attend = CpuAttend(self._track.attend)
            suit_encoder(self._encode)
            fuse(self._encode)
            fuse(self._track)

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        return super().encode(frames_f3hw.contiguous(memory_format=torch.channels_last))


def cpu_engine(model: SAM2Base, *, name: str, device: torch.device, dtype: torch.dtype) -> CompiledCpu:
    """Ready to run."""
    return CompiledCpu(model, name=name, device=device, dtype=dtype)


def _kernels(dtype: torch.dtype) -> Kernels:
    kernel = Sliced32() if dtype is torch.float32 else Chunked(dtype)
    return Kernels(kernel, kernel)
