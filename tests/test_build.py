"""From a request to verified plans: the ladder of formats, what is kept and what is set aside, the child process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_builder import GPU
from pocket import pocket_network
from sam2.modeling.sam2_base import SAM2Base
from tensorrt_emulator import World, install
from torch import nn

import engines.build.making as making
import engines.build.route as route
from engines.build import (
    EngineCache,
    EngineRequest,
    Gate,
    Order,
    Precision,
    Shelf,
    Verdict,
    Workshop,
    is_suspect,
    open_engine,
)
from engines.build.tidings import Tidings
from engines.programmed import ProgrammedEngine
from engines.spec import BackendMissing, ProgramKey, ProgramSpec
from engines.tensorrt import BuildError, BuildOptions, Gpu, Library, build_plan, export_onnx

CPU = torch.device("cpu")
FP16, BF16 = torch.float16, torch.bfloat16
ONE, TWO = ProgramKey("encode", 1), ProgramKey("encode", 2)
REQUEST = EngineRequest("nano", None, CPU, FP16, "tensorrt")

Judge = Callable[[Gate, ProgramKey, Any, Precision], Verdict]


@pytest.fixture(scope="module")
def network() -> SAM2Base:
    return pocket_network()


@pytest.fixture(scope="module")
def exported() -> dict[tuple[str, str], bytes]:
    """What was exported already; seconds a program."""
    return {}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, exported: dict[tuple[str, str], bytes]) -> World:
    """An emulated TensorRT on an emulated GPU."""

    def export(module: nn.Module, spec: ProgramSpec, *, opset: int) -> bytes:
        key = (spec.name, str(module.encode.look_around.own.kernel))  # type: ignore[union-attr]
        if key not in exported:
            exported[key] = export_onnx(module, spec, opset=opset)
        return exported[key]

    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
    monkeypatch.setattr(route, "export_onnx", export)
    found: World = install(monkeypatch, "tensorrt")
    return found


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def made(cache: EngineCache, network: SAM2Base, *keys: ProgramKey, again: bool = False) -> list[Tidings]:
    """Build in this process."""
    tidings: list[Tidings] = []
    making.make_plans(Shelf(REQUEST, cache=cache), network, Order(keys, again=again), tell=tidings.append)
    return tidings


def kinds(tidings: list[Tidings]) -> list[str]:
    return [one.kind for one in tidings if one.kind != "stage"]


def opened(cache: EngineCache, network: SAM2Base) -> ProgrammedEngine:
    engine = open_engine(REQUEST, network=network, cache=cache)
    assert isinstance(engine, ProgrammedEngine)
    return engine


def refusing(*names: str) -> Judge:
    """A gate that refuses these number formats."""

    def judge(gate: Gate, key: ProgramKey, program: Any, precision: Precision) -> Verdict:
        return Verdict(precision.name not in names, "too far off" if precision.name in names else "")

    return judge


def test_a_program_is_built_verified_kept_and_opened(world: World, cache: EngineCache, network: SAM2Base) -> None:
    assert kinds(made(cache, network, ONE)) == ["ready", "done"]
    (entry,) = cache.entries()
    assert entry.label.verdict is not None
    assert entry.label.verdict.passed
    assert entry.label.recipe.precision == "float16"
    engine = opened(cache, network)
    assert engine.installed == (ONE,)
    frames = torch.randn(1, 3, 64, 64)
    for ours, wanted in zip(engine.encode(frames), engine.inner.encode(frames), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0.02, atol=0.02)


def test_what_is_there_is_not_built_again(world: World, cache: EngineCache, network: SAM2Base) -> None:
    made(cache, network, ONE)
    world.calls.clear()
    assert kinds(made(cache, network, ONE)) == ["ready", "done"]
    assert not any(call.startswith("Builder") for call in world.calls)


@pytest.mark.parametrize("fault", [BuildError("no such converter"), BackendMissing("not installed"), None], ids=str)
def test_torch_tensorrt_is_asked_first_and_onnx_where_it_cannot(
    world: World, cache: EngineCache, network: SAM2Base, *, fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def export(library: Library, module: nn.Module, spec: ProgramSpec, *, options: BuildOptions) -> bytes:
        asked.append(spec.name)
        if fault is not None:
            raise fault
        return build_plan(library, route.export_onnx(module, spec, opset=23), options)

    monkeypatch.setattr(route, "has_torch_tensorrt", lambda: True)
    monkeypatch.setattr(route, "export_torch_tensorrt", export)
    told = made(cache, network, ONE)
    assert kinds(told) == ["ready", "done"]
    assert asked == [ONE.name]
    assert any("Torch-TensorRT cannot" in one.text for one in told) is (fault is not None)
    assert any(one.text.startswith("export") for one in told) is (fault is not None)


def test_attention_without_a_fused_kernel_is_spelled_out(
    world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other complaint of the builder is answered so."""
    opsets: list[int] = []

    def build(library: Library, onnx: bytes, options: BuildOptions, **rest: Any) -> bytes:
        opsets.append(int.from_bytes(onnx, "big"))
        if opsets[-1] == 23:
            raise BuildError("Attention operation was not supported by a dedicated kernel")
        raise BuildError("out of memory")

    monkeypatch.setattr(route, "export_onnx", lambda module, spec, opset: bytes([opset]))
    monkeypatch.setattr(route, "build_plan", build)
    told = made(cache, network, ONE)
    assert opsets == [23, 20, 23, 20]  # both formats
    assert "not built: out of memory" in told[-2].text


