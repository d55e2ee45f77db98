"""A model whose full-bank steps run as TensorRT plans, everything else on another engine.

Owns: how plans become the programs of a `ProgrammedEngine`. One thread uses it. Never: builds, verifies or finds plans
(`engines.build` does), or takes one for another program.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.graphs import empty_prompt
from engines.programmed import ProgrammedEngine
from engines.spec import Engine, ProgramKey, program_spec
from engines.tape import CudaRecorder
from engines.tensorrt.library import Library
from engines.tensorrt.runtime import PlanProgram, load_program


def tensorrt_engine(
    inner: Engine, model: SAM2Base, library: Library, *, attention_dtype: torch.dtype | None = None
) -> ProgrammedEngine:
    """Still without plans: all runs on `inner`, which has the plans' dtype. `attention_dtype` is that of the products
    inside the plans' memory attention, where it is another one. On CUDA every plan is recorded at its first call, by
    the recorder of `inner` where it has one.
    """
    makes_recorder = inner.device.type == "cuda" and not isinstance(inner, ProgrammedEngine)
    return ProgrammedEngine(
        inner,
        backend=library.name,
        sparse_1sc=empty_prompt(model).to(inner.device),
        attention_dtype=attention_dtype,
        recorder=CudaRecorder(inner.device) if makes_recorder else None,
    )


def install_plan(
    engine: ProgrammedEngine, library: Library, key: ProgramKey, *, plan: bytes, runtime_cache: bytes = b""
) -> PlanProgram:
    """Between two turns, in the engine's thread. Raises `EngineFault`, and then the engine is as it was."""
    spec = program_spec(engine.spec, key, engine.dtype)
    program = load_program(library, plan, spec, device=engine.device, runtime_cache=runtime_cache)
    engine.install(key, program)
    return program
