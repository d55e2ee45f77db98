"""Runs an ONNX model on addresses, with onnxruntime's CPU kernels.

bfloat16, for which those have few kernels, is computed in float32 and rounded to bfloat16 after every operation, which
is what a kernel with float32 accumulation does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

BFLOAT16 = TensorProto.BFLOAT16
ITEM_BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, BFLOAT16: 2, TensorProto.INT64: 8, TensorProto.INT32: 4}
ITEM_BYTES |= {TensorProto.BOOL: 1}
NAN_BITS = {TensorProto.FLOAT: b"\x00\x00\xc0\x7f", TensorProto.FLOAT16: b"\x00\x7e", BFLOAT16: b"\xc0\x7f"}
_KEEP = ("Cast", "Shape", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze")  # bfloat16 passes through them


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output of a model."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    kind: int  # TensorProto's number

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * ITEM_BYTES[self.kind]


def ports(model: onnx.ModelProto) -> tuple[Port, ...]:
    """Inputs, then outputs; every shape must be fixed."""
    values = [(value, True) for value in model.graph.input] + [(value, False) for value in model.graph.output]
    return tuple(_port(value, is_input) for value, is_input in values)


def _port(value: onnx.ValueInfoProto, is_input: bool) -> Port:
    tensor = value.type.tensor_type
    assert all(dim.HasField("dim_value") for dim in tensor.shape.dim), f"{value.name} has a shape that is not fixed"
    return Port(value.name, is_input, tuple(dim.dim_value for dim in tensor.shape.dim), tensor.elem_type)


def without_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model for kernels that know no bfloat16: each such operation in float32, its result rounded."""
    graph = model.graph
    narrow = {value.name for value in graph.input if value.type.tensor_type.elem_type == BFLOAT16}
    narrow |= {tensor.name for tensor in graph.initializer if tensor.data_type == BFLOAT16}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast":
            narrow |= set(node.output) if helper.get_node_attr_value(node, "to") == BFLOAT16 else set()
            nodes.append(node)
        elif not narrow.intersection(node.input):
            nodes.append(node)
        elif node.op_type in _KEEP:
            narrow |= set(node.output) if node.op_type != "Shape" else set()
            nodes.append(node)
        else:
            nodes += _widened(node, narrow)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _widened(node: onnx.NodeProto, narrow: set[str]) -> list[onnx.NodeProto]:
    before, after = [], []
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    for place, name in enumerate(node.input):
        if name in narrow:
            wide.input[place] = f"{node.output[0]}.wide{place}"
            before.append(helper.make_node("Cast", [name], [wide.input[place]], to=TensorProto.FLOAT))
    for place, name in enumerate(node.output):
        if name:
            wide.output[place] = f"{name}.wide"
            after.append(helper.make_node("Cast", [wide.output[place]], [name], to=BFLOAT16))
            narrow.add(name)
    return [*before, wide, *after]


class Execution:
    """One model, ready to run."""

    def __init__(self, data: bytes) -> None:
        model = onnx.load_from_string(data)
        self.ports = ports(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        text = without_bfloat16(model).SerializeToString()
        self._session = onnxruntime.InferenceSession(text, options, providers=["CPUExecutionProvider"])

    def run(self, addresses: Mapping[str, int]) -> None:
        binding = self._session.io_binding()
        for port in self.ports:
            bind = binding.bind_input if port.is_input else binding.bind_output
            bind(port.name, "cpu", 0, port.kind, list(port.shape), addresses[port.name])
        self._session.run_with_iobinding(binding)

    def outputs(self, addresses: Mapping[str, int]) -> list[bytes]:
        return [ctypes.string_at(addresses[port.name], port.num_bytes) for port in self._written]

    def write(self, addresses: Mapping[str, int], values: Sequence[bytes]) -> None:
        for port, value in zip(self._written, values, strict=True):
            ctypes.memmove(addresses[port.name], value, port.num_bytes)

    def swapped(self, values: Sequence[bytes]) -> list[bytes]:
        """Row 1 in place of row 0 and the other way round."""
        result = []
        for port, value in zip(self._written, values, strict=True):
            size = len(value) // port.shape[0]
            result.append(value[size : 2 * size] + value[:size] + value[2 * size :])
        return result

    def spoilt(self) -> list[bytes]:
        return [NAN_BITS[port.kind] * (port.num_bytes // ITEM_BYTES[port.kind]) for port in self._written]

    @property
    def _written(self) -> list[Port]:
        return [port for port in self.ports if not port.is_input]
