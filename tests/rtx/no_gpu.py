"""Torch-TensorRT on a machine without a GPU: what it asks torch about one is answered, the plan that it wants to load
is handed to it unloaded, and TensorRT-RTX is told which GPUs to build for. Nothing else is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from engines.tensorrt import Library

TARGETS = ("SM80", "SM89", "SM120")


@dataclass(frozen=True, slots=True)
class Answer:
    """What torch says of a GPU."""

    name: str = "none"
    major: int = 9
    minor: int = 0
    total_memory: int = 1 << 37
    multi_processor_count: int = 132


@dataclass(slots=True)
class Builds:
    """What the builder was given. `look` sees every network before it is built; what it gives is kept in `seen`."""

    look: Callable[[Any], object] | None = None
    num_layers: list[int] = field(default_factory=list)
    seen: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unloaded:
    """In place of an engine, which only a GPU can have."""

    plan: bytes

    def serialize(self) -> bytes:
        return self.plan


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Torch's CPU build answers as if there were one GPU."""
    patch.setattr(torch.cuda, "get_device_capability", lambda *args: (9, 0))
    patch.setattr(torch.cuda, "get_device_properties", lambda *args: Answer())
    patch.setattr(torch.cuda, "get_device_name", lambda *args: "none")
    patch.setattr(torch.cuda, "current_device", lambda: 0)
    patch.setattr(torch.cuda, "mem_get_info", lambda *args: (1 << 37, 1 << 37))
    patch.setattr(torch.cuda, "empty_cache", lambda: None)
    patch.setattr(torch._C, "_CudaDeviceProperties", Answer, raising=False)


@contextmanager
def watched(library: Library) -> Iterator[Builds]:
    """Torch-TensorRT, imported, and an eye on what it builds."""
    result = Builds()
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            pretend(patch)
        patch.setitem(sys.modules, "tensorrt_rtx", library.module)
        from torch_tensorrt.dynamo.conversion import _TRTInterpreter as converters

        populate = converters.TRTInterpreter._populate_trt_builder_config

        def targeted(interpreter: Any, *args: Any, **kwargs: Any) -> Any:
            config, network = populate(interpreter, *args, **kwargs), interpreter.ctx.net
            config.num_compute_capabilities = len(TARGETS)
            for index, target in enumerate(TARGETS):
                assert config.set_compute_capability(getattr(library.module.ComputeCapability, target), index)
            result.num_layers.append(network.num_layers)
            if result.look is not None:
                result.seen.append(result.look(network))
            return config

        class Runtime:
            def __init__(self, logger: Any) -> None:
                """There is nothing to run on."""

            def deserialize_cuda_engine(self, plan: Any) -> Unloaded:
                return Unloaded(bytes(memoryview(plan)))

        patch.setattr(converters.TRTInterpreter, "_populate_trt_builder_config", targeted)
        patch.setitem(vars(converters.trt), "Runtime", Runtime)
        yield result
