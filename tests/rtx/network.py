"""Runs a network definition of NVIDIA's library with torch, layer by layer, as the documentation of each layer says.

What a converter built is so compared with what it was built from, without a GPU; every shape and type that the library
infers is compared as well. It tells nothing of kernels: accumulation is in float32, results are rounded to the layer's
type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[..., Tensor | tuple[Tensor, ...]]
CLASSES = {"ELEMENTWISE": "IElementWiseLayer", "TOPK": "ITopKLayer"}
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
ELEMENTWISE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "SUB": torch.sub,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "POW": torch.pow,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
    "DIV": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    "FLOOR_DIV": lambda a, b: torch.div(a, b, rounding_mode="floor"),
}
UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
}
ACTIVATION: Mapping[str, Callable[[Tensor], Tensor]] = {
    "RELU": F.relu,
    "SIGMOID": torch.sigmoid,
    "GELU_ERF": F.gelu,
    "TANH": torch.tanh,
}
REDUCE: Mapping[str, Callable[..., Tensor]] = {"SUM": torch.sum, "AVG": torch.mean, "MAX": torch.amax}


def run_network(module: Any, network: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs by name. `module` is the library's."""
    values: dict[str, Tensor] = {}
    for index in range(network.num_inputs):
        wanted = network.get_input(index)
        values[wanted.name] = inputs[wanted.name]
        check_result(wanted, values[wanted.name], "an input")
    for layer in in_order(network, values.keys()):
        kind = layer.type.name
        title = "I" + "".join(part.capitalize() for part in kind.split("_")) + "Layer"
        layer.__class__ = getattr(module, CLASSES.get(kind, title))
        found = RULES[kind](layer, *(None if name is None else values[name] for name in given_to(layer)))
        for place, value in enumerate(found if isinstance(found, tuple) else (found,)):
            tensor = layer.get_output(place)
            assert tensor.name not in values, f"two tensors are called {tensor.name}"
            if kind != "ATTENTION_INPUT":  # the border of a region; what comes out of it is that of its other border
                check_result(tensor, value, f"{kind} {layer.name}")
            values[tensor.name] = value
    names = [network.get_output(index).name for index in range(network.num_outputs)]
    return {name: values[name] for name in names}


def given_to(layer: Any) -> list[str | None]:
    """The names of a layer's inputs."""
    tensors = [layer.get_input(place) for place in range(layer.num_inputs)]
    return [None if tensor is None else tensor.name for tensor in tensors]


def in_order(network: Any, known: Iterable[str]) -> Iterator[Any]:
    """The layers, each after those whose outputs it takes; a converter may add a constant after what takes it."""
    ready, waiting = {None, *known}, [network.get_layer(index) for index in range(network.num_layers)]
    while waiting:
        later = []
        for layer in waiting:
            if not ready.issuperset(given_to(layer)):
                later.append(layer)
                continue
            ready.update(layer.get_output(place).name for place in range(layer.num_outputs))
            yield layer
        assert len(later) < len(waiting), "layers wait for each other"
        waiting = later


def check_result(tensor: Any, value: Tensor, where: str) -> None:
    """What was computed has the shape and the type that the library inferred."""
    assert tuple(tensor.shape) == tuple(value.shape), f"{where}: {tuple(tensor.shape)}, computed {tuple(value.shape)}"
    assert DTYPES[tensor.dtype.name] is value.dtype, f"{where}: {tensor.dtype}, computed {value.dtype}"


def in_float32(rule: Rule) -> Rule:
    """Narrow floats are widened, and the results rounded to the first one's type; all given types must be equal."""

    def run(layer: Any, *given: Tensor | None) -> Tensor:
        dtypes = {value.dtype for value in given if value is not None}
        assert len(dtypes) == 1, f"{layer.name}: types are mixed, {dtypes}"
        dtype = dtypes.pop()
        if not dtype.is_floating_point:
            result = rule(layer, *given)
        else:
            result = rule(layer, *(None if value is None else value.float() for value in given))
        assert isinstance(result, Tensor)
        return result.to(dtype) if result.is_floating_point() else result

    return run


