"""The backend `compiled` on a CUDA device: the programs as CUDA graphs over fixed buffers, with the attention kernel
that is fastest there.

Owns: how the programs become recorded ones. The thread that uses the engine makes it. Never: runs a kernel that
disagrees with plain arithmetic (`engines.compiled.cuda_kernels`).

Not tried on a GPU so far. It guards itself: a kernel is measured against plain arithmetic before it is taken, and what
is recorded is compared with what it was recorded from.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from engines.compiled.cuda_kernels import choose_kernel
from engines.eager import EagerEngine
from engines.graphs import FlatEncode, FlatTrack, Kernels, spec_of
from engines.programmed import ProgrammedEngine
from engines.spec import Engine, MemoryRead, ProgramSpec, program_keys, program_spec
from engines.tape import CudaRecorder, Recorder

log = logging.getLogger(__name__)
MAX_DRIFT = 0.05  # of two ways to add up the same sums in float16


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
    kernel = choose_kernel(spec_of(model, name), device, dtype)
    inner = EagerEngine(model, name=name, device=device, dtype=dtype, kernels=Kernels(memory=kernel))
    plain = EagerEngine(model, name=name, device=device, dtype=dtype)
    drift = drift_of(inner, plain)
    if not drift <= MAX_DRIFT:  # also where it is no number
        log.error("%s refused: the programs differ by %.3f with it; PyTorch chooses instead", kernel, drift)
        inner = plain
    return recorded_engine(inner, CudaRecorder(device), options)


@torch.inference_mode()
def drift_of(engine: Engine, reference: Engine) -> float:
    """The largest difference of what two rows with full banks are conditioned to, against the largest value."""
    spec, device = engine.spec, engine.device
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device)

    memories, pointers = 1 + spec.num_recent_memories, 1 + spec.num_recent_pointers
    times = torch.arange(spec.num_recent_memories, -1, -1, device=device).expand(2, memories)
    pointer_shape = (2, pointers, spec.hidden_dim)
    memory = noise(2, memories, spec.num_tokens, spec.memory_dim).to(engine.memory_dtype)
    read = MemoryRead(memory, times, noise(*pointer_shape), noise(*pointer_shape))
    frames, rows = noise(1, 3, spec.image_size, spec.image_size), torch.zeros(2, dtype=torch.int64, device=device)
    found, wanted = (one.track(one.encode(frames), rows, read)[1].float() for one in (engine, reference))
    return float((found - wanted).abs().amax() / wanted.abs().amax())


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
