"""`FusedLinear` and `fuse`: projections by oneDNN with bias and activation inside the product.

Owns: how a linear layer is called on a CPU. Any thread. Never: copies or changes a weight.

`F.linear` copies the bias into the result before it multiplies, in float32 goes to MKL, which is slow on AMD, and
leaves the activation to another pass over memory.
"""

from __future__ import annotations

import torch
from sam2.modeling.memory_encoder import CXBlock
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.GELU: "gelu", nn.ReLU: "relu", nn.Identity: "none"}


class FusedLinear(nn.Module):
    """`activation(linear(x))` in one product."""

    def __init__(self, linear: nn.Linear, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        assert self.weight.is_contiguous(), "weights with gaps between their rows fall into oneDNN's reference code"
        self.activation = _ACTIVATIONS[type(activation or nn.Identity())]
        assert getattr(activation, "approximate", "none") == "none", "SAM 2 uses the exact GELU"

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], "none")
        return result


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operator, and this processor the products."""
    has_operator = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if dtype is torch.bfloat16:
        return has_operator and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return has_operator and dtype is torch.float32


def fuse(module: nn.Module) -> None:
    """Make every linear layer inside a `FusedLinear`, with the activation that follows it where one does."""
    parts = list(module.modules())
    for part in parts:
        if isinstance(part, MLP):
            for index in range(part.num_layers - 1):
                part.layers[index] = FusedLinear(part.layers[index], part.act)
            part.act = nn.Identity()
        elif isinstance(part, CXBlock):
            part.pwconv1, part.act = FusedLinear(part.pwconv1, part.act), nn.Identity()
        elif isinstance(part, nn.Sequential):
            _fuse_sequence(part)
    for part in parts:
        for name, child in list(part.named_children()):
            if type(child) is nn.Linear:
                setattr(part, name, FusedLinear(child))


def _fuse_sequence(sequence: nn.Sequential) -> None:
    for index in range(len(sequence) - 1):
        linear, activation = sequence[index], sequence[index + 1]
        if type(linear) is nn.Linear and type(activation) in _ACTIVATIONS:
            sequence[index], sequence[index + 1] = FusedLinear(linear, activation), nn.Identity()