def weights_of(weights: Any, like: Tensor | None = None) -> Tensor | None:
    """Of an array; None where there are none."""
    if weights is None or weights.size == 0:
        return None
    result = torch.from_numpy(weights.copy())
    return result if like is None else result.to(like.dtype)


def integers(dims: Any) -> list[int]:
    return [int(x) for x in dims]


def constant(layer: Any) -> Tensor:
    shape, found = integers(layer.shape), weights_of(layer.weights)
    assert found is not None, f"{layer.name} is empty"
    return found.reshape(shape)


def shuffle(layer: Any, x: Tensor, dims: Tensor | None = None) -> Tensor:
    x = x.permute(integers(layer.first_transpose)[: x.dim()])
    shape = integers(layer.reshape_dims) if dims is None and layer.reshape_dims is not None else None
    shape = integers(dims) if dims is not None else shape
    if shape is not None:
        keeps = layer.zero_is_placeholder
        x = x.reshape([x.shape[axis] if size == 0 and keeps else size for axis, size in enumerate(shape)])
    return x.permute(integers(layer.second_transpose)[: x.dim()])


def cut(layer: Any, x: Tensor, *given: Tensor | None) -> Tensor:
    """A slice; what lies outside is filled, in the mode that fills."""
    filling = given[3].reshape(()) if len(given) > 3 and given[3] is not None else torch.zeros((), dtype=x.dtype)
    assert filling.dtype is x.dtype, f"{layer.name} is {x.dtype}, filled with {filling.dtype}"
    begin, size, step = (
        integers(value) if value is not None else integers(fixed)
        for value, fixed in zip((*given, None, None, None)[:3], (layer.start, layer.shape, layer.stride), strict=True)
    )
    for axis in range(x.dim()):
        places = begin[axis] + step[axis] * torch.arange(size[axis])
        inside = (places >= 0) & (places < x.shape[axis])
        assert layer.mode.name == "FILL" or bool(inside.all()), f"{layer.name} reads outside"
        x = x.index_select(axis, places.clamp(0, x.shape[axis] - 1))
        shape = [-1 if other == axis else 1 for other in range(x.dim())]
        x = x if bool(inside.all()) else torch.where(inside.reshape(shape), x, filling)
    return x


