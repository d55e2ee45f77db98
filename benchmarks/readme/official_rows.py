"""Rows about `benchmarks/against_official.py`: one result per model and picture size, whatever files it came in.

Pure functions. Never: reads a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.readme.row import Result, Row, figure, goal, milliseconds, percents, slashed

OFFICIAL, YARDSTICK, OURS = "official fp32", "official bf16", "compiled"
MODELS = ("nano", "sam2.1-hiera-tiny", "sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large")
STAGES = ("encode", "attend", "decode", "remember", "other")
IN_DEPTH = (("nano", 192), ("sam2.1-hiera-tiny", 1024))  # model and pixels that get more than one row
GOAL_TIMES, GOAL_IOU_LOSS, GOAL_NANO_IOU, GOAL_FOUR_OBJECTS = 4.0, 0.005, 0.99, 2.0
Ways = dict[str, dict[str, Any]]


def official_rows(results: Sequence[Result]) -> list[Row]:
    rows: list[Row] = []
    for result in _merged(results):
        rows.append(_speed(result))
        if (result["model"], result["image_size"]) in IN_DEPTH:
            rows += [_others(result), _stages(result), _masks(result)]
        if result["model"] == "nano":
            rows.append(_four_objects(result))
    return rows


def _merged(results: Sequence[Result]) -> list[Result]:
    """Runs of the same model with other numbers of objects are one result; small models and large pictures first."""
    merged: dict[tuple[int, int], dict[str, Any]] = {}
    for result in results:
        key = (MODELS.index(result["model"]), -result["image_size"])
        objects = merged[key]["objects"] if key in merged else {}
        merged[key] = {**result, "objects": objects | result["objects"]}
    return [merged[key] for key in sorted(merged)]


def _counts(result: Result) -> list[tuple[str, Ways]]:
    """The numbers of objects with both the official predictor as shipped and ours."""
    objects = sorted(result["objects"].items(), key=lambda item: int(item[0]))
    return [(count, ways) for count, ways in objects if OFFICIAL in ways and OURS in ways]


def _speed(result: Result) -> Row:
    counts = _counts(result)
    official, ours = ([ways[name] for _, ways in counts] for name in (OFFICIAL, OURS))
    plural = "object" if [count for count, _ in counts] == ["1"] else "objects"
    many = " / ".join(count for count, _ in counts)
    peak = f"{result['matmul_gflop_per_s'][ours[0]['dtype']]} GFLOP/s ({_short(ours[0])})"
    bound = f"{percents(way['share_of_ceiling'] for way in ours)} of the best matrix product's {peak}"
    if (result["model"], result["image_size"]) == IN_DEPTH[1] and "1" in result["objects"]:
        bound += "; " + goal(f">= {GOAL_TIMES:.0f} times", ours[0]["times_as_fast"] >= GOAL_TIMES)
    text = (
        f"official fp32 {milliseconds(way['median_ms'] for way in official)}, "
        f"ours, {_short(ours[0])}, {milliseconds(way['median_ms'] for way in ours)}: "
        f"{slashed(way['times_as_fast'] for way in ours)} times as fast"
    )
    if (result["model"], result["image_size"]) not in IN_DEPTH:
        text += f"; {_agreement([ways for _, ways in counts])}"
    weights = "" if result["weights"] == "embedded" else f" ({result['weights'].partition(',')[0]} weights)"
    what = f"A frame of {result['model']} at {result['image_size']} pixels{weights}, {many} {plural}, full memory"
    return Row(what, text, bound, result, _how(result))


def _others(result: Result) -> Row:
    ways = _counts(result)[0][1]
    times = [f"{_name(name, way)} {milliseconds([way['median_ms']])}" for name, way in ways.items()]
    return Row("... every way, one object", ", ".join(times), _ceilings(ways), result, "the same run")


def _ceilings(ways: Ways) -> str:
    by_dtype = {_short(way): way["ceiling_ms"] for way in ways.values()}
    return "ceiling " + ", ".join(f"{dtype} {milliseconds([value])}" for dtype, value in by_dtype.items())


def _stages(result: Result) -> Row:
    ways = _counts(result)[0][1]
    parts = []
    for name in (OFFICIAL, OURS):
        found = ways[name]["stages_ms"]
        present = [stage for stage in STAGES if stage in found]
        parts.append(f"{_name(name, ways[name])} " + ", ".join(f"{s} {milliseconds([found[s]])}" for s in present))
    gflop = result["gflop"]
    bound = "GFLOP: " + ", ".join(f"{stage} {figure(gflop[stage])}" for stage in STAGES if stage in gflop)
    return Row("... where the time goes, one object", "; ".join(parts), bound, result, "the same run")


def _masks(result: Result) -> Row:
    every = [ways for _, ways in _counts(result)]
    goals = []
    losses = [_iou(ways, YARDSTICK) - _iou(ways, OURS) for ways in every if YARDSTICK in ways]
    if losses:
        goals.append(goal(f"within {GOAL_IOU_LOSS} of the official bf16 run", max(losses) <= GOAL_IOU_LOSS))
    if result["model"] == "nano":
        goals.append(goal(f">= {GOAL_NANO_IOU}", min(_iou(ways, OURS) for ways in every) >= GOAL_NANO_IOU))
    what = "... its masks against the official fp32 run's"
    return Row(what, _agreement(every), "; ".join(goals), result, "the same run")


def _agreement(every: Sequence[Ways]) -> str:
    """Of each way, for each number of objects that it ran with."""
    ious = []
    for name, way in every[0].items():
        found = " / ".join(f"{_iou(ways, name):.4f}" for ways in every if name in ways)
        ious += [] if name == OFFICIAL else [f"{_name(name, way)} {found}"]
    return "mean IoU " + ", ".join(ious)


def _iou(ways: Ways, name: str) -> float:
    return float(ways[name]["mean_iou_with_official"])


def _four_objects(result: Result) -> Row:
    times = [result["objects"].get(count, {}).get(OURS, {}).get("median_ms") for count in ("1", "4")]
    if None in times:
        return Row("... four objects against one", "not measured", "", None, "")
    ratio = times[1] / times[0]
    text = f"{figure(ratio)} times the time of one"
    bound = goal(f"< {GOAL_FOUR_OBJECTS:.0f} times", ratio < GOAL_FOUR_OBJECTS)
    return Row("... four objects against one", text, bound, result, "the same run")


def _name(name: str, way: dict[str, Any]) -> str:
    """Ours carry their precision; the official ways have it in their names."""
    return name if name.endswith(("fp32", "bf16")) else f"{name} {_short(way)}"


def _short(way: dict[str, Any]) -> str:
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[way["dtype"]]


def _how(result: Result) -> str:
    given = "; the memory given" if result["memory"] == "given" else ""
    return f"`benchmarks/against_official.py --model {result['model']} ...`{given}"
