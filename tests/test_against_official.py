"""What `benchmarks/against_official.py` compares is the same on both sides: weights, pictures, memories."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import pytest
from tensorrt_emulator import install

from benchmarks.official.bench import COMPILED, EAGER_FP32, FP32, Bench
from benchmarks.official.given import NUM_FRAMES, NUM_PICTURES, picture_of
from benchmarks.official.network import operations
from engines.spec import BackendMissing
from stream.memory import MemoryBank

pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C'")  # official: fills no holes without it


@pytest.fixture(autouse=True)
def any_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.official.bench.matmul_peak", lambda dtype, device: 100.0)


def options(fill: str, **more: Any) -> argparse.Namespace:
    values = {"model": "nano", "image_size": None, "random_weights": None, "device": "cpu", "frames": 2, "settle": 0}
    return argparse.Namespace(**(values | {"fill": fill, "ways": (FP32, EAGER_FP32, COMPILED)} | more))


@pytest.mark.parametrize("seed", [None, 1], ids=["trained", "random"])
def test_a_given_memory_is_the_same_for_the_official_predictor_and_for_ours(seed: int | None) -> None:
    bench = Bench(options("given", random_weights=seed, image_size=128))
    found = bench.run(2)
    assert found[EAGER_FP32]["mean_iou_with_official"] >= 0.999
    stages = {"encode", "attend", "decode", "remember", "other"}
    assert all(set(way["stages_ms"]) == stages for way in found.values())


def test_a_swapped_memory_shows_in_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(options("given"))
    export = MemoryBank.export_row

    def forgetful(bank: MemoryBank, row: int) -> Any:
        kept = export(bank, row)
        kept.memory_snc.zero_()
        kept.pointer_sc.zero_()
        return kept

    monkeypatch.setattr(MemoryBank, "export_row", forgetful)
    assert bench.run(2)[EAGER_FP32]["mean_iou_with_official"] < 0.99


def test_given_pictures_run_on_without_a_jump() -> None:
    shown = [picture_of(frame) for frame in range(NUM_FRAMES + 4)]
    assert {abs(one - other) for one, other in itertools.pairwise(shown)} == {1}
    assert set(shown[:NUM_FRAMES]) == set(range(NUM_PICTURES)) and shown[NUM_FRAMES:] == [2, 3, 4, 5]


def test_operations_of_tiny_are_those_of_the_notes_and_grow_with_the_picture() -> None:
    found = operations("sam2.1-hiera-tiny", image_size=None)
    assert {stage: round(value, 1) for stage, value in found.items()} == {
        "encode": 292.4, "attend": 605.6, "decode": 3.6, "remember": 11.6,
    }  # fmt: skip
    small = operations("sam2.1-hiera-tiny", image_size=512)
    assert found["encode"] / small["encode"] == pytest.approx(5, abs=1) and found["attend"] / small["attend"] > 10


def test_plans_of_the_network_in_hand_track_as_the_official_predictor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the emulated library, in fp32: this way has never run on a GPU."""
    install(monkeypatch, "tensorrt")
    bench = Bench(options("given", image_size=64, random_weights=1, objects=[2], ways=(FP32, "tensorrt")))
    assert [key.name for key in bench.engines["tensorrt"].installed] == ["encode-f1", "track-b2-c1"]
    found = bench.run(2)["tensorrt"]
    assert found["mean_iou_with_official"] >= 0.999 and {"encode", "track"} <= set(found["stages_ms"])


def test_a_missing_library_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise BackendMissing(f"pip install {name}")

    monkeypatch.setattr("benchmarks.official.plans.load_library", absent)
    bench = Bench(options("given", objects=[1], ways=(FP32, "tensorrt")))
    assert tuple(bench.ways) == (FP32,) and "pip install" in bench.missing["tensorrt"]
