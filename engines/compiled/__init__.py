"""The backend `compiled`: the programs of `engines.graphs` in the form that is fastest on this device.

Owns: which form that is. Any thread. Never: changes what a program computes beyond rounding.
"""

from __future__ import annotations

from importlib import import_module

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.spec import Engine


def compiled_engine(model: SAM2Base, *, name: str, device: torch.device, dtype: torch.dtype) -> Engine:
    """Captured CUDA graphs on a GPU, kernels for caches on a CPU. Raises `BackendMissing`."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    make = getattr(import_module(f"engines.compiled.{kind}"), f"{kind}_engine")
    engine: Engine = make(model, name=name, device=device, dtype=dtype)
    return engine
