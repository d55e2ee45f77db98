"""How well does a model follow unseen generated clips from one click, or one mask, each?

Streams held-out clips through the official modules (`SAM2Base.track_step`, fp32, nothing of ours in between) and
compares with the truth: the model's masks as they are, and the same masks after the daemon's own refinement, which
never changes what is remembered. The last line is one JSON object. Never trains, never draws a training seed.

    python benchmarks/nano_quality.py [--clips 50] [--prompt click mask] [--demo] [--save FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import conclude, machine_facts
from engines.synthetic import DEMO, EVALUATION_SEEDS, VALIDATION_SEEDS, ClipSpec, SyntheticClip
from engines.training.architecture import untrained
from engines.training.samples import normalise
from stream.config import RefineOptions
from stream.readout import read_out
from stream.refine import Finish, Refinement

ZOO = Path(__file__).resolve().parents[1] / "engines" / "zoo" / "nano"
PROMPTS = ("click", "mask")
KEPT_FRAMES = 16
REFINED = RefineOptions(fill_holes=120, remove_specks=120, smooth=0.5, upsample="guided")


class Stream:
    """A batch of clips, one row each, tracked frame by frame with the official step."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}

    def step(
        self,
        index: int,
        frames: list[NDArray[np.uint8]],
        clicks_n2: NDArray[np.float64] | None,
        *,
        masks_nhw: NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        """Low-resolution logits (rows, 1, h, w) of the next frame; clicks or masks are given with frame 0 only."""
        size = self._model.image_size
        scaled = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])
        backbone = self._model.forward_image(normalise(scaled))
        _, features, positions, sizes = self._model._prepare_backbone_features(backbone)
        points = None
        if clicks_n2 is not None:
            labels = torch.ones(len(clicks_n2), 1, dtype=torch.int32)
            points = {"point_coords": torch.from_numpy(clicks_n2).float()[:, None] * size, "point_labels": labels}
        out = self._model.track_step(
            frame_idx=index,
            is_init_cond_frame=index == 0,
            current_vision_feats=features,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=points,
            mask_inputs=None if masks_nhw is None else self._scaled(masks_nhw),
            output_dict=self._memory,
            num_frames=10_000,
        )
        self._memory["cond_frame_outputs" if index == 0 else "non_cond_frame_outputs"][index] = out
        self._memory["non_cond_frame_outputs"].pop(index - KEPT_FRAMES, None)
        logits: torch.Tensor = out["pred_masks"]
        return logits

    def _scaled(self, masks_nhw: NDArray[np.bool_]) -> torch.Tensor:
        size = (self._model.image_size, self._model.image_size)
        return (F.interpolate(torch.from_numpy(masks_nhw).float()[:, None], size, mode="area") > 0.5).float()


def iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((predicted | truth).sum())
    return float((predicted & truth).sum() / union) if union else 1.0


class Finisher:
    """The masks of one object per picture, plain and refined."""

    def __init__(self, num_rows: int) -> None:
        self._refinement = Refinement(REFINED)
        self._finishes = [Finish() for _ in range(num_rows)]

    def plain(self, frames: list[NDArray[np.uint8]], logits_n1hw: torch.Tensor) -> list[NDArray[np.bool_]]:
        """As the model made them, enlarged bilinearly."""
        size = frames[0].shape[:2]
        masks = F.interpolate(logits_n1hw, size, mode="bilinear", align_corners=False)[:, 0] > 0
        return list(masks.numpy())

    def refined(self, frames: list[NDArray[np.uint8]], logits_n1hw: torch.Tensor) -> list[NDArray[np.bool_]]:
        """As the daemon publishes them with `REFINED`."""
        return [self._refined_row(row, frame, logits_n1hw[row]) for row, frame in enumerate(frames)]

    def _refined_row(self, row: int, frame: NDArray[np.uint8], logits_1hw: torch.Tensor) -> NDArray[np.bool_]:
        finishes, nothing = self._finishes[row : row + 1], torch.zeros(1)
        refined = self._refinement.refined("", logits_1hw, finishes)
        guides = self._refinement.guides("", frame, finishes)
        (block,) = read_out([(refined, nothing, nothing)], [frame.shape[:2]], [guides])
        return np.unpackbits(block.packed_nhb[0], axis=1, count=frame.shape[1]).astype(np.bool_)


