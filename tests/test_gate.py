"""The gate lets honest programs through in every number format, and none that is subtly wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from pocket import pocket_network
from sam2.modeling.sam2_base import SAM2Base
from tensorrt_emulator import World, install
from torch import Tensor, nn

from engines.build import LIMITS, Gate, Precision, Verdict
from engines.build.request import ladder
from engines.graphs import spec_of
from engines.spec import ModelSpec, ProgramKey, ProgramSpec, program_spec
from engines.tensorrt import BuildOptions, build_plan, export_onnx, load_library, load_program, program_module
from engines.weights import build_model

CPU = torch.device("cpu")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
ENCODE, TRACK, TRACK_TWICE_PROMPTED = ProgramKey("encode", 2), ProgramKey("track", 2, 1), ProgramKey("track", 2, 2)
Tensors = tuple[Tensor, ...]
Change = Callable[[list[Tensor]], Sequence[Tensor]]


class EagerProgram:
    """A program of plain torch, as a backend hands it out; what subclasses get wrong is in their names."""

    def __init__(self, network: SAM2Base, key: ProgramKey, precision: Precision) -> None:
        self.spec: ProgramSpec = program_spec(spec_of(network, ""), key, precision.dtype)
        self.module: nn.Module = program_module(
            network, key, dtype=precision.dtype, attention_dtype=precision.attention_dtype
        )

    def __call__(self, *inputs: Tensor) -> Tensors:
        result: Tensors = self.module(*inputs)
        return result


class Changed(EagerProgram):
    """Its inputs are changed before it sees them."""

    def __init__(self, network: SAM2Base, key: ProgramKey, precision: Precision, change: Change) -> None:
        super().__init__(network, key, precision)
        self.change = change

    def __call__(self, *inputs: Tensor) -> Tensors:
        return super().__call__(*self.change(list(inputs)))


class Spoilt(EagerProgram):
    """Its outputs are changed before anybody else sees them."""

    def __init__(self, network: SAM2Base, key: ProgramKey, precision: Precision, change: Change) -> None:
        super().__init__(network, key, precision)
        self.change = change

    def __call__(self, *inputs: Tensor) -> Tensors:
        return tuple(self.change(list(super().__call__(*inputs))))


class Late(EagerProgram):
    """One output is that of the call before."""

    def __init__(self, network: SAM2Base, key: ProgramKey, precision: Precision, place: int) -> None:
        super().__init__(network, key, precision)
        self.place, self.kept = place, torch.zeros(())

    def __call__(self, *inputs: Tensor) -> Tensors:
        outputs = list(super().__call__(*inputs))
        previous, self.kept = self.kept, outputs[self.place]
        outputs[self.place] = previous if previous.dim() else self.kept
        return tuple(outputs)


def swap_rows(outputs: list[Tensor], places: Sequence[int]) -> list[Tensor]:
    return [x.flip(0) if place in places else x for place, x in enumerate(outputs)]


def drifted(outputs: list[Tensor], share: float) -> list[Tensor]:
    return [x * (1 + share) for x in outputs]


@dataclass(frozen=True)
class Bench:
    """A model and its gates, whose recordings are made once."""

    network: SAM2Base
    gates: dict[torch.dtype, Gate]

    @property
    def spec(self) -> ModelSpec:
        return spec_of(self.network, "")

    def judge(self, key: ProgramKey, program: Any, precision: Precision) -> Verdict:
        return self.gates[precision.dtype].judge(key, program, precision)


def bench_of(network: SAM2Base) -> Bench:
    return Bench(network, {dtype: Gate(network, spec_of(network, ""), dtype=dtype, device=CPU) for dtype in LIMITS})


@pytest.fixture(scope="module")
def pocket() -> Bench:
    return bench_of(pocket_network())


@pytest.fixture(scope="module")
def nano() -> Bench:
    """Trained weights: its objects differ, and it looks at the order of its memories."""
    return bench_of(build_model("nano"))


PRECISIONS = [Precision(FP32, FP32), *ladder(FP16), Precision(BF16, BF16)]
FORMATS = pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.name)


@FORMATS
@pytest.mark.parametrize(
    "key", [ProgramKey("encode", 1), ENCODE, ProgramKey("track", 1, 1), TRACK, TRACK_TWICE_PROMPTED], ids=str
)
def test_an_honest_program_passes(pocket: Bench, key: ProgramKey, precision: Precision) -> None:
    verdict = pocket.judge(key, EagerProgram(pocket.network, key, precision), precision)
    assert verdict.passed, verdict.reason
    assert verdict.num_flips == 0
    assert set(verdict.figures) == {output.name for output in program_spec(pocket.spec, key, FP32).outputs}


@pytest.mark.parametrize("precision", ladder(FP16), ids=lambda precision: precision.name)
@pytest.mark.parametrize(
    ("key", "layer"),
    [
        (ENCODE, "patch_embed.proj"),
        (ENCODE, "blocks.0.qkv"),
        (ENCODE, "blocks.3.qkv"),
        (ENCODE, "middle"),
        (ENCODE, "high0"),
        (TRACK, "attend.norm"),
        (TRACK, "attend.cross.1.out"),
        (TRACK, "decode.transformer.norm_final_attn"),
        (TRACK, "decode.upscaling.3"),
        (TRACK, "decode.pointer_head.layers.2"),
        (TRACK, "remember.project_out"),
    ],
)
def test_two_percent_in_one_layers_weights_are_refused(
    nano: Bench, key: ProgramKey, *, layer: str, precision: Precision
) -> None:
    program = EagerProgram(nano.network, key, precision)
    with torch.no_grad():
        program.module.get_submodule(f"{key.kind}.{layer}").weight.mul_(1.02)
    verdict = nano.judge(key, program, precision)
    assert not verdict.passed, verdict.worst


@FORMATS
@pytest.mark.parametrize("key", [TRACK, TRACK_TWICE_PROMPTED], ids=str)
def test_memories_in_the_opposite_order_of_time_are_refused(nano: Bench, key: ProgramKey, precision: Precision) -> None:
    program = Changed(nano.network, key, precision, lambda inputs: [*inputs[:5], inputs[5].flip(1), *inputs[6:]])
    verdict = nano.judge(key, program, precision)
    assert not verdict.passed


@pytest.mark.parametrize("key", [ENCODE, TRACK], ids=str)
def test_two_rows_that_are_swapped_are_refused(nano: Bench, key: ProgramKey) -> None:
    """In all outputs, and in each one alone."""
    fp16 = ladder(FP16)[0]
    num_outputs = len(program_spec(nano.spec, key, FP16).outputs)
    for swapped in [range(num_outputs), *([place] for place in range(num_outputs))]:
        change = partial(swap_rows, places=swapped)
        program = Spoilt(nano.network, key, fp16, change)
        assert not nano.judge(key, program, fp16).passed, f"outputs {list(swapped)}"


@pytest.mark.parametrize("key", [ProgramKey("encode", 1), TRACK], ids=str)
def test_an_output_that_is_one_step_behind_is_refused(nano: Bench, key: ProgramKey) -> None:
    fp16 = ladder(FP16)[0]
    for place, output in enumerate(program_spec(nano.spec, key, FP16).outputs):
        verdict = nano.judge(key, Late(nano.network, key, fp16, place), fp16)
        assert not verdict.passed, output.name


def test_a_program_that_remembers_its_last_call_is_refused(nano: Bench) -> None:
    """Within the limits of every single call, but not the same twice."""
    fp16, calls = ladder(FP16)[0], itertools.count()
    program = Spoilt(nano.network, ENCODE, fp16, lambda outputs: drifted(outputs, 6e-4 * next(calls)))
    verdict = nano.judge(ENCODE, program, fp16)
    assert verdict.reason.startswith("the same inputs give other results")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda outputs: outputs[:-1], "5 outputs, expected 6"),
        (lambda outputs: [outputs[0].half(), *outputs[1:]], "logits_bhw is torch.float16"),
        (lambda outputs: [outputs[0][:1], *outputs[1:]], "logits_bhw is torch.float32 (1, 16, 16)"),
        (lambda outputs: [*outputs[:2], -outputs[2], *outputs[3:]], "scores_b is off"),
        (lambda outputs: [outputs[0] * float("nan"), *outputs[1:]], "logits_bhw is off by inf"),
    ],
)
def test_outputs_of_a_wrong_kind_are_refused_by_name(pocket: Bench, change: Change, said: str) -> None:
    verdict = pocket.judge(TRACK, Spoilt(pocket.network, TRACK, Precision(FP32, FP32), change), Precision(FP32, FP32))
    assert not verdict.passed
    assert verdict.reason.startswith(said)


@pytest.fixture(scope="module")
def plan(pocket: Bench) -> Iterator[tuple[World, bytes]]:
    """A built program for two rows, in an emulated TensorRT that misbehaves as its world says."""
    with pytest.MonkeyPatch.context() as patch:
        world = install(patch, "tensorrt")
        onnx = export_onnx(program_module(pocket.network, TRACK, dtype=FP16), program_spec(pocket.spec, TRACK, FP16))
        yield world, build_plan(load_library("tensorrt"), onnx, BuildOptions())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", ""),
        ("enqueue_false", "did not run"),
        ("enqueue_false_later", "did not run"),
        ("stale_output", "off by"),
        ("swap_rows", "off by"),
        ("nan", "off by inf"),
    ],
)
def test_a_plan_that_misbehaves_when_it_runs_is_refused(
    pocket: Bench, plan: tuple[World, bytes], *, fault: str, said: str
) -> None:
    world, data = plan
    world.faults.clear()
    program = load_program(load_library("tensorrt"), data, program_spec(pocket.spec, TRACK, FP16), device=CPU)
    world.faults.update({fault} if fault else set())
    verdict = pocket.judge(TRACK, program, ladder(FP16)[0])
    assert verdict.passed is not bool(fault), verdict.reason
    assert said in verdict.reason


def test_no_limit_lets_a_wrong_program_through() -> None:
    """The widest bounds are below what a missing layer does, and half precision has room above its rounding."""
    for limit in LIMITS.values():
        assert limit.flips == 0
        assert all(low <= high <= 0.2 for low, high in (limit.maximum, limit.rms))
    assert LIMITS[FP32].rms[1] < LIMITS[FP16].rms[0] < LIMITS[BF16].rms[0]
