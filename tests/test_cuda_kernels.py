"""The choice of an attention kernel, without a GPU: the right ones are told from the wrong ones on the CPU, where a
wrong one is wrong in the same way, and the clock is the test's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from fake_graph import FakeRecorder
from pocket import pocket_network
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

import engines.compiled.cuda
from engines.compiled.cuda import CudaOptions, drift_of, recorded_engine
from engines.compiled.cuda_kernels import Fused, candidates, host_milliseconds, inputs_of, try_kernels
from engines.eager import EagerEngine
from engines.graphs import Kernel, Kernels, Sdpa
from engines.programmed import ProgrammedEngine
from engines.spec import ModelSpec

SPEC = ModelSpec("toy", image_size=128, hidden_dim=64, memory_dim=16, num_memories=7, max_pointers=16)
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Wrong:
    """Loses the last keys, as a kernel with a bug in its tail does."""

    lost: int
    dtype: torch.dtype | None = None
    narrow_values: bool = False

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        keep = key_bhkc.shape[2] - self.lost
        return Sdpa()(query_bhnc, key_bhkc[:, :, :keep], value_bhkd[:, :, :keep])


@dataclass(frozen=True, slots=True)
class Narrow:
    """Takes narrow values, by plain products."""

    result: float = 1.0
    dtype: torch.dtype | None = None
    narrow_values: bool = True

    def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
        scores = query_bhnc @ key_bhkc.transpose(-1, -2) / query_bhnc.shape[-1] ** 0.5
        return torch.softmax(scores, dim=-1) @ value_bhkd * self.result


class Clock:
    """Says what it was told, one after another."""

    def __init__(self, *milliseconds: float) -> None:
        self._left = list(milliseconds)

    def __call__(self, work: Callable[[], object]) -> float:
        work()
        return self._left.pop(0)


def test_a_kernel_that_loses_keys_or_is_no_number_is_refused() -> None:
    inputs = inputs_of(SPEC, CPU, torch.float32)
    kernels: list[Kernel] = [Sdpa(), Wrong(64), Narrow(), Narrow(float("nan")), Narrow(1.05)]
    trials = try_kernels(kernels, inputs, timer=Clock(2.0, 1.0))
    assert [bool(trial.reason) for trial in trials] == [False, True, False, True, True]
    assert [trial.milliseconds for trial in trials if not trial.reason] == [2.0, 1.0]
    assert all("expected at most" in trial.reason for trial in trials if trial.reason)


@pytest.mark.parametrize("place", [0, 31, 40, 63])
def test_a_kernel_that_spoils_one_query_of_a_tile_is_refused(place: int) -> None:
    class Spoilt:
        dtype, narrow_values = None, False

        def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
            result = Sdpa()(query_bhnc, key_bhkc, value_bhkd)
            result[:, :, place::64] = 0
            return result

    many = replace(SPEC, image_size=512)  # more queries than are compared
    (trial,) = try_kernels([Spoilt()], inputs_of(many, CPU, torch.float32), timer=Clock(1.0))
    assert trial.reason


def test_a_kernel_that_a_machine_lacks_is_passed_over_with_its_own_words() -> None:
    class Absent:
        dtype, narrow_values = None, False

        def __call__(self, query_bhnc: Tensor, key_bhkc: Tensor, value_bhkd: Tensor) -> Tensor:
            raise RuntimeError("No available kernel. Aborting execution.\nand more")

    trial, other = try_kernels([Absent(), Sdpa()], inputs_of(SPEC, CPU, torch.float32), timer=Clock(1.0))
    assert trial.reason == "does not run: No available kernel. Aborting execution." and not other.reason


def test_rounding_to_bfloat16_is_within_the_limit() -> None:
    inputs = inputs_of(SPEC, CPU, torch.float16)
    trials = try_kernels([Sdpa(torch.bfloat16)], inputs, timer=host_milliseconds)
    assert not trials[0].reason and trials[0].error > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_candidates_differ_and_call_their_dtype(dtype: torch.dtype) -> None:
    kernels = candidates(CPU, dtype)
    assert len(set(kernels)) == len(kernels) >= 5
    islands = [kernel.dtype for kernel in kernels if kernel.dtype is not None]
    assert set(islands) == ({torch.bfloat16} if dtype is torch.float16 else set())


def test_the_problem_is_that_of_a_full_bank() -> None:
    query, key, value = inputs_of(SPEC, CPU, torch.bfloat16)
    assert query.shape == (1, 1, SPEC.num_tokens, SPEC.hidden_dim)
    assert key.shape == (1, 1, SPEC.num_keys(1), SPEC.hidden_dim) and value.shape[2:] == (SPEC.num_keys(1), 16)
    scores = torch.softmax(query.float() @ key.float().transpose(-1, -2) / SPEC.hidden_dim**0.5, dim=-1)
    assert scores.amax(dim=-1).median() > 0.02, "a softmax with peaks shows errors"


@pytest.mark.parametrize("kernel", [Fused(SDPBackend.MATH), Narrow(), Wrong(40)], ids=["math", "narrow", "wrong"])
def test_programs_with_another_kernel_compute_the_same(kernel: Kernel) -> None:
    """Narrow values through the projection after the sum; and a wrong kernel shows in the programs, too."""
    network = pocket_network()
    reference = EagerEngine(network, name="pocket", device=CPU, dtype=torch.float32)
    other = EagerEngine(network, name="pocket", device=CPU, dtype=torch.float32, kernels=Kernels(memory=kernel))
    drift = drift_of(other, reference)
    assert drift > 1e-3 if isinstance(kernel, Wrong) else drift < 1e-5


@pytest.mark.parametrize("kernel", [Narrow(), Narrow(1.5), Narrow(float("nan"))], ids=["right", "wrong", "nan"])
def test_a_kernel_that_is_wrong_in_the_programs_is_not_used(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However well it did alone."""
    monkeypatch.setattr(engines.compiled.cuda, "choose_kernel", lambda *_: kernel)
    monkeypatch.setattr(engines.compiled.cuda, "CudaRecorder", lambda device: FakeRecorder())
    engine = engines.compiled.cuda.cuda_engine(pocket_network(), name="pocket", device=CPU, dtype=torch.float32)
    assert isinstance(engine, ProgrammedEngine) and engine.backend == "compiled" and len(engine.installed) == 14
    assert isinstance(engine.inner, EagerEngine)
    used = engine.inner.track_module.attend.cross[0].kernel
    assert (used == kernel) == (kernel == Narrow())
    assert ("refused" in caplog.text) == (kernel != Narrow())


def test_programs_are_compiled_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []

    def note(module: nn.Module, *, mode: str) -> nn.Module:
        modes.append(mode)
        return module

    monkeypatch.setattr(torch, "compile", note)
    inner = EagerEngine(pocket_network(), name="pocket", device=CPU, dtype=torch.float32)
    recorded_engine(inner, None, CudaOptions())
    assert not modes
    recorded_engine(inner, None, CudaOptions(compile_mode="max-autotune-no-cudagraphs"))
    assert modes == ["max-autotune-no-cudagraphs"] * 2
