"""What is given to NVIDIA's builders says what the modules say: same names, shapes, types and numbers."""

from __future__ import annotations

import importlib.util
from functools import cache, lru_cache
from typing import Any

import onnx
import pytest
import torch
from onnx_program import OnnxProgram, Tensors, random_inputs, relative_errors, widened

from engines.build import Gate, Precision
from engines.graphs import spec_of
from engines.spec import BackendMissing, ProgramKey, ProgramSpec, program_spec
from engines.tensorrt import SPELT_OUT_OPSET, export_onnx, program_module
from engines.weights import build_model

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
NANO, TINY = "nano", "sam2.1-hiera-tiny"
EXACT, SHIPPED, ISLAND = Precision(FP32, FP32), Precision(FP16, FP16), Precision(FP16, BF16)
ENCODE, TRACK = ProgramKey("encode", 2), ProgramKey("track", 2, 1)
KINDS = {FP32: onnx.TensorProto.FLOAT, FP16: onnx.TensorProto.FLOAT16, torch.int64: onnx.TensorProto.INT64}
name_of = pytest.mark.parametrize("key", [ENCODE, TRACK], ids=lambda key: key.name)


@cache
def network(model: str) -> Any:
    return build_model(model) if model == NANO else build_model(model, random_seed=4)


def module_of(model: str, key: ProgramKey, precision: Precision) -> torch.nn.Module:
    return program_module(network(model), key, dtype=precision.dtype, attention_dtype=precision.attention_dtype)


def table_of(model: str, key: ProgramKey, precision: Precision) -> ProgramSpec:
    return program_spec(spec_of(network(model), model), key, precision.dtype)


@lru_cache(maxsize=8)
def exported(model: str, key: ProgramKey, precision: Precision) -> bytes:
    return export_onnx(module_of(model, key, precision), table_of(model, key, precision))


def graph_of(text: bytes) -> onnx.GraphProto:
    return onnx.load_from_string(text).graph


@lru_cache(maxsize=2)
def example(model: str, key: ProgramKey) -> tuple[Tensors, Tensors]:
    """Inputs that float16 can hold, and what the float32 module makes of them."""
    inputs = random_inputs(table_of(model, key, SHIPPED))
    with torch.inference_mode():
        return inputs, module_of(model, key, EXACT)(*widened(inputs))


def errors(model: str, key: ProgramKey, precision: Precision) -> dict[str, tuple[float, float]]:
    """Of the exported program, output by output: the largest by the largest value, and RMS by RMS."""
    inputs, wanted = example(model, key)
    program = OnnxProgram(exported.__wrapped__(model, key, precision), table_of(model, key, precision))
    ours = program(*(widened(inputs) if precision is EXACT else inputs))
    names = [x.name for x in program.spec.outputs]
    return {name: relative_errors(a, b) for name, a, b in zip(names, ours, wanted, strict=True)}


def assert_within(found: dict[str, tuple[float, float]], *, largest: float, rms: float) -> None:
    said = ", ".join(f"{name} {one:.1e} / {other:.1e}" for name, (one, other) in found.items())
    assert all(one <= largest and other <= rms for one, other in found.values()), said


@name_of
def test_an_exported_program_has_the_names_shapes_and_types_of_the_table(key: ProgramKey) -> None:
    table, graph = table_of(NANO, key, SHIPPED), graph_of(exported(NANO, key, SHIPPED))
    for found, wanted in ((graph.input, table.inputs), (graph.output, table.outputs)):
        tensors = [(value.name, value.type.tensor_type) for value in found]
        shapes = [(name, tuple(x.dim_value for x in kind.shape.dim), kind.elem_type) for name, kind in tensors]
        assert shapes == [(x.name, x.shape, KINDS[x.dtype]) for x in wanted]


def test_the_same_module_gives_the_same_bytes_which_name_no_folder() -> None:
    first, again = exported(NANO, ENCODE, SHIPPED), exported.__wrapped__(NANO, ENCODE, SHIPPED)
    assert first == again
    assert b".py" not in first and b"site-packages" not in first


