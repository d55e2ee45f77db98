"""What training changes: model, optimiser, moving average, and where in the course it stands.

Owns the training state of its process, saves it and resumes from it; one thread per process. Never draws data, never
decides how long to train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engines.whole_file import moved_in

EMA_DECAY = 0.999
WEIGHT_DECAY = 0.05


class Trainer:
    """All that training changes; every field is written by the one training thread."""

    def __init__(self, model: Any, out: Path, *, peak_rate: float) -> None:
        self.model = model
        self.out = out
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.98))
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        self.stage = ""
        self.stage_steps = 0
        self.stage_seconds = 0.0

    def enter(self, stage: str) -> None:
        """Begin a stage, unless it is under way."""
        if stage != self.stage:
            self.stage, self.stage_steps, self.stage_seconds = stage, 0, 0.0

    def update(self, loss: torch.Tensor, *, rate: float) -> None:
        """One optimiser step."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if dist.is_initialized():
            _average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self.stage_steps += 1
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def spend(self, seconds: float) -> None:
        """Count the time of the step just made."""
        self.seconds += seconds
        self.stage_seconds += seconds

    def blend(self, earlier: dict[str, torch.Tensor]) -> None:
        """Go on from the mean of earlier averaged weights and those of now."""
        self.average = {name: (value + earlier[name]) / 2 for name, value in self.average.items()}
        self.model.load_state_dict(self.average)

    def save(self) -> None:
        """Write the state; a reader sees the old one or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "stage": self.stage,
            "stage_steps": self.stage_steps,
            "stage_seconds": self.stage_seconds,
        }
        with moved_in(self.out / "state.pt") as beside:
            torch.save(state, beside)

    def resume(self, path: Path) -> None:
        """Continue from a saved state, at any picture size."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.stage, self.stage_steps = state.get("stage", ""), state.get("stage_steps", 0)
        self.stage_seconds = state.get("stage_seconds", 0.0)


def stage_of(state: Path) -> str:
    """The name of the stage that a saved state is in; empty where there is none."""
    return str(torch.load(state, weights_only=True).get("stage", "")) if state.exists() else ""


def _average_gradients(model: Any) -> None:
    parameters = list(model.parameters())
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def export_checkpoint(average: dict[str, torch.Tensor], path: Path) -> None:
    """Write weights as Meta does, in half precision."""
    with moved_in(path) as beside:
        torch.save({"model": {name: value.half() for name, value in average.items()}}, beside)
