"""The choice of an attention kernel, without a GPU: the right ones are told from the wrong ones on the CPU, where a
wrong one is wrong in the same way, and the clock is the test's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pocket import pocket_network
from torch import Tensor
from torch.nn.attention import SDPBackend

from engines.compiled.cuda_kernels import Fused, candidates, host_milliseconds, inputs_of, try_kernels
from engines.eager import EagerEngine
from engines.graphs import Kernel, Kernels, Sdpa
from engines.spec import FrameFeatures, MemoryRead, ModelSpec

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
    spec, random = reference.spec, torch.Generator().manual_seed(5)
    frames = reference.encode(torch.randn(1, 3, 64, 64, generator=random))
    read = MemoryRead(
        torch.randn(1, 7, spec.num_tokens, spec.memory_dim, generator=random),
        torch.tensor([[6, 5, 4, 3, 2, 1, 0]]),
        torch.randn(1, 16, spec.hidden_dim, generator=random),
        torch.randn(1, 16, spec.hidden_dim, generator=random),
    )
    row = torch.zeros(1, dtype=torch.int64)
    (_, wanted), (_, found) = (engine.track(FrameFeatures(*frames), row, read) for engine in (reference, other))
    error = float((found - wanted).abs().amax() / wanted.abs().amax())
    assert error > 1e-3 if isinstance(kernel, Wrong) else error < 1e-5
