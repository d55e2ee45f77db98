"""Ours through TensorRT: the programs of a run built from the network in hand, on the card in hand.

Never: uses the cache or the gate of `engines.build`, since these networks have lifted weights; the masks of the run are
compared instead. Has never run on a GPU: none was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engines.programmed import ProgrammedEngine
from engines.spec import Engine, ProgramKey, program_spec
from engines.tensorrt import (
    FUSED_OPSET,
    SPELT_OUT_OPSET,
    LibraryName,
    build_plan,
    export_onnx,
    find_gpu,
    install_plan,
    load_library,
    program_module,
    tensorrt_engine,
)


def planned_engine(name: LibraryName, network: Any, inner: Engine, num_objects: Sequence[int]) -> ProgrammedEngine:
    """One frame and full banks of so many rows as plans, the rest on `inner`; minutes with `tensorrt`.

    Raises `BackendMissing`, `BuildError`, `EngineFault`.
    """
    library = load_library(name)
    if inner.device.type == "cuda":
        library.check_gpu(find_gpu(inner.device))
    engine = tensorrt_engine(inner, network, library)
    rows = {next(bucket for bucket in engine.row_buckets if bucket >= count) for count in num_objects}
    for key in (ProgramKey("encode", 1), *(ProgramKey("track", count, 1) for count in sorted(rows))):
        spec = program_spec(engine.spec, key, engine.dtype)
        opset = SPELT_OUT_OPSET if engine.dtype is torch.float32 else FUSED_OPSET  # no fused kernel takes fp32
        onnx = export_onnx(program_module(network, key, dtype=engine.dtype), spec, opset=opset)
        install_plan(engine, library, key, plan=build_plan(library, onnx))
    return engine
