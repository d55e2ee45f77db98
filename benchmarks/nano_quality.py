"""How well does a model follow unseen generated clips from one click, or one mask, each?

Streams held-out clips through the official modules (`SAM2Base.track_step`, fp32, nothing of ours in between) and
compares with the truth. The last line is one JSON object. Never trains, never draws a training seed.

    python benchmarks/nano_quality.py [--clips 50] [--prompt mask] [--demo] [--save FILE]
"""

from __future__ import annotations

import argparse
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

from benchmarks.machine import conclude
from engines.synthetic import DEMO, EVALUATION_SEEDS, VALIDATION_SEEDS, ClipSpec, SyntheticClip
from engines.training.architecture import untrained
from engines.training.samples import normalise

ZOO = Path(__file__).resolve().parents[1] / "engines" / "zoo" / "nano"
KEPT_FRAMES = 16


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


def score_clips(model: Any, targets: list[tuple[ClipSpec, int]], *, prompt: str = "click") -> NDArray[np.float64]:
    """IoU (targets, frames): one object each of clips of equal size, followed from a click or its mask on frame 0."""
    clips, numbers = [SyntheticClip(spec) for spec, _ in targets], [number for _, number in targets]
    spec = targets[0][0]
    clicks = np.array([clip.click(number) for clip, number in zip(clips, numbers, strict=True)])
    truths = np.stack([clip.masks(0)[number] for clip, number in zip(clips, numbers, strict=True)])
    stream, scores = Stream(model), np.zeros((len(clips), spec.num_frames))
    for t in range(spec.num_frames):
        frames = [clip.frame(t) for clip in clips]
        given = clicks / (spec.width, spec.height) if t == 0 and prompt == "click" else None
        logits = stream.step(t, frames, given, masks_nhw=truths if t == 0 and prompt == "mask" else None)
        masks = F.interpolate(logits, (spec.height, spec.width), mode="bilinear", align_corners=False)[:, 0] > 0
        for row, (clip, number) in enumerate(zip(clips, numbers, strict=True)):
            scores[row, t] = iou(masks[row].numpy(), clip.masks(t)[number])
    return scores


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
    parser.add_argument("--prompt", choices=("click", "mask"), default="click")
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
    start = time.monotonic()
    with torch.inference_mode():
        scores = np.concatenate(
            [score_clips(model, targets[i : i + 10], prompt=options.prompt) for i in range(0, len(targets), 10)]
        )
        demo: Any = []
        if options.demo:
            demo = score_clips(model, [(DEMO, k) for k in range(DEMO.num_objects)], prompt=options.prompt).mean(1)
    result = {
        "benchmark": "nano_quality",
        "prompt": options.prompt,
        "clips": len(targets),
        "frames": options.frames,
        "mean_iou": round(float(scores.mean()), 4),
        "mean_iou_first_frame": round(float(scores[:, 0].mean()), 4),
        "mean_iou_last_10_frames": round(float(scores[:, -10:].mean()), 4),
        "median_clip_iou": round(float(np.median(scores.mean(1))), 4),
        "worst_clip_iou": round(float(scores.mean(1).min()), 4),
        "clips_below_half": int((scores.mean(1) < 0.5).sum()),
        "demo_iou": [round(float(value), 4) for value in demo],
        "image_size": model.image_size,
        "seconds": round(time.monotonic() - start, 1),
    }
    conclude(result, options.save)


if __name__ == "__main__":
    main()