def convolution(layer: Any, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    shape = [layer.num_output_maps, x.shape[1] // layer.num_groups, *integers(layer.kernel_size_nd)]
    own = weights_of(layer.kernel, x)
    weight = own.reshape(shape) if own is not None else kernel
    assert weight is not None and layer.padding_mode.name == "EXPLICIT_ROUND_DOWN"
    own_bias = weights_of(layer.bias, x)
    options = [integers(v) for v in (layer.stride_nd, layer.padding_nd, layer.dilation_nd)]
    return F.conv2d(x, weight, own_bias if own_bias is not None else bias, *options, groups=layer.num_groups)


def deconvolution(layer: Any, x: Tensor, kernel: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    shape = [x.shape[1], layer.num_output_maps // layer.num_groups, *integers(layer.kernel_size_nd)]
    own = weights_of(layer.kernel, x)
    weight = own.reshape(shape) if own is not None else kernel
    assert weight is not None and integers(layer.padding_nd) == [0, 0], f"{layer.name} is padded"
    own_bias = weights_of(layer.bias, x)
    return F.conv_transpose2d(x, weight, own_bias if own_bias is not None else bias, integers(layer.stride_nd))


def axes_of(mask: int, rank: int) -> list[int]:
    return [axis for axis in range(rank) if mask >> axis & 1]


def normalization(layer: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    assert layer.num_groups == 1
    axes = axes_of(layer.axes, x.dim())
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + layer.epsilon) * scale + bias


def matrix_multiply(layer: Any, a: Tensor, b: Tensor) -> Tensor:
    assert a.dim() == b.dim() and "VECTOR" not in (layer.op0.name, layer.op1.name)
    a = a.transpose(-1, -2) if layer.op0.name == "TRANSPOSE" else a
    b = b.transpose(-1, -2) if layer.op1.name == "TRANSPOSE" else b
    return a @ b


def attention(layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    region = layer.attention
    assert not region.causal and mask is None and region.norm_op.name == "SOFTMAX"
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)


def gather(layer: Any, x: Tensor, index: Tensor) -> Tensor:
    axis, places = layer.axis, index.to(torch.int64)
    if layer.mode.name == "ELEMENT":
        return torch.gather(x, axis, places)
    if layer.mode.name == "ND":
        assert layer.num_elementwise_dims == 0
        return x[tuple(places.movedim(-1, 0))]
    shape = [*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]]
    return x.index_select(axis, places.reshape(-1)).reshape(shape)


def pooling(layer: Any, x: Tensor) -> Tensor:
    assert layer.type.name == "MAX" and layer.padding_mode.name == "EXPLICIT_ROUND_DOWN"
    sizes = [integers(v) for v in (layer.window_size_nd, layer.stride_nd, layer.padding_nd)]
    return F.max_pool2d(x, *sizes)


def resize(layer: Any, x: Tensor, dims: Tensor | None = None) -> Tensor:
    size = integers(dims if dims is not None else layer.shape)[2:]
    way, mode = layer.coordinate_transformation.name, layer.resize_mode.name
    if mode == "NEAREST":
        assert way == "ASYMMETRIC" and layer.nearest_rounding.name == "FLOOR"
        return F.interpolate(x, size=size, mode="nearest")
    assert mode == "LINEAR" and way == "HALF_PIXEL"
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def top_k(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    (axis,) = axes_of(layer.axes, x.dim())
    values, places = torch.topk(x, layer.k, axis, largest=layer.op.name == "MAX")
    return values, places.to(torch.int32)


def select(layer: Any, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    assert condition.dtype is torch.bool and a.dtype is b.dtype
    return torch.where(condition, a, b)


def unsqueeze(layer: Any, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(int(a) % rank for a in axes.reshape(-1)):
        x = x.unsqueeze(axis)
    return x


def squeeze(layer: Any, x: Tensor, axes: Tensor) -> Tensor:
    return x.squeeze([int(a) % x.dim() for a in axes.reshape(-1)])


def elementwise(layer: Any, a: Tensor, b: Tensor) -> Tensor:
    assert a.dim() == b.dim(), f"{layer.name}: {a.shape} and {b.shape}"
    return ELEMENTWISE[layer.op.name](a, b)


RULES: Mapping[str, Rule] = {
    "CONSTANT": constant,
    "CAST": lambda layer, x: x.to(DTYPES[layer.to_type.name]),
    "IDENTITY": lambda layer, x: x,
    "SHUFFLE": shuffle,
    "SLICE": cut,
    "SHAPE": lambda layer, x: torch.tensor(x.shape, dtype=torch.int64),
    "GATHER": gather,
    "SELECT": select,
    "UNSQUEEZE": unsqueeze,
    "SQUEEZE": squeeze,
    "TOPK": top_k,
    "ATTENTION_OUTPUT": lambda layer, x: x,
    "ATTENTION_INPUT": in_float32(attention),
    "CONCATENATION": in_float32(lambda layer, *parts: torch.cat(parts, layer.axis)),
    "CONVOLUTION": in_float32(convolution),
    "DECONVOLUTION": in_float32(deconvolution),
    "ELEMENTWISE": in_float32(elementwise),
    "UNARY": in_float32(lambda layer, x: UNARY[layer.op.name](x)),
    "ACTIVATION": in_float32(lambda layer, x: ACTIVATION[layer.type.name](x)),
    "NORMALIZATION": in_float32(normalization),
    "MATRIX_MULTIPLY": in_float32(matrix_multiply),
    "POOLING": in_float32(pooling),
    "RESIZE": in_float32(resize),
    "SOFTMAX": in_float32(lambda layer, x: x.softmax(axes_of(layer.axes, x.dim())[0])),
    "REDUCE": in_float32(
        lambda layer, x: REDUCE[layer.op.name](x, axes_of(layer.axes, x.dim()), keepdim=layer.keep_dims)
    ),
}
