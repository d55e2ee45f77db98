"""The way of a program through TensorRT: export, build, load, bind, run, capture, against the emulated library."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest
import torch
from onnx import helper
from pocket import clip_frames, pocket_engine, pocket_network
from tensorrt_emulator import FAULTS, World, install
from torch import Tensor, nn

from engines.graphs import spec_of
from engines.spec import BackendMissing, ProgramKey, ProgramSpec, program_spec
from engines.tensorrt import (
    SPELT_OUT_OPSET,
    BuildError,
    BuildOptions,
    EngineFault,
    Library,
    PlanProgram,
    build_plan,
    export_onnx,
    install_plan,
    load_library,
    load_program,
    program_module,
    tensorrt_engine,
    torch_export,
)
from engines.tensorrt.torch_export import export_torch_tensorrt
from stream.frame import Masks
from stream.tracker import Tracker

CPU = torch.device("cpu")
ENCODE, TRACK = ProgramKey("encode", 1), ProgramKey("track", 2, 1)
BF16_ISLAND = torch.bfloat16
LIMIT = 0.03  # of float16 programs computed in another order, relative to the greatest value
FLAVOURS = (("tensorrt", "11.0.0.114"), ("tensorrt", "10.15.1.29"), ("tensorrt-rtx", "1.7.1.116"))
AT_BUILD = ("parse_false", "build_none")
AT_LOAD = ("deserialize_none", "context_none", "address_false", "wrong_shape", "wrong_dtype", "wrong_mode")
AT_LOAD += ("missing_output",)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch, "tensorrt")


@functools.cache
def spec_for(key: ProgramKey, dtype: torch.dtype = torch.float16) -> ProgramSpec:
    return program_spec(spec_of(pocket_network(), "pocket"), key, dtype)


@functools.cache
def exported(key: ProgramKey, attention: torch.dtype = BF16_ISLAND, dtype: torch.dtype = torch.float16) -> bytes:
    module = program_module(pocket_network(), key, dtype=dtype, attention_dtype=attention)
    opset = {"opset": SPELT_OUT_OPSET} if dtype is torch.float32 else {}
    return export_onnx(module, spec_for(key, dtype), **opset)


@functools.cache
def example(key: ProgramKey) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs as a bank would have them, and what the module makes of them."""
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for tensor in spec_for(key).inputs:
        if tensor.dtype is torch.int64:
            inputs.append(torch.tensor([[6, 0, 1, 2, 3, 4, 5]]).expand(tensor.shape).contiguous())
        else:
            inputs.append(torch.randn(tensor.shape, generator=generator).to(tensor.dtype))
    module = program_module(pocket_network(), key, dtype=torch.float16, attention_dtype=BF16_ISLAND)
    with torch.inference_mode():
        return tuple(inputs), tuple(module(*inputs))


def loaded(library: Library, key: ProgramKey) -> PlanProgram:
    return load_program(library, build_plan(library, exported(key)), spec_for(key), device=CPU)


