"""The training loop: steps, learning rate, log, and the stages of a course one after the other.

Owns the schedule and the log file; the state is the Trainer's. One thread per process. On a CPU two processes of one
thread each, which average their gradients, do twice the work of one process with two threads.
Never evaluates: `benchmarks/nano_quality.py` does.

    sam2-stream train-nano -o DIR                                                      the whole course
    torchrun --nproc-per-node 2 -m engines.training.loop --out DIR --image-size 128 --minutes 30 --clips 16    one stage
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from engines.training.architecture import plain_attention, untrained
from engines.training.course import Stage
from engines.training.live import MIN_AREA, Field
from engines.training.prompts import draw_prompt
from engines.training.rollout import ClipRunner, Plan
from engines.training.samples import Batch, Recipe, batches
from engines.training.shelf import Shelf
from engines.training.trainer import Trainer, export_checkpoint, stage_of
from engines.whole_file import moved_in

NUM_LEARNED_FRAMES = 2
"""Of a clip, so many teach; those before them fill the memory without gradients, at a third of the cost.

Two is enough to learn what to remember, and buys twice as many scenes as four."""
SECONDS_BETWEEN_SAVES = 120.0
STEPS_BETWEEN_LINES = 100
WARM_UP_STEPS = 200
RESUME_STEPS = 30
"""The warm-up of a stage that goes on: its moments are those that it had."""

Told = Callable[[Stage, float], None]
"""Called after every step with the share of the stage that is over."""


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


def learned(
    model: Any, stage: Stage, *, shelf: Shelf | None, turn: int = 0
) -> Iterator[tuple[torch.Tensor, ClipRunner]]:
    """Losses without end, one a step; a stage that goes on after `turn` steps draws other scenes than before."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    recipe = Recipe(
        stage.image_size,
        stage.clips // size,
        stage.frames,
        num_objects=stage.objects,
        hard_share=stage.hard_share,
        shelf=shelf,
    )
    if stage.live:
        field = Field(model, recipe, np.random.default_rng((stage.seed, 2, rank, turn)))
        while True:
            yield field.step()
    rng = np.random.default_rng((stage.seed, 1, turn))
    for batch in batches(recipe, stage.seed + rank + 1000 * turn, num_workers=0):
        yield train_step(model, batch, rng, rank=rank)


def rate_of(stage: Stage, *, share: float, warm: float) -> float:
    """The learning rate when `share` of the stage and `warm` of its warm-up are over."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return stage.rate * min(1.0, warm) * (stage.floor + (1 - stage.floor) * cosine)


def _agree(share: float) -> float:
    """The mean over all processes: they must stop at the same step."""
    if not dist.is_initialized():
        return share
    shares = torch.tensor([share])
    dist.all_reduce(shares)
    return shares.item() / dist.get_world_size()


def run_stage(trainer: Trainer, stage: Stage, *, shelf: Shelf | None = None, told: Told | None = None) -> None:
    """Train to the end of a stage, from where the state stands in it."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    trainer.enter(stage.name)
    last_step = last_save = last_line = time.monotonic()
    window: list[tuple[float, ...]] = []
    turn = trainer.stage_steps
    losses = learned(trainer.model, stage, shelf=shelf, turn=turn)
    while (share := _agree(stage.share(trainer.stage_steps, trainer.stage_seconds))) < 1:
        loss, runner = next(losses)
        warm = (trainer.stage_steps - turn + 1) / (WARM_UP_STEPS if turn == 0 else RESUME_STEPS)
        trainer.update(loss, rate=rate_of(stage, share=share, warm=warm))
        now = time.monotonic()
        trainer.spend(now - last_step)
        last_step = now
        window.append(_figures(loss, runner))
        if rank == 0 and trainer.step % STEPS_BETWEEN_LINES == 0:
            _write_line(trainer, stage, window, ms_per_step=1000 * (now - last_line) / len(window))
            window, last_line = [], now
        if rank == 0 and now - last_save > SECONDS_BETWEEN_SAVES:
            trainer.save()
            last_save = now
        if told is not None:
            told(stage, share)
    if rank == 0:
        trainer.save()


def run_course(
    out: Path, course: tuple[Stage, ...], *, model: str = "nano", shelf: Shelf | None = None, told: Told | None = None
) -> Path:
    """Train through a course in `out`, from where the state there stands; returns the checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.pt"
    names, done = [stage.name for stage in course], stage_of(state)
    for stage in course[names.index(done) if done in names else 0 :]:
        torch.manual_seed(stage.seed)
        trainer = Trainer(untrained(model, stage.image_size), out, peak_rate=stage.rate)
        if state.exists():
            trainer.resume(state)
        if stage.blend and trainer.stage != stage.name:
            trainer.blend(torch.load(_kept(out, stage.blend), weights_only=True))
        run_stage(trainer, stage, shelf=shelf, told=told)
        if any(later.blend == stage.name for later in course):
            with moved_in(_kept(out, stage.name)) as beside:
                torch.save(trainer.average, beside)
    export_checkpoint(trainer.average, out / "checkpoint.pt")
    return out / "checkpoint.pt"


def _kept(out: Path, stage: str) -> Path:
    """Where the weights of a stage's end are kept for a later stage."""
    return out / f"{stage}.pt"


def _figures(loss: torch.Tensor, runner: ClipRunner) -> tuple[float, ...]:
    fresh = math.nan if runner.fresh_ious is None else runner.fresh_ious.mean().item()
    return loss.item(), runner.ious[0].mean().item(), runner.ious[-1].mean().item(), fresh


def _write_line(trainer: Trainer, stage: Stage, window: list[tuple[float, ...]], *, ms_per_step: float) -> None:
    loss, first, last = (round(float(value), 4) for value in np.mean(window, 0)[:3])
    fresh = [row[3] for row in window if not math.isnan(row[3])]
    line = {
        "step": trainer.step,
        "minutes": round(trainer.seconds / 60, 2),
        "stage": stage.name,
        "size": stage.image_size,
        "clips": stage.clips,
        "frames": "live" if stage.live else stage.frames,
        "loss": loss,
        "iou_first": first,
        "iou_last": last,
        "iou_fresh": round(float(np.mean(fresh)), 4) if fresh else None,
        "rate": float(f"{trainer.optimiser.param_groups[0]['lr']:.3g}"),
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
    parser.add_argument("--name", default="stage", help="a stage of the name that the state is in goes on")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--floor", type=float, default=0.02, help="the stage ends at this share of the rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--live", action="store_true", help="clips of up to 60 frames that are tracked on")
    parser.add_argument("--hard-share", type=float, default=0.0, help="so many scenes are hard ones")
    parser.add_argument("--bank", type=Path, help="real textures, made by engines.synthetic.cutout")
    parser.add_argument("--leave-out", nargs="*", default=[], help="clips whose textures are not used")
    parser.add_argument("--threads", type=int, default=1)
    _run(parser.parse_args())


def _run(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    fields = (
        "name",
        "image_size",
        "clips",
        "frames",
        "rate",
        "floor",
        "seed",
        "steps",
        "minutes",
        "live",
        "hard_share",
    )
    stage = Stage(**{name: getattr(options, name) for name in fields}, objects=options.objects)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(untrained(options.model, options.image_size), options.out, peak_rate=options.rate)
    if options.resume:
        trainer.resume(options.resume)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    shelf = Shelf(options.bank, leave_out=tuple(options.leave_out)) if options.bank else None
    run_stage(trainer, stage, shelf=shelf)
    if not dist.is_initialized() or dist.get_rank() == 0:
        export_checkpoint(trainer.average, options.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
