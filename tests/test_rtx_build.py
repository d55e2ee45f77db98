"""NVIDIA's own builder, TensorRT-RTX, builds every program on a machine without a GPU: each as one engine, with fused
attention, for three generations of cards at once.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hydra.utils import instantiate

from engines.graphs import spec_of
from engines.spec import BackendMissing, ProgramKey, program_keys, program_spec
from engines.tensorrt import (
    BuildError,
    BuildOptions,
    EngineFault,
    Library,
    build_plan,
    export_onnx,
    load_library,
    load_program,
    program_module,
)
from engines.weights import build_model, model_config

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
NANO, TINY = "nano", "sam2.1-hiera-tiny"
LARGER = ("sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large")
TARGETS = ("sm80", "sm89", "sm120")  # A100, RTX 40, RTX 50
ENCODE, TRACK = ProgramKey("encode", 1), ProgramKey("track", 1, 1)
NUM_CROSS_AND_SELF, NUM_IN_DECODER = 7, 7  # attentions of the program `track`
by_name = {"ids": lambda key: key.name}


@cache
def network(model: str) -> Any:
    return build_model(model, random_seed=4)


@lru_cache(maxsize=2)
def exported(model: str, key: ProgramKey, *, dtype: torch.dtype = FP16, attention: torch.dtype | None = None) -> bytes:
    module = program_module(network(model), key, dtype=dtype, attention_dtype=attention)
    return export_onnx(module, program_spec(spec_of(network(model), model), key, dtype))


def operators(text: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(text).graph.node)


@pytest.fixture(scope="module")
def library() -> Library:
    try:
        return load_library("tensorrt-rtx")
    except BackendMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", program_keys(), **by_name)
def test_every_program_of_tiny_is_built_as_one_engine_with_fused_attention(library: Library, key: ProgramKey) -> None:
    """The operator `Attention` is never built unfused; that all of them are there is what says that all are fused."""
    text = exported(TINY, key)
    num_blocks = len(network(TINY).image_encoder.trunk.blocks)
    wanted = num_blocks + 1 if key.kind == "encode" else NUM_CROSS_AND_SELF + NUM_IN_DECODER
    assert operators(text)["Attention"] == wanted and operators(text)["Softmax"] == 0
    plan = build_plan(library, text, BuildOptions(targets=TARGETS))
    assert len(plan) > len(text) / 2, "the weights are in the plan"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", [ENCODE, TRACK, ProgramKey("track", 16, 2)], **by_name)
def test_attention_in_bfloat16_is_fused_as_well(library: Library, key: ProgramKey) -> None:
    text = exported(TINY, key, attention=BF16)
    assert operators(text)["Softmax"] == 0
    assert build_plan(library, text, BuildOptions(targets=TARGETS))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", [ENCODE, TRACK], **by_name)
def test_float32_programs_are_built_too(library: Library, key: ProgramKey) -> None:
    assert build_plan(library, exported(TINY, key, dtype=FP32), BuildOptions(targets=TARGETS))


@pytest.mark.parametrize("key, attention", [(ENCODE, FP16), (TRACK, FP16), (ProgramKey("track", 4, 2), BF16)])
def test_nano_is_built(library: Library, key: ProgramKey, attention: torch.dtype) -> None:
    """Some of its attention is too small for a fused kernel, and spelled out."""
    assert build_plan(library, exported(NANO, key, attention=attention), BuildOptions(targets=TARGETS))


@pytest.mark.timeout(300)
def test_a_single_row_of_smaller_pictures_is_built(library: Library) -> None:
    """One head that looks at 512 pixels' tokens is too small for a fused kernel; the decoder's eight are not."""
    config = model_config(TINY)
    config.image_size = 512
    small = instantiate(config, _recursive_=True).float().eval().requires_grad_(False)
    module = program_module(small, TRACK, dtype=FP16)
    text = export_onnx(module, program_spec(spec_of(small, TINY), TRACK, FP16))
    assert operators(text)["Softmax"] == NUM_CROSS_AND_SELF and operators(text)["Attention"] == NUM_IN_DECODER
    assert build_plan(library, text, BuildOptions(targets=TARGETS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("key", [ENCODE, TRACK], **by_name)
@pytest.mark.parametrize("model", LARGER)
def test_the_larger_models_are_built_with_fused_attention(library: Library, model: str, key: ProgramKey) -> None:
    text = exported(model, key)
    assert operators(text)["Softmax"] == 0
    assert build_plan(library, text, BuildOptions(targets=TARGETS))


def test_attention_without_a_fused_kernel_is_refused_in_the_librarys_words(library: Library) -> None:
    """As the exporter would leave it, were it not spelled out."""
    shape, kind = (1, 1, 64, 32), onnx.TensorProto.FLOAT
    tensors = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("query", "key", "value", "out")]
    node = onnx.helper.make_node("Attention", ["query", "key", "value"], ["out"])
    graph = onnx.helper.make_graph([node], "lone", tensors[:3], tensors[3:])
    opset = onnx.helper.make_opsetid("", 23)
    text = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    with pytest.raises(BuildError, match="not supported by a dedicated kernel"):
        build_plan(library, text, BuildOptions(targets=("sm89",)))


def test_a_plan_for_several_targets_is_built_for_each_of_them(library: Library) -> None:
    """Turing (RTX 20) has no kernel for the heads' float32 products: so one target that fails fails them all."""
    with pytest.raises(BuildError, match="SM75"):
        build_plan(library, exported(NANO, TRACK), BuildOptions(targets=("sm80", "sm75", "sm89")))


def test_progress_grows_to_the_whole(library: Library) -> None:
    told: list[tuple[str, float]] = []
    text = exported(NANO, ENCODE)
    build_plan(library, text, BuildOptions(targets=("sm89",)), progress=lambda *now: told.append(now))
    shares = [share for _, share in told]
    assert shares == sorted(set(shares)) and shares[-1] == 1.0 and len(shares) >= 10
    assert all(name for name, _ in told)


def test_an_unknown_target_is_refused_with_those_that_are_known(library: Library) -> None:
    with pytest.raises(BuildError, match=r"does not know sm90, only .*sm89"):
        build_plan(library, exported(NANO, ENCODE), BuildOptions(targets=("sm90",)))


def test_what_is_no_program_is_refused(library: Library) -> None:
    with pytest.raises(BuildError):
        build_plan(library, b"no program", BuildOptions(targets=("sm89",)))


def test_it_times_nothing_and_so_leaves_no_timing_cache(library: Library, tmp_path: Path) -> None:
    options = BuildOptions(targets=("sm89",), timing_cache=tmp_path / "private" / "timing")
    assert build_plan(library, exported(NANO, ENCODE), options)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_without_a_driver_a_plan_is_refused_by_name(library: Library) -> None:
    plan = build_plan(library, exported(NANO, ENCODE), BuildOptions(targets=("sm89",)))
    spec = program_spec(spec_of(network(NANO), NANO), ENCODE, FP16)
    with pytest.raises(EngineFault, match=r"encode-f1: tensorrt-rtx .* refuses the plan: .*driver"):
        load_program(library, plan, spec, device=torch.device("cpu"))
