"""Rows about how good masks are: nano on generated and on real clips, refinement, enhancement, memory policies.

Pure functions, one per result. Never: reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.readme.row import Result, Row, figure, goal

GOAL_CLIPS_FOLLOWED = 4
GOAL_SWITCHES = 0.5  # of SAM 2's own policy
_SPOILT = {"as_it_is": "as they are", "dark": "6 % of the light", "grainy": "coarse grain"}


def tracker_rows(result: Result) -> list[Row]:
    rows = []
    for prompt in (name for name in ("click", "mask", "box") if name in result):
        found = result[prompt]
        text = (
            f"J&F {found['j_and_f']:.3f}, J {found['j']:.3f}, F {found['f']:.3f}, "
            f"instability {found['instability']:.3f}, {found['switches']} switches, "
            f"{found['found_again']} found again; {figure(found['pictures_per_s'])} pictures/s in the same run"
        )
        clips = f"all objects of {result['clips']} unseen generated clips"
        what = f"{result['model']}, {clips}, DAVIS' figures, from a {prompt}"
        rows.append(Row(what, text, "", result, "`benchmarks/quality.py`"))
    return rows


def real_clip_rows(result: Result) -> list[Row]:
    text = (
        f"IoU {result['mean_iou']:.2f} on average, >= 0.5 at {result['keys_above_half']} of {result['num_keys']} masks "
        f"drawn by hand; {result['objects_followed']} of {result['num_objects']} objects are followed, "
        f"{result['clips_followed']} of {result['num_clips']} clips"
    )
    how = f"from one {result['prompt']}, memory policy {result['memory_policy']}"
    what = f"{result['model']} on real clips, both objects of each, {how}"
    bound = goal(f">= {GOAL_CLIPS_FOLLOWED} clips", result["clips_followed"] >= GOAL_CLIPS_FOLLOWED)
    return [Row(what, text, bound, result, "`benchmarks/real_clips.py`")]


def identity_rows(result: Result) -> list[Row]:
    ways = {way: result["ways"][way]["scenarios"] for way in ("sam2", "motion")}
    everything = {way: found["all"] for way, found in ways.items()}
    texts = [
        f"{way}: J&F {found['j_and_f']:.3f}, {found['switches']} switches, {found['reacquired']} found again"
        for way, found in everything.items()
    ]
    few = everything["motion"]["switches"] <= GOAL_SWITCHES * everything["sam2"]["switches"]
    texts.append("J&F on easy clips " + " / ".join(f"{found['easy clips']['j_and_f']:.3f}" for found in ways.values()))
    what = f"Memory policies on {result['clips']} clips of each scenario of mistaken identity ({result['model']})"
    return [Row(what, "; ".join(texts), goal("motion halves the switches", few), result, "`benchmarks/identities.py`")]


def refine_rows(result: Result) -> list[Row]:
    texts = [
        f"{name}: {found['j_and_f']:.3f}, {found['instability']:.3f}, {figure(found['ms_an_object'])} ms"
        for name, found in result["settings"].items()
    ]
    clips = f"{result['clips']} generated clips, 640x480"
    what = f"Refinement: J&F, instability and time an object ({result['model']}, {clips})"
    return [Row(what, "; ".join(texts), "", result, "`benchmarks/refine.py`")]


def edge_rows(result: Result) -> list[Row]:
    texts = [
        f"{row['upsample']} from {row['mask_pixels']} pixels {row['j']:.3f} / {row['f']:.3f}" for row in result["rows"]
    ]
    masks = f"{result['masks']} masks drawn by hand on real clips"
    what = f"Edges alone, no model: J / F of {masks}, made coarse and fine again"
    return [Row(what, "; ".join(texts), "", result, "`benchmarks/edges.py`")]


def enhance_rows(result: Result) -> list[Row]:
    texts = [
        f"{_SPOILT[row['pictures']]}, denoise {row['denoise']:g}, low_light {row['low_light']:g}: J {row['j']:.3f} "
        f"({figure(row['ms'])} ms)"
        for row in result["rows"]
    ]
    what = f"Dark and grainy pictures ({result['model']}, {result['clips']} generated clips, 640x480)"
    return [Row(what, "; ".join(texts), "", result, "`benchmarks/enhance.py`")]


QUALITY_ROWS: Mapping[str, Callable[[Result], list[Row]]] = {
    "quality": tracker_rows,
    "real_clips": real_clip_rows,
    "identities": identity_rows,
    "refine": refine_rows,
    "edges": edge_rows,
    "enhance": enhance_rows,
}
