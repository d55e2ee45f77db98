"""The doctor on engines: what is missing for each backend, in commands to paste, and what runs now."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from tensorrt_emulator import World, install

import stream.doctor.engines as engines
from engines.build import EngineCache, Label
from engines.build import Verdict as Judgement
from engines.build.recipe import Recipe
from engines.spec import BackendMissing
from engines.tensorrt import Gpu
from stream.config import Config
from stream.controller import Controller
from stream.doctor import Finding, Verdict
from stream.status import Status

ANY, NAMED = Config(cameras=(), device="cpu"), Config(cameras=(), device="cpu", backend="tensorrt")


def absent(name: str) -> None:
    commands = f"pip install 'sam2-stream[{name}]' (on a Jetson: apt-get install python3-x)"
    raise BackendMissing(f"{name} is not installed (no module): {commands}")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda device: Gpu("Emulated", "sm89", "1"))


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> World:
    found: World = install(monkeypatch, "tensorrt")
    return found


def lacking(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if these were not installed, and all others were."""
    spec = ModuleSpec("there", None)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name in packages else spec)


def test_a_library_that_is_missing_beside_a_gpu_comes_with_the_commands(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "load_library", absent)
    found = engines.library("tensorrt", ANY)
    assert found.verdict is Verdict.NOTE and found.text == "tensorrt is not installed (no module)"
    assert found.fixes == (
        ".venv/bin/pip install 'sam2-stream[tensorrt]'",
        "sudo apt-get install python3-x",
    )


def test_without_a_gpu_only_a_library_that_was_asked_for_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "load_library", absent)
    monkeypatch.setattr(engines, "find_gpu", lambda device: None)
    unasked, named = engines.library("tensorrt", ANY), engines.library("tensorrt", NAMED)
    assert (unasked.verdict, unasked.fixes) == (Verdict.OK, ())
    assert named.verdict is Verdict.BROKEN and named.fixes[0].startswith(".venv/bin/pip install")
    assert engines.library("tensorrt-rtx", NAMED).verdict is Verdict.OK, "it is the other one that was named"


def test_a_library_without_a_gpu_is_told(tensorrt: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda device: None)
    named = engines.library("tensorrt", NAMED)
    assert named.verdict is Verdict.BROKEN and "needs an NVIDIA GPU" in named.text and named.fixes == ("nvidia-smi",)


def test_a_library_that_is_there_comes_with_the_command_that_builds(
    gpu: None, tensorrt: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    found = engines.library("tensorrt", ANY)
    assert found.verdict is Verdict.OK and found.fixes == ("sam2-stream engines build --backend tensorrt --model nano",)
    lacking(monkeypatch, "onnxscript")
    found = engines.library("tensorrt", ANY)
    assert found.verdict is Verdict.NOTE and found.fixes == (".venv/bin/pip install onnxscript",)


def test_beside_cuda_triton_and_the_version_of_torch_tensorrt_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "triton")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(engines, "_version", lambda name: {"torch-tensorrt": "2.12.1"}.get(name, ""))
    triton, converter = engines._beside_cuda()
    assert triton.verdict is Verdict.NOTE and triton.fixes == (".venv/bin/pip install triton",)
    assert converter.fixes == (".venv/bin/pip install 'torch-tensorrt==2.13.*'",)
    lacking(monkeypatch)
    monkeypatch.setattr(engines, "_version", lambda name: "2.13.0")
    assert [finding.verdict for finding in engines._beside_cuda()] == [Verdict.OK]


def test_the_precision_is_told_as_it_comes_out_here() -> None:
    assert "dtype fp32 is float32 on cpu" in engines.precision(Config(cameras=(), device="cpu", dtype="fp32")).text
    wrong = engines.precision(Config(cameras=(), device="cpu", dtype="fp16"))
    assert wrong.verdict is Verdict.BROKEN and "expected auto, fp32 or bf16" in wrong.text


def test_plans_are_counted_and_refused_ones_told_with_the_reason(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    assert list(engines.plans(cache)) == []
    recipe = Recipe(
        program="track-b1-c1", model="nano", weights="w", backend="tensorrt", precision="float16", text="t",
        options="o", versions="v", platform="p",
    )  # fmt: skip
    cache.store(Label(recipe, Judgement(True)), b"plan")
    [kept] = engines.plans(cache)
    assert kept.verdict is Verdict.OK and kept.text.startswith("1 of nano (tensorrt), 0 MiB in ")
    cache.set_aside(cache.entries()[0], Judgement(False, "logits_bhw off by 3"))
    [refused] = engines.plans(cache)
    assert refused.verdict is Verdict.NOTE and refused.text.endswith("track-b1-c1: logits_bhw off by 3")


def live(monkeypatch: pytest.MonkeyPatch, status: Status | None) -> list[Finding]:
    def answer(controller: Controller) -> Status:
        if status is None:
            raise TimeoutError
        return status

    monkeypatch.setattr(Controller, "status", answer)
    return list(engines.live(Config(cameras=(), control=("ipc:///nobody",))))


def test_what_a_running_daemon_has_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live(monkeypatch, None) == []
    status = Status(
        model="nano", backend="tensorrt", dtype="float16, attention bfloat16", device="cuda:0", choice="tensorrt, 3 ms"
    )
    [found] = live(monkeypatch, status)
    expected = "nano runs on tensorrt in float16, attention bfloat16 on cuda:0: tensorrt, 3 ms"
    assert found.verdict is Verdict.OK and found.text == expected
