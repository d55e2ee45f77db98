"""`EngineRequest`: which engine is wanted; and `Precision`, the ladder that reduced precision climbs down.

Owns: these values, and the network that a request stands for. Any thread. Never: builds or loads an engine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.weights import build_model

BACKENDS = ("eager", "compiled", "tensorrt", "tensorrt-rtx")
PLAN_BACKENDS = ("tensorrt", "tensorrt-rtx")  # those whose programs are built beforehand and kept in files


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One model on one device through one named backend.

    `random_seed` stands for weights that mean nothing: for checks of the build alone, never to be run.
    """

    model: str
    checkpoint: Path | None
    device: torch.device
    dtype: torch.dtype
    backend: str
    random_seed: int | None = None

    def network(self) -> SAM2Base:
        """The model on the CPU in fp32; raises `WeightsError`."""
        return build_model(self.model, self.checkpoint, random_seed=self.random_seed)

    def to_json(self) -> str:
        checkpoint = None if self.checkpoint is None else str(self.checkpoint.absolute())
        return json.dumps([self.model, checkpoint, str(self.device), _name(self.dtype), self.backend, self.random_seed])

    @classmethod
    def from_json(cls, text: str) -> EngineRequest:
        model, checkpoint, device, dtype, backend, seed = json.loads(text)
        where = None if checkpoint is None else Path(checkpoint)
        return cls(model, where, torch.device(device), getattr(torch, dtype), backend, seed)


@dataclass(frozen=True, slots=True)
class Precision:
    """Number format of a program, and of the products inside attention."""

    dtype: torch.dtype
    attention_dtype: torch.dtype

    @property
    def name(self) -> str:
        """float16, or float16-attention-bfloat16."""
        island = "" if self.attention_dtype is self.dtype else f"-attention-{_name(self.attention_dtype)}"
        return _name(self.dtype) + island


def ladder(dtype: torch.dtype) -> tuple[Precision, ...]:
    """What is tried, one after the other, until the gate is passed. Full TensorRT's fused attention adds up in float16
    where the program is float16, over 28,736 keys; as a bfloat16 island it adds up in float32.
    """
    island = (Precision(dtype, torch.bfloat16),) if dtype is torch.float16 else ()
    return (Precision(dtype, dtype), *island)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
