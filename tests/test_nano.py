"""The nano in the zoo: small, in Meta's format, and able to follow things it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.nano_quality import Stream, load, score_clips
from engines.synthetic import DEMO, EVALUATION_SEEDS, ClipSpec, SyntheticClip
from engines.weights import build_model, path

ZOO = Path(__file__).resolve().parents[1] / "engines" / "zoo"
RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "nano_quality.json"


def test_the_checkpoint_is_small_and_in_metas_format() -> None:
    assert path("nano").stat().st_size <= 15_000_000
    content = torch.load(path("nano"), weights_only=True)
    assert list(content) == ["model"]
    assert {value.dtype for value in content["model"].values()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in content["model"].values())
    assert build_model("nano").image_size == 192


def test_one_click_follows_unseen_objects() -> None:
    targets = [(ClipSpec(seed, num_frames=12), 0) for seed in EVALUATION_SEEDS[:6]]
    with torch.inference_mode():
        scores = score_clips(load(path("nano"), None), targets)
    plain, refined = scores.mean((1, 2))
    assert plain >= 0.7
    assert refined >= plain + 0.01


def test_most_objects_that_vanish_are_given_up() -> None:
    specs = [ClipSpec(seed, num_objects=1, num_distractors=0) for seed in EVALUATION_SEEDS[:8]]
    clips, without = [SyntheticClip(spec) for spec in specs], [SyntheticClip(spec) for spec in specs]
    for clip in without:
        clip._order = []
    stream = Stream(load(path("nano"), None))
    clicks = np.array([clip.click(0) for clip in clips]) / 256
    with torch.inference_mode():
        stream.step(0, [clip.frame(0) for clip in clips], clicks)
        shown = stream.step(1, [clip.frame(1) for clip in clips], None) > 0
        gone = [stream.step(t, [clip.frame(t) for clip in without], None) > 0 for t in range(2, 8)][-1]
    left = gone.sum((1, 2, 3)) / shown.sum((1, 2, 3))
    assert shown.flatten(1).any(1).all()
    assert (left < 0.1).sum() >= 5  # the others cling to a still shape of the background


def test_the_published_result_meets_the_bars() -> None:
    result = json.loads(RESULT.read_text())
    assert result["clips"] == 50 and result["frames"] == 60
    for found in (found for by_kind in result["prompts"].values() for found in by_kind.values()):
        assert found["mean_iou"] >= 0.75
        assert np.mean(found["demo_iou"]) >= 0.80 and len(found["demo_iou"]) == DEMO.num_objects
