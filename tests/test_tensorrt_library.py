"""What is loaded, for which GPU, on which stream, and how far a build is: without NVIDIA's library or a GPU."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from pocket import pocket_network
from tensorrt_emulator import World, install

from engines.graphs import empty_prompt, spec_of
from engines.spec import BackendMissing, ProgramKey, program_spec
from engines.tensorrt import (
    BuildOptions,
    Gpu,
    build_plan,
    export_onnx,
    find_gpu,
    load_library,
    load_program,
    program_module,
)
from engines.tensorrt.lane import CudaLane
from engines.tensorrt.progress import Phases

CPU, SECOND_GPU = torch.device("cpu"), torch.device("cuda:1")
H200, RTX_4090 = Gpu("NVIDIA H200", "sm90", "580.65"), Gpu("NVIDIA GeForce RTX 4090", "sm89", "580.65")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch, "tensorrt")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_library_is_told_with_the_command_that_brings_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BackendMissing, match=rf"pip install 'sam2-stream\[{name}\]'"):
        load_library(name)  # type: ignore[arg-type]


def test_bindings_without_their_library_are_as_good_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> ModuleType:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(BackendMissing, match=r"libnvinfer\.so\.11: cannot open"):
        load_library("tensorrt")


def test_a_library_is_loaded_once_and_keeps_its_logger(world: World) -> None:
    first, again = load_library("tensorrt"), load_library("tensorrt")
    assert first is again and first.logger is again.logger


def test_complaints_are_taken_once(world: World) -> None:
    library = load_library("tensorrt")
    severity = library.module.ILogger.Severity
    library.logger.log(severity.WARNING, "slow")
    library.logger.log(severity.ERROR, "broken")
    library.logger.log(severity.INTERNAL_ERROR, "very broken")
    assert library.take_errors() == "broken; very broken"
    assert library.take_errors() == "no reason given"


def test_a_gpu_that_the_library_does_not_know_is_named_with_those_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt-rtx")
    library = load_library("tensorrt-rtx")
    with pytest.raises(BackendMissing, match=r"does not know NVIDIA H200 \(sm90\), only .*sm89"):
        library.check_gpu(H200)
    assert library.check_gpu(RTX_4090) == RTX_4090


def test_tensorrt_takes_any_gpu_but_needs_one(world: World) -> None:
    library = load_library("tensorrt")
    assert library.check_gpu(H200) == H200
    with pytest.raises(BackendMissing, match="needs an NVIDIA GPU"):
        library.check_gpu(find_gpu(CPU))


def test_a_program_is_called_in_and_out_of_inference_mode(world: World) -> None:
    """The gate calls it inside, the tracker outside; an input that is not in one piece has a buffer from then on."""
    network, key = pocket_network(), ProgramKey("track", 2, 1)
    library, spec = load_library("tensorrt"), program_spec(spec_of(network, "pocket"), key, torch.float16)
    plan = build_plan(library, export_onnx(program_module(network, key, dtype=torch.float16), spec), BuildOptions())
    program = load_program(library, plan, spec, device=CPU)
    inputs = [torch.zeros(x.shape, dtype=x.dtype) for x in spec.inputs]
    inputs[-1] = empty_prompt(network).expand(2, -1, -1)
    assert not inputs[-1].is_contiguous()
    with torch.inference_mode():
        inside = [x.clone() for x in program(*inputs)]
    outside = program(*inputs)
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))


class FakeDevice:
    """Of torch.cuda: the thread's current GPU."""

    current: torch.device | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> None:
        FakeDevice.current = self._device

    def __exit__(self, *error: object) -> None:
        FakeDevice.current = None


class FakeStream:
    """Of torch.cuda; writes down who waits for whom."""

    def __init__(self, handle: int, notes: list[str]) -> None:
        self.cuda_stream, self._notes = handle, notes

    def wait_stream(self, other: FakeStream) -> None:
        self._notes.append(f"{self.cuda_stream} waits for {other.cuda_stream}")


@pytest.mark.parametrize(
    "current, wanted",
    [(7, ["enqueued on 7"]), (0, ["9 waits for 0", "enqueued on 9", "0 waits for 9"])],
    ids=["current", "default"],
)
def test_work_goes_to_the_current_stream_and_never_to_the_default_one(
    current: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(9, notes))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(current, notes))
    monkeypatch.setattr(torch.cuda, "device", FakeDevice)

    def enqueue(handle: int) -> bool:
        assert FakeDevice.current == SECOND_GPU, "the library takes the thread's current GPU"
        notes.append(f"enqueued on {handle}")
        return False

    assert CudaLane(SECOND_GPU).launch(enqueue) is False, "the library's answer is handed on"
    assert FakeDevice.current is None
    assert notes == wanted


def test_inner_phases_fill_the_step_of_the_outer_one() -> None:
    told: list[tuple[str, float]] = []
    phases = Phases(lambda *now: told.append(now))
    phases.start("build", 2)
    phases.start("optimise", 4)
    for step in range(4):
        phases.step("optimise", step)
    phases.finish("optimise")
    phases.step("build", 0)
    phases.start("time", 1)
    phases.finish("time")
    phases.finish("build")
    assert told == [
        ("optimise", 0.12),
        ("optimise", 0.25),
        ("optimise", 0.37),
        ("optimise", 0.5),
        ("time", 1.0),
    ]