def score_clips(model: Any, targets: list[tuple[ClipSpec, int]], *, prompt: str = "click") -> NDArray[np.float64]:
    """IoU (2, targets, frames), plain and refined: one object each of clips of equal size, followed from a click or its
    mask on frame 0.
    """
    clips, numbers = [SyntheticClip(spec) for spec, _ in targets], [number for _, number in targets]
    spec = targets[0][0]
    clicks = np.array([clip.click(number) for clip, number in zip(clips, numbers, strict=True)])
    truths = np.stack([clip.masks(0)[number] for clip, number in zip(clips, numbers, strict=True)])
    stream, finisher = Stream(model), Finisher(len(clips))
    scores = np.zeros((2, len(clips), spec.num_frames))
    for t in range(spec.num_frames):
        frames = [clip.frame(t) for clip in clips]
        given = clicks / (spec.width, spec.height) if t == 0 and prompt == "click" else None
        logits = stream.step(t, frames, given, masks_nhw=truths if t == 0 and prompt == "mask" else None)
        shown = [clip.masks(t)[number] for clip, number in zip(clips, numbers, strict=True)]
        for kind, masks in enumerate((finisher.plain(frames, logits), finisher.refined(frames, logits))):
            scores[kind, :, t] = [iou(mask, truth) for mask, truth in zip(masks, shown, strict=True)]
    return scores


def figures(scores: NDArray[np.float64]) -> dict[str, Any]:
    """Of IoU (targets, frames)."""
    by_clip = scores.mean(1)
    return {
        "mean_iou": round(float(scores.mean()), 4),
        "mean_iou_first_frame": round(float(scores[:, 0].mean()), 4),
        "mean_iou_last_10_frames": round(float(scores[:, -10:].mean()), 4),
        "median_clip_iou": round(float(np.median(by_clip)), 4),
        "worst_clip_iou": round(float(by_clip.min()), 4),
        "clips_below_half": int((by_clip < 0.5).sum()),
    }


@torch.inference_mode()
def measured(
    model: Any, targets: list[tuple[ClipSpec, int]], demo: list[tuple[ClipSpec, int]], *, prompt: str
) -> dict[str, dict[str, Any]]:
    """Figures of the plain and of the refined masks from one kind of prompt."""
    batches = [targets[start : start + 10] for start in range(0, len(targets), 10)]
    scores = np.concatenate([score_clips(model, batch, prompt=prompt) for batch in batches], axis=1)
    of_demo = score_clips(model, demo, prompt=prompt).mean(2).round(4) if demo else np.zeros((2, 0))
    return {
        kind: {**figures(scores[row]), "demo_iou": of_demo[row].tolist()}
        for row, kind in enumerate(("plain", "refined"))
    }


def load(checkpoint: Path, image_size: int | None) -> Any:
    """The model with weights in Meta's format or from a training state."""
    model = untrained("nano", image_size)
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict({k: v.float() for k, v in state.get("average", state["model"]).items()})
    return model.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ZOO / "nano.pt")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--prompt", nargs="+", choices=PROMPTS, default=list(PROMPTS))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--validation", action="store_true", help="the seeds for judging during training")
    parser.add_argument("--demo", action="store_true", help="also the demo clip")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.checkpoint, options.image_size)
    seeds = (VALIDATION_SEEDS if options.validation else EVALUATION_SEEDS)[: options.clips]
    targets = [(ClipSpec(seed, num_frames=options.frames), 0) for seed in seeds]
    demo = [(DEMO, number) for number in range(DEMO.num_objects)] if options.demo else []
    start = time.monotonic()
    prompts = {prompt: measured(model, targets, demo, prompt=prompt) for prompt in options.prompt}
    result = {
        "benchmark": "nano_quality",
        **machine_facts(),
        "clips": len(targets),
        "frames": options.frames,
        "image_size": model.image_size,
        "settings": dataclasses.asdict(REFINED),
        "prompts": prompts,
        "seconds": round(time.monotonic() - start, 1),
    }
    conclude(result, options.save)


if __name__ == "__main__":
    main()
