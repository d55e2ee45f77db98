"""Does an object stay the same object? Both memory policies on generated scenarios of mistaken identity.

Each scenario of `engines.synthetic.scenarios` is drawn with seeds that no threshold was chosen on. Every object gets
one click on picture 0; look-alikes without a prompt are in the truth, so that a mask on one of them counts as a switch.
The figures are those of `stream.quality`, over the objects with a prompt. The last line is one JSON object.

    python benchmarks/identities.py [--clips 4] [--scenarios crossing_twins ...] [--checkpoint FILE] [--save FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import torch

from benchmarks.machine import conclude, machine_facts
from engines.spec import Engine
from engines.synthetic.scenarios import EASY, SCENARIO_SEEDS, SCENARIOS, ScenarioClip, ScenarioSpec
from stream.quality import Scene, SequenceScore, SequenceScorer, Summary, summarise
from stream.sequence import LabelledFrame
from stream.tracker import Tracker, TrackerOptions, load_engine

FRAME_NS = 33_333_333
WAYS: dict[str, TrackerOptions] = {
    "sam2": TrackerOptions(),
    "motion": TrackerOptions(memory_policy="motion"),
    "motion, camera_motion": TrackerOptions(memory_policy="motion", camera_motion=True),
}
SHAKEN = ("camera_shake",)  # where the third way is tried
HELD_OUT = SCENARIO_SEEDS[500:]


def follow(engine: Engine, clip: ScenarioClip, options: TrackerOptions) -> tuple[SequenceScore, float]:
    """The scores of the objects with a prompt, and the tracker's pictures a second."""
    tracker, spec = Tracker(engine, options), clip.scenario
    height, width = clip.frame(0).shape[:2]
    scorer = SequenceScorer(Scene(f"{spec.name}-{spec.seed}", (height, width), {}))
    for number in range(clip.num_objects):
        tracker.add(number + 1, points=[(*clip.click(number), 1)])
    seconds = 0.0
    for index in range(spec.num_frames):
        frame, truth = clip.frame(index), dict(enumerate(clip.masks(index), 1))
        start = time.perf_counter()
        masks = tracker.step(frame, time_ns=index * FRAME_NS)
        seconds += time.perf_counter() - start
        found = dict(zip(masks.object_ids, masks.masks_nhw, strict=True))
        scorer.put(LabelledFrame(index, truth), LabelledFrame(index, found), is_scored=index > 0)
    score = scorer.score()
    kept = tuple(item for item in score.objects if item.id <= clip.num_objects)
    return msgspec.structs.replace(score, objects=kept), spec.num_frames / seconds


def row_of(scores: Sequence[SequenceScore]) -> dict[str, Any]:
    """What the table says of these clips."""
    summary = summarise(scores)
    assert isinstance(summary, Summary), "scenarios have objects"
    waited = summary.pictures_to_reacquire
    return {
        "j_and_f": round(summary.j_and_f, 4),
        "j": round(summary.j.mean, 4),
        "f": round(summary.f.mean, 4),
        "switches": summary.num_switches,
        "reacquired": f"{summary.num_reacquired} of {summary.num_returns}",
        "pictures_to_reacquire": None if waited is None else round(waited, 1),
        "instability": None if summary.instability is None else round(summary.instability, 4),
    }


def measure(engine: Engine, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Rows by way and scenario, and over all of them."""
    ways: dict[str, Any] = {}
    for way, options in WAYS.items():
        rows: dict[str, Any] = {}
        everything: list[SequenceScore] = []
        rates: list[float] = []
        for name in names if way != "motion, camera_motion" else [name for name in names if name in SHAKEN]:
            found = [follow(engine, ScenarioClip(ScenarioSpec(name, seed)), options) for seed in seeds]
            rows[name] = row_of([score for score, _ in found])
            everything += [score for score, _ in found]
            rates += [rate for _, rate in found]
            print(f"{way:22} {name:16} {rows[name]}", flush=True)
        if everything:
            easy = [score for score in everything if score.name.rpartition("-")[0] in EASY]
            rows |= {"all": row_of(everything)} | ({"easy clips": row_of(easy)} if easy else {})
            ways[way] = {"scenarios": rows, "fps": round(sum(rates) / len(rates), 1)}
    return ways


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--backend", default="compiled")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--clips", type=int, default=4, help="of each scenario")
    parser.add_argument("--scenarios", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = load_engine(options.model, options.checkpoint, backend=options.backend, dtype=options.dtype)
    result = {
        "benchmark": "identities",
        "model": options.model,
        "backend": f"{options.backend}, {options.dtype}",
        "clips": options.clips,
        "ways": measure(engine, options.scenarios, HELD_OUT[: options.clips]),
        **machine_facts(),
    }
    conclude(result, options.save)


if __name__ == "__main__":
    main()
