"""The README's table of measurements says what the results say."""

from __future__ import annotations

import copy
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import machine_facts
from benchmarks.readme.row import figure
from benchmarks.readme.unrun_rows import UNRUN
from benchmarks.table import README, RESULTS, load_results, table, with_table

GROUP = {"official fp32": (100.0, 1.0), "official bf16": (80.0, 0.98), "compiled": (25.0, 0.99)}


def result(**more: Any) -> dict[str, Any]:
    """What `against_official.py` would save about tiny at 1024 pixels."""
    ways = {
        name: {
            "dtype": "float32" if name.endswith("fp32") else "bfloat16", "median_ms": ms, "times_as_fast": 100.0 / ms,
            "ceiling_ms": 20.0, "share_of_ceiling": 20.0 / ms, "mean_iou_with_official": iou,
            "stages_ms": {"encode": ms / 2, "attend": ms / 2},
        }
        for name, (ms, iou) in GROUP.items()
    }  # fmt: skip
    known = {
        "benchmark": "against_official", "model": "sam2.1-hiera-tiny", "image_size": 1024, "weights": "random, seed 1",
        "memory": "given", "gflop": {"encode": 1.0}, "matmul_gflop_per_s": {"bfloat16": 800}, "processor": "P",
        "cores": 2, "commit": "abc1234", "objects": {"1": ways},
    }  # fmt: skip
    return known | more


def test_the_readme_holds_the_table_that_the_results_give() -> None:
    readme = README.read_text(encoding="utf-8")
    assert with_table(readme, table(load_results(RESULTS))) == readme, "run: python benchmarks/table.py --write"


def test_every_result_in_the_folder_names_its_machine_and_commit() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {"benchmark", "processor", "cores", "commit"} - found.keys()
        assert not missing, f"{path.name} lacks {', '.join(sorted(missing))}"


def test_what_a_benchmark_ran_on_is_told_without_naming_the_machine() -> None:
    facts = machine_facts()
    assert {"processor", "cores", "gpu", "load", "torch", "python", "commit", "date"} <= facts.keys()
    assert platform.node() not in facts.values() and str(Path.home()) not in json.dumps(facts)


def test_a_changed_figure_changes_the_table() -> None:
    one, other = result(), copy.deepcopy(result())
    other["objects"]["1"]["compiled"]["median_ms"] = 26.0
    assert table([one]) != table([other])


@pytest.mark.parametrize(("times", "verdict"), [(4.0, "reached"), (3.99, "**missed**")])
def test_a_missed_goal_is_said_to_be_missed(times: float, verdict: str) -> None:
    found = result()
    found["objects"]["1"]["compiled"]["times_as_fast"] = times
    assert f"goal >= 4 times: {verdict}" in table([found])


def test_masks_farther_off_than_the_official_bf16_run_miss_the_goal() -> None:
    found = result()
    assert "official bf16 run: reached" in table([found])
    found["objects"]["1"]["compiled"]["mean_iou_with_official"] = 0.974
    assert "official bf16 run: **missed**" in table([found])


@pytest.mark.parametrize(("p99", "verdict"), [(0.99, "reached"), (1.0, "**missed**")])
def test_a_slow_line_misses_its_goal(p99: float, verdict: str) -> None:
    row = {
        "subscribers": 10, "pace": "live", "added_ms": {"p50": 0.5, "p99": p99}, "messages_per_s": 300.0,
        "baseline_ms": {"p50": 0.3, "p99": 0.4}, "bytes_per_object": 1482, "cpu_ms_per_frame": {"all": 14.5},
    }  # fmt: skip
    found = result(benchmark="pipeline", rows=[row])
    assert f"goal < 1 ms p99 with 10: {verdict}" in table([found])


def test_an_attention_kernel_that_was_refused_is_named_with_its_reason() -> None:
    rows = [
        {"implementation": "slices", "dtype": "bfloat16", "batch": 1, "median_ms": 170.0, "share_of_ceiling": 0.5},
        {"implementation": "other", "dtype": "bfloat16", "batch": 1, "refused": "it is wrong by 3 %"},
    ]
    text = table([result(benchmark="attention", rows=rows, shape=[4096, 28736], ceiling_gflop_per_s={"bfloat16": 800})])
    assert "slices bfloat16 170 ms; other bfloat16 refused: it is wrong by 3 %" in text


def test_a_busy_machine_is_said_to_have_been_busy() -> None:
    assert "abc1234, busy (load 6)" in table([result(load=5.9)]) and "busy" not in table([result(load=1.9)])


def test_what_never_ran_on_a_gpu_is_said_until_a_gpu_has_run_it() -> None:
    text = table([result()])
    assert all(item.what in text and item.instead in text for item in UNRUN)
    text = table([result(), result(gpu="a card (sm90)", image_size=512)])
    assert all((item.what in text) == (item.benchmark != "against_official") for item in UNRUN)
    assert "a card (sm90)" in text


def test_runs_with_other_numbers_of_objects_become_one_row() -> None:
    more = result()
    more["objects"] = {"2": more["objects"]["1"]}
    text = table([result(), more])
    assert "1 / 2 objects" in text and text.count("at 1024 pixels") == 1


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected the lines"):
        with_table("# readme", "table")


@pytest.mark.parametrize(("value", "text"), [(5374.6, "5,375"), (19.54, "19.5"), (0.872, "0.87"), (115.0, "115")])
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_results_are_found_by_their_benchmark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(result()))
    (tmp_path / "b.json").write_text(json.dumps({"other": 1}))
    assert [found["benchmark"] for found in load_results(tmp_path)] == ["against_official"]