def test_where_half_precision_fails_attention_becomes_a_bfloat16_island(
    world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its sisters do not try again what has failed."""
    monkeypatch.setattr(Gate, "judge", refusing("float16"))
    assert kinds(made(cache, network, ONE, TWO)) == ["ready", "ready", "done"]
    assert {entry.label.recipe.precision for entry in cache.entries()} == {"float16-attention-bfloat16"}
    assert [entry.label.recipe.program for entry in cache.entries(refused=True)] == [ONE.name]


def test_a_program_that_fails_in_all_formats_is_set_aside_and_not_tried_again(
    world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody asks for it."""
    monkeypatch.setattr(Gate, "judge", refusing("float16", "float16-attention-bfloat16"))
    told = made(cache, network, ONE)
    assert kinds(told) == ["refused", "done"]
    assert "float16-attention-bfloat16: too far off" in told[-2].text
    assert not cache.entries()
    assert len(cache.entries(refused=True)) == 2
    assert Shelf(REQUEST, cache=cache).missing([ONE]) == ()
    assert Workshop(REQUEST, order=Order((ONE,)), cache=cache).missing == ()
    assert Workshop(REQUEST, order=Order((ONE,), again=True), cache=cache).missing == (ONE,)
    monkeypatch.undo()
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
    install(monkeypatch, "tensorrt")
    assert kinds(made(cache, network, ONE, again=True)) == ["ready", "done"]
    assert len(cache.entries(refused=True)) == 1  # the other format's


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("build_none", "not built"),
        ("parse_false", "not built"),
        ("deserialize_none", "not loaded"),
        ("wrong_shape", "not loaded"),
        ("enqueue_false", "did not run"),
        ("stale_output", "off by"),
        ("nan", "off by inf"),
    ],
)
def test_a_plan_of_a_misbehaving_library_is_refused_with_the_reason(
    world: World, cache: EngineCache, network: SAM2Base, *, fault: str, said: str
) -> None:
    world.faults.add(fault)
    told = made(cache, network, ONE)
    assert kinds(told) == ["refused", "done"]
    assert said in told[-2].text
    assert not cache.entries()
    verdicts = [entry.label.verdict for entry in cache.entries(refused=True)]
    assert all(verdict is not None and not verdict.passed and said in verdict.reason for verdict in verdicts)


def test_a_plan_that_went_wrong_since_it_was_built_is_set_aside_at_the_start(
    world: World, cache: EngineCache, network: SAM2Base, caplog: pytest.LogCaptureFixture
) -> None:
    made(cache, network, ONE)
    world.faults.add("stale_output")
    assert opened(cache, network).installed == ()
    assert "encode-f1 on tensorrt refused: " in caplog.text
    assert not cache.entries()
    (kept,) = cache.entries(refused=True)
    assert kept.label.verdict is not None
    assert kept.label.verdict.figures["features_fchw"][0] > 0.1
    world.faults.clear()
    assert opened(cache, network).installed == ()  # it stays refused


def test_a_damaged_plan_is_built_anew(world: World, cache: EngineCache, network: SAM2Base) -> None:
    made(cache, network, ONE)
    path = cache.entries()[0].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert opened(cache, network).installed == ()
    assert Shelf(REQUEST, cache=cache).missing([ONE]) == (ONE,)
    assert kinds(made(cache, network, ONE)) == ["ready", "done"]


@pytest.mark.parametrize(
    "gpu", [Gpu("Another", "sm89", "1"), Gpu("Emulated", "sm90", "1"), Gpu("Emulated", "sm89", "2")], ids=str
)
def test_another_gpu_or_driver_needs_plans_of_its_own(
    world: World, cache: EngineCache, network: SAM2Base, *, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(cache, network, ONE)
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: gpu)
    assert Shelf(REQUEST, cache=cache).missing([ONE]) == (ONE,)


def test_plans_of_random_weights_are_never_run(world: World, cache: EngineCache, network: SAM2Base) -> None:
    """The seed is in their key, and nothing but a build ever asks with a seed."""
    random = EngineRequest("nano", None, CPU, FP16, "tensorrt", random_seed=7)
    making.make_plans(Shelf(random, cache=cache), network, Order((ONE,)), tell=lambda tidings: None)
    assert cache.entries()[0].label.recipe.weights == "random 7"
    assert opened(cache, network).installed == ()


