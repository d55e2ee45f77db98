"""How good and how fast is the tracker on unseen generated clips, from one click and from a mask?

Every object of every clip, through `stream.tracker` and scored by `stream.quality` as DAVIS 2017 does: the first and
last picture do not count. `nano_quality.py` asks the same of the bare network, about one object a clip; this is what a
user gets. Speed is that of the tracker alone with all objects of a clip, on this machine as loaded as it is ("load").
The last line is one JSON object. Never trains, never draws a training seed.

    python benchmarks/quality.py [--clips 20] [--model nano] [--checkpoint FILE] [--memory-policy motion] [--save FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import conclude, machine_facts
from stream.evaluate import Campaign, Choice, Material, PromptKind, generated_material, scores_of, speed_of
from stream.quality import summarise
from stream.tracker import Tracker

PROMPTS: tuple[PromptKind, ...] = ("click", "mask")
DIGITS = 4


def measure(tracker: Tracker, materials: list[Material], prompt: PromptKind) -> dict[str, Any]:
    """Quality and speed with one kind of prompt."""
    campaign = Campaign(tracker, materials, prompt=prompt)
    for _ in campaign.run():
        continue
    scores = scores_of(campaign.records)
    summary = summarise(scores)
    speed = speed_of([record.pace for record in campaign.records], "")
    assert summary is not None and speed is not None, "generated clips have objects on every picture"
    worst = min((item.j_and_f, score.name) for score in scores for item in score.objects)
    return {
        "j_and_f": round(summary.j_and_f, DIGITS), "j": round(summary.j.mean, DIGITS),
        "f": round(summary.f.mean, DIGITS), "j_decay": round(summary.j.decay, DIGITS),
        "map": None if summary.map is None else round(summary.map.ap, DIGITS),
        "instability": round(summary.instability or 0.0, DIGITS), "switches": summary.num_switches,
        "found_again": f"{summary.num_reacquired}/{summary.num_returns}", "objects": summary.num_objects,
        "worst_object_j_and_f": round(worst[0], DIGITS), "worst_clip": worst[1],
        "pictures_per_s": round(speed.pictures_per_s, 1), "ms_per_picture": round(speed.ms_per_picture, 1),
        "objects_per_picture": round(speed.objects_per_picture, 2),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory-policy", choices=("sam2", "motion"), default="sam2")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    choice = Choice(
        options.model, options.checkpoint, backend=options.backend, device=options.device,
        memory_policy=options.memory_policy,
    )  # fmt: skip
    tracker, materials = choice.open(), generated_material(options.clips)
    found = {prompt: measure(tracker, materials, prompt) for prompt in PROMPTS}
    engine = tracker.engine
    result = {
        "benchmark": "quality", **machine_facts(), "model": options.model, "image_size": engine.spec.image_size,
        "backend": engine.backend, "device": str(engine.device), "dtype": str(engine.dtype).removeprefix("torch."),
        "memory_policy": options.memory_policy, "clips": options.clips,
        "frames": materials[0].truth.num_frames, **found,
    }  # fmt: skip
    conclude(result, options.save)


if __name__ == "__main__":
    main()