def worst(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The greatest error of any output, relative to that output's greatest value."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a.float() - b.float()).abs().max() / b.float().abs().max()) for a, b in pairs)


@pytest.mark.parametrize(("flavour", "version"), FLAVOURS)
@pytest.mark.parametrize("key", [ENCODE, TRACK], ids=lambda key: key.name)
def test_a_program_goes_the_whole_way_and_gives_what_its_module_gives(
    monkeypatch: pytest.MonkeyPatch, flavour: str, version: str, key: ProgramKey
) -> None:
    world = install(monkeypatch, flavour, version=version)
    library = load_library("tensorrt-rtx" if flavour == "tensorrt-rtx" else "tensorrt")
    inputs, wanted = example(key)
    program = loaded(library, key)
    assert library.version == version and program.spec == spec_for(key)
    assert worst(program(*inputs), wanted) < LIMIT
    assert world.calls.count("IExecutionContext.execute_async_v3") == 1


def test_tensors_are_bound_by_name_whatever_their_order_in_the_plan(world: World) -> None:
    program = loaded(load_library("tensorrt"), TRACK)
    engine = program._loaded.engine
    listed = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    own = [x.name for x in (*spec_for(TRACK).inputs, *spec_for(TRACK).outputs)]
    assert listed == own[::-1]
    inputs, wanted = example(TRACK)
    assert worst(program(*inputs), wanted) < LIMIT


def numbered(data: bytes) -> bytes:
    """The same program with the output names of Torch-TensorRT."""
    model = onnx.load_from_string(data)
    names = {value.name: f"output{index}" for index, value in enumerate(model.graph.output)}
    for node in model.graph.node:
        for where in (node.input, node.output):
            where[:] = [names.get(name, name) for name in where]
    for value in model.graph.output:
        value.name = names[value.name]
    text: bytes = model.SerializeToString()
    return text


def test_the_numbered_outputs_of_torch_tensorrt_are_those_of_the_table(world: World) -> None:
    library = load_library("tensorrt")
    program = load_program(library, build_plan(library, numbered(exported(TRACK))), spec_for(TRACK), device=CPU)
    inputs, wanted = example(TRACK)
    assert worst(program(*inputs), wanted) < LIMIT


def test_tensorrt_10_builds_nothing_that_is_not_strongly_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag has another number there than in TensorRT 11."""
    install(monkeypatch, "tensorrt", version="10.15.1.29")
    library = load_library("tensorrt")
    builder, typed = library.module.Builder(library.logger), library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    for flags, is_built in ((1 << int(typed), True), (1 << 0, False)):
        network = builder.create_network(flags)
        assert library.module.OnnxParser(network, library.logger).parse(exported(ENCODE))
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        assert (plan is not None) == is_built


def test_a_parser_without_the_attention_operator_gets_it_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt", version="10.3.0.30")
    library = load_library("tensorrt")
    with pytest.raises(BuildError, match="Attention"):
        build_plan(library, exported(TRACK))
    plan = build_plan(library, exported(TRACK, torch.float32, torch.float32))
    assert load_program(library, plan, spec_for(TRACK, torch.float32), device=CPU)


def test_attention_in_float32_is_not_built_where_no_kernel_is(world: World) -> None:
    shape, kind = (1, 1, 8, 16), onnx.TensorProto.FLOAT
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in "qkv"]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", kind, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with pytest.raises(BuildError, match="dedicated kernel"):
        build_plan(load_library("tensorrt"), model.SerializeToString())


@pytest.mark.parametrize("fault", AT_BUILD)
def test_a_build_that_fails_gives_no_plan_but_the_librarys_words(world: World, fault: str) -> None:
    world.faults.add(fault)
    with pytest.raises(BuildError, match=r"Attention|emulated refusal"):
        build_plan(load_library("tensorrt"), exported(TRACK))


@pytest.mark.parametrize("fault", AT_LOAD)
def test_a_plan_that_is_not_exactly_the_program_is_not_loaded(world: World, fault: str) -> None:
    library = load_library("tensorrt")
    plan = build_plan(library, exported(TRACK))
    world.faults.add(fault)
    with pytest.raises(EngineFault, match=TRACK.name):
        load_program(library, plan, spec_for(TRACK), device=CPU)


@pytest.mark.parametrize("fault", ["enqueue_false", "enqueue_false_later"])
def test_an_enqueue_that_is_refused_is_a_fault_and_no_result(world: World, fault: str) -> None:
    inputs, _ = example(TRACK)
    program = loaded(load_library("tensorrt"), TRACK)
    if fault == "enqueue_false_later":
        program(*inputs)
    else:
        world.faults.add("enqueue_false")
    world.faults.add(fault)
    with pytest.raises(EngineFault, match=TRACK.name):
        program(*inputs)


def test_the_plan_of_another_program_is_not_loaded(world: World) -> None:
    library = load_library("tensorrt")
    plan = build_plan(library, exported(TRACK))
    for other in (ENCODE, ProgramKey("track", 1, 1), ProgramKey("track", 2, 2)):
        with pytest.raises(EngineFault, match=other.name):
            load_program(library, plan, spec_for(other), device=CPU)


def flipped(plan: bytes) -> bytes:
    return plan[:-100] + bytes([plan[-100] ^ 1]) + plan[-99:]


@pytest.mark.parametrize("spoil", [lambda p: p[:-1], lambda p: p[: len(p) // 2], lambda p: b"", flipped])
def test_a_damaged_plan_is_refused(world: World, spoil: Callable[[bytes], bytes]) -> None:
    library = load_library("tensorrt")
    plan = build_plan(library, exported(ENCODE))
    with pytest.raises(EngineFault, match=r"encode-f1: tensorrt 11.* refuses the plan"):
        load_program(library, spoil(plan), spec_for(ENCODE), device=CPU)


def test_a_plan_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt", version="10.15.1")
    plan = build_plan(load_library("tensorrt"), exported(ENCODE))
    install(monkeypatch, "tensorrt", version="11.0.0")
    with pytest.raises(EngineFault, match=r"10\.15\.1"):
        load_program(load_library("tensorrt"), plan, spec_for(ENCODE), device=CPU)


@pytest.mark.parametrize("faults", ["", "timing_cache_false"])
def test_the_timing_cache_is_kept_and_a_foreign_one_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faults: str
) -> None:
    install(monkeypatch, "tensorrt", faults=faults)
    cache = tmp_path / "private" / "timing.bin"
    cache.parent.mkdir()
    cache.write_bytes(b"of another GPU")
    build_plan(load_library("tensorrt"), exported(ENCODE), BuildOptions(timing_cache=cache))
    assert cache.read_bytes() == (b"emulated tactics" if faults else b"of another GPU")
    assert cache.stat().st_mode & 0o077 == 0


def test_a_build_tells_how_far_it_is(world: World) -> None:
    told: list[tuple[str, float]] = []
    build_plan(load_library("tensorrt"), exported(ENCODE), progress=lambda phase, share: told.append((phase, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] == 1.0 and told[-1][0] == "Building Engine"


def test_targets_are_for_tensorrt_rtx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt")
    with pytest.raises(BuildError, match="sm89"):
        build_plan(load_library("tensorrt"), exported(ENCODE), BuildOptions(targets=("sm89",)))
    world = install(monkeypatch, "tensorrt-rtx")
    build_plan(load_library("tensorrt-rtx"), exported(ENCODE), BuildOptions(targets=("sm80", "sm89", "sm120")))
    assert world.calls.count("IBuilderConfig.set_compute_capability") == 3


def aligned(tensor: Tensor) -> Tensor:
    """A copy that begins at a multiple of 256 bytes, as all that torch allocates on a GPU does."""
    size = tensor.element_size()
    room = torch.zeros(tensor.numel() + 256 // size, dtype=tensor.dtype)
    start = -room.data_ptr() % 256 // size
    return room[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)


def test_a_captured_call_runs_again_on_the_addresses_of_then(world: World) -> None:
    inputs, wanted = example(TRACK)
    program = loaded(load_library("tensorrt"), TRACK)
    fixed = tuple(aligned(torch.zeros_like(x)) for x in inputs)
    program(*fixed)  # what is made once is made here
    with world.capture():
        outputs = program(*fixed)
    before = [x.clone() for x in outputs]
    for place, value in zip(fixed, inputs, strict=True):
        place.copy_(value)
    assert all(torch.equal(a, b) for a, b in zip(outputs, before, strict=True)), "a captured call computes nothing"
    world.replay()
    assert worst(outputs, wanted) < LIMIT
    assert len(world.recorded) == 1


def test_outputs_lie_at_the_same_place_at_every_call(world: World) -> None:
    inputs, _ = example(ENCODE)
    program = loaded(load_library("tensorrt"), ENCODE)
    first = [x.data_ptr() for x in program(*inputs)]
    assert [x.data_ptr() for x in program(*(x.clone() for x in inputs))] == first


def follow(tracker: Tracker) -> list[Masks]:
    """Two objects over 24 frames: their banks are full when the 17th comes."""
    for index, (x, y) in enumerate(((30, 40), (70, 50))):
        tracker.add(index, points=[(x, y, 1)])
    return [tracker.step(frame) for frame in clip_frames(1, 24)]


def test_an_engine_of_plans_tracks_a_clip_as_eager_does(world: World) -> None:
    eager = pocket_engine(dtype=torch.float16)
    library = load_library("tensorrt")
    engine = tensorrt_engine(eager, pocket_network(), library, attention_dtype=BF16_ISLAND)
    for key in (ENCODE, TRACK):
        install_plan(engine, library, key, plan=build_plan(library, exported(key)))
    wanted, found = follow(Tracker(eager)), follow(Tracker(engine))
    num_runs = world.calls.count("IExecutionContext.execute_async_v3")
    assert num_runs == 24 + 8, "every frame is encoded by a plan, and every full bank tracked by one"
    assert engine.backend == "tensorrt" and engine.installed == (ENCODE, TRACK)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.object_ids == theirs.object_ids
        assert max(abs(a - b) for a, b in zip(ours.areas, theirs.areas, strict=True)) <= 0.02 * 96 * 112


def test_without_torch_tensorrt_the_command_that_brings_it_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    monkeypatch.setattr(torch_export, "has_torch_tensorrt", lambda: False)
    with pytest.raises(BackendMissing, match="pip install torch-tensorrt"):
        export_torch_tensorrt(load_library("tensorrt"), nn.Identity(), spec_for(ENCODE))


def test_torch_tensorrt_of_the_other_library_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch-tensorrt-rtx` has the same module name, and would build for the other library without a word."""
    monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
    features = ModuleType("torch_tensorrt._features")
    features.ENABLED_FEATURES = SimpleNamespace(tensorrt_rtx=True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt._features", features)
    monkeypatch.setattr(torch_export, "has_torch_tensorrt", lambda: True)
    with pytest.raises(BackendMissing, match=r"needs torch-tensorrt$"):
        export_torch_tensorrt(load_library("tensorrt"), nn.Identity(), spec_for(ENCODE))


@pytest.mark.parametrize("fault", ["stale_output", "swap_rows", "nan"])
def test_the_emulators_wrong_results_are_seen_in_the_outputs(world: World, fault: str) -> None:
    """What the gate must find, see `engines.build`."""
    inputs, wanted = example(TRACK)
    program = loaded(load_library("tensorrt"), TRACK)
    program(*(torch.zeros_like(x) for x in inputs))
    assert worst(program(*inputs), wanted) < LIMIT
    program(*(torch.zeros_like(x) for x in inputs))
    world.faults.add(fault)
    assert not worst(program(*inputs), wanted) < 2 * LIMIT


def test_the_emulator_refuses_what_the_bindings_refuse(world: World) -> None:
    module = load_library("tensorrt").module
    builder = module.Builder(load_library("tensorrt").logger)
    config = builder.create_builder_config()
    for wrong in (
        lambda: builder.create_network(flag=1),
        lambda: builder.create_network("strong"),
        lambda: config.set_flag(6),
        lambda: config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE),
        lambda: module.Runtime(),
        lambda: setattr(config, "builder_optimization_level", "5"),
    ):
        with pytest.raises(TypeError):
            wrong()
    for absent in (
        lambda: module.BuilderFlag.FP16,
        lambda: module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
        lambda: config.set_compute_capability,
        lambda: setattr(config, "optimization_level", 5),
        lambda: builder.build_engine,
    ):
        with pytest.raises(AttributeError):
            absent()


def test_a_child_process_finds_the_emulator_with_its_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt", version="11.0.0", faults="build_none")
    code = "import tensorrt; print(tensorrt.__version__, tensorrt.Builder.world.faults)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "11.0.0 {'build_none'}\n"


def test_every_fault_is_tried_here() -> None:
    later = {"enqueue_false", "enqueue_false_later", "timing_cache_false", "stale_output", "swap_rows", "nan"}
    assert {*AT_BUILD, *AT_LOAD, *later} == set(FAULTS)