def test_a_plan_that_was_timed_on_a_busy_gpu_is_suspect_and_built_anew_on_request(
    world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "is_busy", lambda device: True)
    told = made(cache, network, ONE)
    assert "timed on a busy GPU" in told[-2].text
    assert is_suspect(cache.entries()[0])
    assert opened(cache, network).installed == (ONE,)  # slow at worst
    monkeypatch.setattr(making, "is_busy", lambda device: False)
    assert Workshop(REQUEST, order=Order((ONE,)), cache=cache).missing == ()
    assert Workshop(REQUEST, order=Order((ONE,), again=True), cache=cache).missing == (ONE,)
    made(cache, network, ONE, again=True)
    assert not is_suspect(cache.entries()[0])


RTX = EngineRequest("nano", None, CPU, FP16, "tensorrt-rtx")


@pytest.fixture
def rtx_world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    found: World = install(monkeypatch, "tensorrt-rtx")
    return found


def test_rtx_plans_for_other_machines_are_verified_at_their_first_start(
    rtx_world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: None)  # here is no GPU at all
    told: list[Tidings] = []
    shelf = Shelf(RTX, cache=cache, targets=("sm89", "sm80"))
    making.make_plans(shelf, network, Order((ONE,), ("sm89", "sm80")), tell=told.append)
    assert "not verified" in told[-2].text
    assert cache.entries()[0].label.verdict is None
    for target, installed in (("sm89", (ONE,)), ("sm80", (ONE,)), ("sm120", ())):
        monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device, sm=target: Gpu("There", sm, "1"))
        engine = open_engine(RTX, network=network, cache=cache)
        assert isinstance(engine, ProgrammedEngine)
        assert engine.installed == installed
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: Gpu("There", "sm89", "1"))
    rtx_world.faults.add("swap_rows")
    rtx_world.faults.add("nan")
    engine = open_engine(RTX, network=network, cache=cache)
    assert isinstance(engine, ProgrammedEngine)
    assert engine.installed == ()
    assert Shelf(RTX, cache=cache).missing([ONE]) == (ONE,)  # the other format is left to try


def test_what_rtx_compiled_for_this_gpu_is_kept_for_the_next_start(
    rtx_world: World, cache: EngineCache, network: SAM2Base
) -> None:
    making.make_plans(Shelf(RTX, cache=cache), network, Order((ONE,)), tell=lambda tidings: None)
    assert {entry.label.recipe.program for entry in cache.entries()} == {"encode-f1", "encode-f1-kernels"}
    rtx_world.calls.clear()
    engine = open_engine(RTX, network=network, cache=cache)
    assert isinstance(engine, ProgrammedEngine)
    assert engine.installed == (ONE,)
    assert "IRuntimeCache.deserialize" in rtx_world.calls


@pytest.mark.parametrize(
    ("request_", "targets", "said"),
    [
        (REQUEST, ("sm89",), "does not build for sm89; expected only the GPU of the machine"),
        (RTX, ("sm90",), "does not build for sm90; expected sm75"),
    ],
)
def test_targets_that_a_library_cannot_build_for_are_named(
    rtx_world: World, cache: EngineCache, request_: EngineRequest, *, targets: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BackendMissing, match=said):
        Shelf(request_, cache=cache, targets=targets)


def test_without_a_gpu_a_plan_backend_says_so(
    world: World, cache: EngineCache, network: SAM2Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: None)
    with pytest.raises(BackendMissing, match="needs an NVIDIA GPU"):
        open_engine(REQUEST, network=network, cache=cache)


@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_engines_without_plans_are_opened_by_name(backend: str, network: SAM2Base) -> None:
    request = EngineRequest("nano", None, CPU, torch.float32, backend)
    assert open_engine(request, network=network).backend == backend


def test_an_unknown_backend_is_named_with_the_known_ones(network: SAM2Base) -> None:
    request = EngineRequest("nano", None, CPU, torch.float32, "fast")
    with pytest.raises(BackendMissing, match="'fast'; expected eager, compiled, tensorrt, tensorrt-rtx"):
        open_engine(request, network=network)


def test_a_request_survives_its_journey_to_the_child() -> None:
    for request in (REQUEST, EngineRequest("x", Path("/a/b.pt"), torch.device("cuda:1"), BF16, "compiled", 7)):
        assert EngineRequest.from_json(request.to_json()) == request
    order = Order((ONE, ProgramKey("track", 4, 2)), ("sm80",), again=True)
    assert Order.from_json(order.to_json()) == order


def test_what_is_needed_first_is_built_first() -> None:
    first = Order().keys[:2]
    assert set(first) == {ProgramKey("encode", 1), ProgramKey("track", 1, 1)}
    assert len(Order().keys) == len(set(Order().keys)) == 14