def test_other_weights_give_other_bytes() -> None:
    other = program_module(build_model(NANO, random_seed=1), ENCODE, dtype=FP16)
    assert export_onnx(other, table_of(NANO, ENCODE, SHIPPED)) != exported(NANO, ENCODE, SHIPPED)


@name_of
def test_attention_is_computed_in_bfloat16_and_nothing_else_is_in_the_island(key: ProgramKey) -> None:
    graph = graph_of(exported(NANO, key, ISLAND))
    narrow = {x.name for x in graph.value_info if x.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16}
    inside = [node.op_type for node in graph.node if narrow.intersection(node.output)]
    moves = {"Cast", "Unsqueeze", "Squeeze", "Transpose", "Reshape"}
    assert set(inside) - moves <= {"Attention", "Mul", "MatMul", "Softmax"}
    model = network(NANO)
    num_blocks, num_layers = len(model.image_encoder.trunk.blocks), len(model.memory_attention.layers)
    num_attentions = num_blocks + 1 if key is ENCODE else 2 * num_layers - 1  # the decoder's own stays in float16
    assert inside.count("Attention") + inside.count("Softmax") == num_attentions


def test_float32_attention_which_no_kernel_fuses_is_spelled_out() -> None:
    operators = {node.op_type for node in graph_of(exported(NANO, TRACK, EXACT)).node}
    assert "Attention" not in operators and "Softmax" in operators


def test_a_parser_that_knows_no_attention_is_given_none() -> None:
    text = export_onnx(module_of(NANO, TRACK, SHIPPED), table_of(NANO, TRACK, SHIPPED), opset=SPELT_OUT_OPSET)
    model = onnx.load_from_string(text)
    assert [(x.domain, x.version) for x in model.opset_import if x.domain == ""] == [("", SPELT_OUT_OPSET)]
    assert "Attention" not in {node.op_type for node in model.graph.node}


def test_a_missing_exporter_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(BackendMissing, match="pip install onnxscript"):
        export_onnx(torch.nn.Identity(), table_of(NANO, ENCODE, SHIPPED))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("kind", ["encode", "track"])
def test_the_float32_graph_of_nano_agrees_with_its_module(kind: str, rows: int) -> None:
    key = ProgramKey("encode", rows) if kind == "encode" else ProgramKey("track", rows, rows)
    assert_within(errors(NANO, key, EXACT), largest=1e-5, rms=1e-5)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "key",
    [ProgramKey("encode", 2), ProgramKey("track", 2, 2), ProgramKey("track", 1, 1)],
    ids=lambda key: key.name,
)
def test_the_float32_graph_of_tiny_agrees_with_its_module(key: ProgramKey) -> None:
    """At 1024 pixels, where the scores of one row take 471 MB. The memory encoder takes masks twenty times steeper, and
    so the rounding errors of the logits; hence the second limit.
    """
    assert_within(errors(TINY, key, EXACT), largest=2e-5, rms=1e-5)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("precision", [SHIPPED, ISLAND], ids=["fp16", "island"])
def test_the_graphs_that_ship_pass_the_gate(precision: Precision) -> None:
    """Casts included, with nano's trained weights."""
    gate = Gate(build_model(NANO), spec_of(network(NANO), NANO), dtype=FP16, device=torch.device("cpu"))
    for key in (ENCODE, TRACK, ProgramKey("track", 2, 2)):
        program = OnnxProgram(exported(NANO, key, precision), table_of(NANO, key, precision))
        verdict = gate.judge(key, program, precision)
        assert verdict.passed, f"{key.name}: {verdict.reason}"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("precision", [SHIPPED, ISLAND], ids=["fp16", "island"])
@pytest.mark.parametrize("key", [ProgramKey("track", 1, 1), ProgramKey("encode", 1)], ids=lambda key: key.name)
def test_the_graphs_of_tiny_that_ship_stay_near_their_float32_twin(key: ProgramKey, precision: Precision) -> None:
    """At 1024 pixels; within a quarter of what the gate allows at most."""
    assert_within(errors(TINY, key, precision), largest=2e-2, rms=5e-3)
