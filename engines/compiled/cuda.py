"""The backend `compiled` on a CUDA device: the programs as CUDA graphs over fixed buffers, with the attention kernel
that is fastest there.

Owns: how the programs become recorded ones. The thread that uses the engine makes it. Never: runs a kernel that
disagrees with plain arithmetic (`engines.compiled.cuda_kernels`).

Not tried on a GPU so far. It guards itself: a kernel is measured against plain arithmetic before it is taken, and what
is recorded is compared with what it was recorded from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.compiled.cuda_kernels import choose_kernel
from engines.eager import EagerEngine
from engines.graphs import FlatEncode, FlatTrack, Kernels, spec_of
from engines.programmed import ProgrammedEngine
from engines.spec import Engine, ProgramSpec, program_keys, program_spec
from engines.tape import CudaRecorder, Recorder


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """`compile_mode`: what `torch.compile` is given, such as "max-autotune-no-cudagraphs"; "" does without it. It takes
    minutes and a C++ compiler, and is not known to pay here.
    """

    compile_mode: str = ""


class ModuleProgram:
    """`FlatEncode` or `FlatTrack` with one set of shapes, launched piece by piece on the current stream."""

    def __init__(self, module: nn.Module, spec: ProgramSpec) -> None:
        self.spec = spec
        self._module = module

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self._module(*inputs)
        return outputs


def cuda_engine(
    model: SAM2Base,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    options: CudaOptions = CudaOptions(),
) -> Engine:
    """All programs, recorded at their first call; what has no program runs eagerly with the same kernels."""
    kernels = Kernels(memory=choose_kernel(spec_of(model, name), device, dtype))
    inner = EagerEngine(model, name=name, device=device, dtype=dtype, kernels=kernels)
    return recorded_engine(inner, CudaRecorder(device), options)


def recorded_engine(inner: EagerEngine, recorder: Recorder | None, options: CudaOptions) -> ProgrammedEngine:
    """`inner` with its full-bank programs recorded."""
    track = inner.track_module
    engine = ProgrammedEngine(inner, backend="compiled", sparse_1sc=track.sparse_1sc, recorder=recorder)
    modules: dict[str, Any] = {"encode": FlatEncode(inner.encode_module), "track": FlatTrack(track)}
    if options.compile_mode:
        modules = {kind: torch.compile(module, mode=options.compile_mode) for kind, module in modules.items()}
    for key in program_keys():
        engine.install(key, ModuleProgram(modules[key.kind], program_spec(inner.spec, key, inner.dtype)))
    return engine
