"""What does each step of refinement gain, and what does it cost?

The nano model follows the objects of generated clips (evaluation seeds) from one click each, once; then every setting
is applied to the same logits, and scored against the truth with the measures of `sam2-stream evaluate`. Times are of
the thread on one core, for one object, `off` taken away: a busy machine counts little. The last line is one JSON
object.

    python benchmarks/refine.py [--clips 20] [--save FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.machine import conclude, machine_facts
from engines.synthetic import EVALUATION_SEEDS, ClipSpec, SyntheticClip
from stream.config import RefineOptions
from stream.quality import Scene, SequenceScore, SequenceScorer, summarise
from stream.readout import Part, read_out
from stream.refine import Finish, Refinement
from stream.sequence import LabelledFrame
from stream.tracker import Tracker

SIZE = 480, 640
SETTINGS = {
    "off": RefineOptions(),
    "fill_holes 8": RefineOptions(fill_holes=8),
    "fill_holes 120": RefineOptions(fill_holes=120),
    "remove_specks 120": RefineOptions(remove_specks=120),
    "smooth 0.5": RefineOptions(smooth=0.5),
    "smooth 1.0": RefineOptions(smooth=1.0),
    "upsample guided": RefineOptions(upsample="guided"),
    "non_overlap": RefineOptions(non_overlap=True),
    "guided, smooth 0.5": RefineOptions(smooth=0.5, upsample="guided"),
    "all": RefineOptions(fill_holes=120, remove_specks=120, smooth=0.5, upsample="guided", non_overlap=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tracker = Tracker.load("nano", device="cpu", dtype="fp32")
    scores: dict[str, list[SequenceScore]] = {name: [] for name in SETTINGS}
    times_s: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for seed in EVALUATION_SEEDS[: arguments.clips]:
        clip = SyntheticClip(ClipSpec(seed=seed, height=SIZE[0], width=SIZE[1]))
        frames = [clip.frame(index) for index in range(clip.spec.num_frames)]
        parts = track(tracker, clip, frames)
        for name, options in SETTINGS.items():
            scores[name].append(score(clip, refine(frames, parts, options, times_s[name])))
        print(seed, *(f"{one.j_and_f:.3f}" for name in ("off", "all") for one in scores[name][-1].objects), flush=True)
    rows = {name: row(scores[name], times_s[name], times_s["off"]) for name in SETTINGS}
    for name, found in rows.items():
        print(f"{name:20s} {found}")
    pictures = {"clips": arguments.clips, "height": SIZE[0], "width": SIZE[1], "objects": 2}
    result = {"benchmark": "refine", **machine_facts(), "model": "nano", **pictures, "settings": rows}
    conclude(result, arguments.save)


def track(tracker: Tracker, clip: SyntheticClip, frames: list[np.ndarray]) -> list[Part]:
    tracker.reset()
    for number in range(clip.spec.num_objects):
        tracker.add(number, points=[(*clip.click(number), 1)])
    parts = []
    for frame in frames:
        masks = tracker.step(frame)
        ranked = tracker.logits_nhw.clone(), torch.from_numpy(masks.scores), torch.from_numpy(masks.ious)
        parts.append(ranked)
    return parts


def refine(
    frames: list[np.ndarray], parts: list[Part], options: RefineOptions, times_s: list[float]
) -> list[np.ndarray]:
    """Masks (n, height, width) of every picture."""
    refinement, finishes = Refinement(options), [Finish() for _ in parts[0][0]]
    found = []
    for frame, (logits, scores, ious) in zip(frames, parts, strict=True):
        start = time.thread_time()
        refined = refinement.refined("", logits, finishes)
        (block,) = read_out([(refined, scores, ious)], [SIZE], [refinement.guides("", frame, finishes)])
        times_s.append((time.thread_time() - start) / len(finishes))
        found.append(np.unpackbits(block.packed_nhb, axis=2, count=SIZE[1]).astype(np.bool_))
    return found


def score(clip: SyntheticClip, found: list[np.ndarray]) -> SequenceScore:
    """As DAVIS does: neither the first picture nor the last."""
    scorer = SequenceScorer(Scene(str(clip.spec.seed), SIZE))
    for index, masks in enumerate(found):
        truth, ours = (LabelledFrame(index, dict(enumerate(one))) for one in (clip.masks(index), masks))
        scorer.put(truth, ours, is_scored=0 < index < len(found) - 1)
    return scorer.score()


def row(scores: list[SequenceScore], times_s: list[float], off_s: list[float]) -> dict[str, Any]:
    summary = summarise(scores)
    assert summary is not None, "every clip has objects"
    figures = {"j": summary.j.mean, "f": summary.f.mean, "j_and_f": summary.j_and_f, "instability": summary.instability}
    cost_ms = (float(np.mean(times_s)) - float(np.mean(off_s))) * 1e3
    found = {name: None if value is None else round(value, 4) for name, value in figures.items()}
    return {**found, "ms_an_object": round(cost_ms, 2)}


if __name__ == "__main__":
    main()
