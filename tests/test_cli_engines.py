"""`sam2-stream engines`: what it prints, its exit codes, and that a running model never sees what was built in play."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from emulated_builder import GPU
from pocket import pocket_network
from tensorrt_emulator import install

import engines.build.workshop
from engines.build import EngineCache, EngineRequest, Label, Verdict
from engines.build.recipe import Recipe
from stream.cli import engines as page

Call = Callable[..., tuple[int, str, str]]
BUILDER = (sys.executable, str(Path(__file__).with_name("emulated_builder.py")), "play")
RECIPE = Recipe("track-b1-c1", "nano", "nano 01", "tensorrt", "float16", "23", "level", "TensorRT 11", "GPU, sm90")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("SAM2_STREAM_CACHE", str(tmp_path))
    return EngineCache()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated TensorRT on an emulated GPU, a small model, and a child that has the same."""
    install(monkeypatch, "tensorrt")
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
    monkeypatch.setattr(EngineRequest, "network", lambda request: pocket_network())
    monkeypatch.setattr(engines.build.workshop, "COMMAND", BUILDER)


def test_engines_are_built_listed_verified_and_pruned(call: Call, gpu: None, cache: EngineCache) -> None:
    """The plans of this test are a few bytes that no TensorRT can load, which `verify` finds."""
    code, out, err = call("engines", "build", "--backend", "tensorrt", "--batch", "1", "--batch", "16")
    assert code == 0, err
    names = ["encode-f1", "track-b1-c1", "track-b16-c1", "track-b1-c2", "track-b16-c2"]
    assert [line.split()[0] for line in out.splitlines()] == names
    assert "1.0e-04 RMS" in out
    assert "5 built, 0 were there" in err
    code, out, err = call("engines", "build", "--backend", "tensorrt", "--batch", "1")
    assert (code, out) == (0, "")
    assert "0 built, 3 were there" in err
    code, out, err = call("engines", "list")
    assert code == 0
    assert sorted(line.split()[0] for line in out.splitlines()) == sorted(names)
    assert "Emulated, sm89, driver 1" in out
    assert "5 kept" in err
    code, out, err = call("engines", "verify", "--backend", "tensorrt")
    assert code == 1
    assert [line.split()[1] for line in out.splitlines()] == ["refused"] * 5
    assert "5 of 5 engines were refused" in err
    assert not cache.entries()
    code, out, err = call("engines", "prune", "--max-gib", "0")
    assert code == 0
    assert len(out.splitlines()) == 5
    assert not cache.entries(refused=True)


def test_a_build_that_is_refused_fails_with_the_reason(
    call: Call, gpu: None, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.build.workshop, "COMMAND", (*BUILDER[:2], "broken"))
    code, out, err = call("engines", "build", "--backend", "tensorrt", "--batch", "1")
    assert code == 1
    assert out == ""
    assert "refused: encode-f1: float16: not built: the builder is on strike; float16-attention-bfloat16: " in err
    assert "3 of 3 engines were refused and set aside" in err
    code, out, err = call("engines", "list", "--refused")
    assert len(out.splitlines()) == 5  # the second `track` is spared the format that the first one failed in
    assert "not built" in out


def test_an_engine_that_verify_refuses_is_set_aside(
    call: Call, gpu: None, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = []

    def open_plans(request: EngineRequest) -> list[tuple[object, Verdict]]:
        recipes.append(request)
        key = page._keys([1])[0]
        return [(key, Verdict(True)), (key, Verdict(False, "logits_bhw is off by 1e9"))]

    monkeypatch.setattr(engines.build, "open_plans", open_plans)
    code, out, err = call("engines", "verify")
    assert code == 1
    assert "refused  logits_bhw is off by 1e9" in out
    assert "1 of 2 engines were refused" in err
    assert recipes[0].backend == "tensorrt"  # auto found it


def test_a_list_says_what_is_suspect_unverified_or_only_for_play(call: Call, cache: EngineCache) -> None:
    busy = Verdict(True, "", {"logits_bhw": (1e-3, 1e-4)}, was_busy=True)
    cache.store(Label(RECIPE, busy), b"plan")
    cache.store(Label(Recipe(*["encode-f1", "nano", "random 7", *list(as_words(RECIPE))[3:]]), None), b"plan")
    _, out, _ = call("engines", "list")
    first, second = out.splitlines()
    assert "random 7 weights, never run" in first
    assert "not verified yet" in first
    assert "timed on a busy GPU: sam2-stream engines build --again" in second
    assert "logits_bhw off by at most 1.0e-03, 1.0e-04 RMS" in second


def as_words(recipe: Recipe) -> list[str]:
    return [getattr(recipe, name) for name in Recipe.__dataclass_fields__]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        ("build --batch 3", 2, "--batch = 3: expected one of 1, 2, 4, 8, 16"),
        ("build --backend eager", 2, "--backend = 'eager': expected auto, tensorrt or tensorrt-rtx"),
        ("build --model sam9", 1, "'sam9': no such model"),
        ("build --backend tensorrt --target sm89", 1, "does not build for sm89"),
        ("build --backend tensorrt --device cuda:77x", 1, "expected auto, cpu, cuda or cuda:N"),
        ("build --checkpoint /nowhere.pt", 1, "/nowhere.pt"),
        ("verify --model sam9", 1, "'sam9': no such model"),
        ("prune --max-gib -1", 2, "--max-gib"),
    ],
)
def test_a_wrong_call_is_one_line_and_an_exit_code(
    call: Call, gpu: None, *, arguments: str, exit_code: int, text: str
) -> None:
    code, out, err = call("engines", *arguments.split())
    assert (code, out) == (exit_code, "")
    assert text in err
    assert err.count("\n") == 1


def test_without_tensorrt_the_commands_that_bring_it_are_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = call("engines", "build")
    assert (code, out) == (1, "")
    assert "pip install 'sam2-stream[tensorrt]'" in err
    assert "pip install 'sam2-stream[tensorrt-rtx]'" in err
