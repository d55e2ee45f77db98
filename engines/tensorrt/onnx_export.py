"""A program as an ONNX file: `torch.export`, then torch's own exporter.

Owns: the module that stands for a program, its opset, the names of its inputs and outputs. Runs in the caller's thread,
for seconds; a build does it in a process of its own. Never: runs the program, or writes a file.

Opset 23 has attention as one operator (see `attention`). Parsers before TensorRT 10.14 do not know it: opset 20
spells all of it out for them.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from engines.graphs import Encode, FlatEncode, FlatTrack, Kernels, Sdpa, Track
from engines.spec import BackendMissing, ProgramKey, ProgramSpec
from engines.tensorrt.attention import spell_out_attention

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

FUSED_OPSET, SPELT_OUT_OPSET = 23, 20


def program_module(
    model: SAM2Base, key: ProgramKey, *, dtype: torch.dtype, attention_dtype: torch.dtype | None = None
) -> nn.Module:
    """A program as a module of plain tensors; `attention_dtype` is that of the products inside attention to memory and
    to the picture, where it is not `dtype`: an island in bfloat16, whose sums are kept in float32.
    """
    kernels = Kernels(Sdpa(attention_dtype), Sdpa(attention_dtype))
    if key.kind == "encode":
        return FlatEncode(Encode(model, dtype, kernels)).eval()
    return FlatTrack(Track(model, dtype, kernels.memory)).eval()


def export_onnx(module: nn.Module, spec: ProgramSpec, *, opset: int = FUSED_OPSET) -> bytes:
    """The same bytes for the same module: without the notes on who called what, which name this machine's folders."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendMissing(f"export to ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    # only shapes and dtypes matter: nothing is computed, so nothing is written into these
    examples = tuple(torch.empty(x.shape, dtype=x.dtype) for x in spec.inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter uses what torch has since deprecated
        program = torch.onnx.export(
            torch.export.export(module, examples, strict=False),
            examples,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[x.name for x in spec.inputs],
            output_names=[x.name for x in spec.outputs],
        )
    assert program is not None, "the exporter returns its program"
    proto = program.model_proto
    _check_interface(proto.graph, spec)
    spell_out_attention(proto.graph)
    _forget_origin(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _check_interface(graph: GraphProto, spec: ProgramSpec) -> None:
    for found, wanted in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
        names, shapes = [], []
        for value in found:
            names.append(value.name)
            shapes.append(tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim))
        assert names == [x.name for x in wanted], f"{spec.name} has the tensors {names}"
        assert shapes == [x.shape for x in wanted], f"{spec.name} has the shapes {shapes}"


def _forget_origin(proto: ModelProto) -> None:
    """Stack traces and the names of source files."""
    graph = proto.graph
    for thing in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
