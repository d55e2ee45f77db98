"""The training loop: model, optimiser, moving average, schedule, checkpoints, log.

Owns the training state of its process and resumes from its own checkpoint; one thread per process. On a CPU two
processes of one thread each, which average their gradients, do twice the work of one process with two threads.
Never evaluates: `benchmarks/nano_quality.py` does.

    torchrun --nproc-per-node 2 -m engines.training.loop --out DIR --image-size 128 --minutes 30 --clips 16 --frames 1
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from engines.training.architecture import plain_attention, untrained
from engines.training.prompts import draw_prompt
from engines.training.rollout import ClipRunner, Plan
from engines.training.samples import Batch, Recipe, batches

EMA_DECAY = 0.999
WEIGHT_DECAY = 0.05
MIN_AREA = 0.003
"""An object is prompted only where it shows at least this share of the frame."""
NUM_LEARNED_FRAMES = 2
"""Of a clip, so many teach; those before them fill the memory without gradients, at a third of the cost.

Two is enough to learn what to remember, and buys twice as many scenes as four."""
SECONDS_BETWEEN_SAVES = 120.0
STEPS_BETWEEN_LINES = 100
WARM_UP_STEPS = 200


def draw_plan(rng: np.random.Generator, truth_nthw: torch.Tensor, *, rank: int = 0) -> Plan:
    """Most rows start from a click; boxes, masks, corrections and second conditioning frames are mixed in.

    `rng` is in the same state in all processes, so that they do equal work; the clicks differ by `rank`.
    """
    num_frames = truth_nthw.shape[1]
    clicks = np.random.default_rng((int(rng.integers(2**31)), rank))
    if num_frames == 1:
        kind = str(rng.choice(["click", "box"], p=[0.7, 0.3]))
        return Plan(draw_prompt(clicks, truth_nthw[:, 0], kind), corrected_frame=0 if rng.random() < 0.2 else None)
    kind = str(rng.choice(["click", "box", "mask"], p=[0.65, 0.15, 0.2]))
    num_spare = num_frames - NUM_LEARNED_FRAMES
    num_unlearned = int(rng.integers(1, num_spare + 1)) if num_spare > 0 and rng.random() < 0.4 else 0
    num_run = min(num_frames, num_unlearned + NUM_LEARNED_FRAMES)
    return Plan(
        draw_prompt(clicks, truth_nthw[:, 0], kind),
        num_unlearned=num_unlearned,
        num_learned=NUM_LEARNED_FRAMES,
        corrected_frame=int(rng.integers(num_run)) if rng.random() < 0.15 else None,
        mask_frame=int(rng.integers(1, num_run - 1)) if num_run > 2 and rng.random() < 0.08 else None,
    )


def train_step(model: Any, batch: Batch, rng: np.random.Generator, *, rank: int = 0) -> tuple[torch.Tensor, ClipRunner]:
    """Roll one batch out and return its loss; the caller steps the optimiser."""
    num_clips, num_objects = batch.masks_bnthw.shape[:2]
    truth = batch.masks_bnthw.flatten(0, 1)
    keep = truth[:, 0].mean((1, 2)) >= MIN_AREA
    truth = truth[keep]
    with plain_attention(), torch.autocast("cpu", torch.bfloat16):
        runner = ClipRunner(model, batch.frames_btchw, torch.arange(num_clips).repeat_interleave(num_objects)[keep])
        return runner.run(truth, draw_plan(rng, truth, rank=rank)), runner


class Trainer:
    """All that training changes; every field is written by the one training thread."""

    def __init__(self, model: Any, out: Path, *, peak_rate: float, floor: float = 0.02) -> None:
        self.model = model
        self.out = out
        self.peak_rate = peak_rate
        self.floor = floor
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.98))
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.step = 0
        self.seconds = 0.0

    def update(self, loss: torch.Tensor, *, share: float, warm: float) -> None:
        """One optimiser step; `share` of the stage is over (cosine), `warm` of the warm-up (linear)."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        rate = self.peak_rate * min(1.0, warm) * (self.floor + (1 - self.floor) * cosine)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if dist.is_initialized():
            _average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def save(self) -> None:
        """Write the state; a reader sees the old one or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.out / "state.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / "state.pt")

    def resume(self, path: Path) -> None:
        """Continue from a saved state."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]


def _average_gradients(model: Any) -> None:
    parameters = list(model.parameters())
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def _agree(share: float) -> float:
    """The mean over all processes: they must stop at the same step."""
    if not dist.is_initialized():
        return share
    shares = torch.tensor([share])
    dist.all_reduce(shares)
    return shares.item() / dist.get_world_size()


def export_checkpoint(average: dict[str, torch.Tensor], path: Path) -> None:
    """Write weights as Meta does, in half precision."""
    torch.save({"model": {name: value.half() for name, value in average.items()}}, path)


def run_stage(trainer: Trainer, recipe: Recipe, *, seed: int, minutes: float) -> None:
    """Train for so many minutes on one recipe, with one cosine of the learning rate."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    rng = np.random.default_rng((seed, 1))
    start = last_save = last_line = time.monotonic()
    window: list[tuple[float, float, float]] = []
    first_step, seconds_before = trainer.step, trainer.seconds
    for batch in batches(recipe, seed + rank, num_workers=0):
        share = _agree((time.monotonic() - start) / (minutes * 60))
        if share >= 1:
            break
        loss, runner = train_step(trainer.model, batch, rng, rank=rank)
        trainer.update(loss, share=share, warm=(trainer.step - first_step + 1) / WARM_UP_STEPS)
        now = time.monotonic()
        trainer.seconds = seconds_before + now - start
        window.append((loss.item(), runner.ious[0].mean().item(), runner.ious[-1].mean().item()))
        if rank == 0 and trainer.step % STEPS_BETWEEN_LINES == 0:
            _write_line(trainer, recipe, window, ms_per_step=1000 * (now - last_line) / len(window))
            window, last_line = [], now
        if rank == 0 and now - last_save > SECONDS_BETWEEN_SAVES:
            trainer.save()
            last_save = now
    if rank == 0:
        trainer.save()


def _write_line(
    trainer: Trainer, recipe: Recipe, window: list[tuple[float, float, float]], *, ms_per_step: float
) -> None:
    loss, first, last = (round(float(value), 4) for value in np.mean(window, 0))
    line = {
        "step": trainer.step,
        "minutes": round(trainer.seconds / 60, 2),
        "size": recipe.image_size,
        "clips": recipe.num_clips * (dist.get_world_size() if dist.is_initialized() else 1),
        "frames": recipe.num_frames,
        "loss": loss,
        "iou_first": first,
        "iou_last": last,
        "ms_per_step": round(ms_per_step),
    }
    with (trainer.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Command line of one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--floor", type=float, default=0.02, help="the stage ends at this share of the rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    trainer = Trainer(
        untrained(options.model, options.image_size), options.out, peak_rate=options.rate, floor=options.floor
    )
    if options.resume:
        trainer.resume(options.resume)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    num_clips = options.clips // (dist.get_world_size() if dist.is_initialized() else 1)
    recipe = Recipe(options.image_size, num_clips, options.frames, num_objects=options.objects)
    run_stage(trainer, recipe, seed=options.seed, minutes=options.minutes)
    if not dist.is_initialized() or dist.get_rank() == 0:
        export_checkpoint(trainer.average, options.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
