"""An exported program as a program: onnxruntime's CPU kernels run the very bytes that a builder is given."""

from __future__ import annotations

import torch
from tensorrt_emulator.execution import Execution
from torch import Tensor

from engines.spec import ProgramSpec

Tensors = tuple[Tensor, ...]


class OnnxProgram:
    """Fulfils `engines.spec.Program`; fresh outputs at every call."""

    def __init__(self, onnx: bytes, spec: ProgramSpec) -> None:
        self.spec = spec
        self._execution = Execution(onnx)

    def __call__(self, *inputs: Tensor) -> Tensors:
        given = [x.contiguous() for x in inputs]
        outputs = tuple(torch.zeros(x.shape, dtype=x.dtype) for x in self.spec.outputs)
        names = [x.name for x in (*self.spec.inputs, *self.spec.outputs)]
        self._execution.run({name: x.data_ptr() for name, x in zip(names, (*given, *outputs), strict=True)})
        return outputs


def random_inputs(spec: ProgramSpec, seed: int = 0) -> Tensors:
    """Normally distributed values, and the memories' times as they are in a full bank."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        _times(x.shape) if x.dtype is torch.int64 else torch.randn(x.shape, generator=generator).to(x.dtype)
        for x in spec.inputs
    )


def widened(values: Tensors) -> Tensors:
    """The same values for a float32 twin."""
    return tuple(x.float() if x.is_floating_point() else x for x in values)


def relative_errors(ours: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The largest by the largest value, and RMS by RMS, of the worst row."""
    ours, wanted = (x.double().reshape(x.shape[0], -1) for x in (ours, wanted))
    off = (ours - wanted).abs()
    largest = off.amax(1) / wanted.abs().amax(1)
    rms = off.square().mean(1).sqrt() / wanted.square().mean(1).sqrt()
    return float(largest.max()), float(rms.max())


def _times(shape: tuple[int, ...]) -> Tensor:
    rows, memories = shape
    num_cond = memories - 6
    return torch.tensor([6] * num_cond + list(range(5, -1, -1))).expand(rows, -1).contiguous()
