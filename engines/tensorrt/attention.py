"""Attention in an ONNX graph: as one operator where NVIDIA has fused kernels, spelled out as products and a softmax
where they have none.

Owns: which of the two. Runs in the caller's thread. Never: spells out what can be fused; a builder that then has no
kernel refuses the operator, which is better than a slow engine.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto, TypeProto

# NVIDIA's limits for fused attention (Working with Transformers, "Multi-Head Attention Fusion")
_MIN_CHANNELS, _MAX_CHANNELS, _CHANNEL_STEP = 16, 256, 8
_HALF_TYPES = (10, 16)  # FLOAT16 and BFLOAT16 of `TensorProto.DataType`
# One row with one head: TensorRT-RTX 1.7 has a kernel for 4096 x 4096 scores (pictures of 1024 pixels), and none for
# half as many; a matrix that small fits the cache of a GPU.
_MIN_LONE_SCORES = 4096 * 4096


def spell_out_attention(graph: GraphProto) -> None:
    """Replace, in place, what no fused kernel takes: float32, heads of few channels (nano's), a small lone head."""
    known = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.input)}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        query, key = (known[name] for name in node.input[:2])
        shape = _shape(query)
        if _can_be_fused(query.elem_type, shape, _shape(key)):
            nodes.append(node)
            continue
        scale, spelled_out = _spell_out(node, query.elem_type, shape[-1])
        graph.initializer.append(scale)
        nodes.extend(spelled_out)
    del graph.node[:]
    graph.node.extend(nodes)


def _shape(tensor_type: TypeProto.Tensor) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in tensor_type.shape.dim)


def _can_be_fused(elem_type: int, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> bool:
    rows, heads, queries, channels = query_shape
    is_lone = rows * heads == 1
    if elem_type not in _HALF_TYPES or (is_lone and queries * key_shape[2] < _MIN_LONE_SCORES):
        return False
    return _MIN_CHANNELS <= channels <= _MAX_CHANNELS and channels % _CHANNEL_STEP == 0


def _spell_out(node: NodeProto, elem_type: int, channels: int) -> tuple[TensorProto, list[NodeProto]]:
    """As the operator's definition has it: both factors are scaled before the first product, so that it stays small."""
    given = {attribute.name: attribute.f or attribute.i for attribute in node.attribute}
    assert len(node.input) == 3 and len(node.output) == 1 and not any(given.values()), "SAM 2 has no masks in attention"
    helper: Any = importlib.import_module("onnx.helper")
    query, key, value = node.input
    name = node.output[0]
    scale = helper.make_tensor(f"{name}_scale", elem_type, (), (math.sqrt(1 / math.sqrt(channels)),))
    make = helper.make_node
    return scale, [
        make("Mul", [query, scale.name], [f"{name}_query"]),
        make("Mul", [key, scale.name], [f"{name}_key"]),
        make("Transpose", [f"{name}_key"], [f"{name}_key_t"], perm=(0, 1, 3, 2)),
        make("MatMul", [f"{name}_query", f"{name}_key_t"], [f"{name}_score"]),
        make("Softmax", [f"{name}_score"], [f"{name}_weight"], axis=-1),
        make("MatMul", [f"{name}_weight", value], [name]),
    ]
