"""The training loop: gradients, schedule, moving average, and the state from which it goes on.

Owns: all that training changes. Runs in the training thread. Never: reads a video, judges the weights, or prints.

A step is a function of the state and its number: the random generators are set anew for each, so that a run that was
interrupted ends with the same weights as one that was not (on a CPU thread, bit for bit).
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.whole_file import moved_in, replaced
from stream.finetune.network import groups, losses_of, make_loss, training_network
from stream.finetune.samples import VideoBatch
from stream.finetune.settings import FinetuneError, Settings

BETAS = (0.9, 0.98)
MAX_NORM = 1.0
WARM_UP = 0.05  # share of the steps, 5 at least
FLOOR = 0.1  # of the peak rate, at the end

Losses = dict[str, float]
_DAMAGE: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
_DAMAGE += (EOFError, pickle.UnpicklingError)


class Trainer:
    """Every field is written by the training thread."""

    def __init__(self, settings: Settings, weights: dict[str, Tensor], device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.step = 0
        self.network = training_network(settings, weights).to(device)
        self.loss = make_loss(self.network)
        self.amp = amp_dtype(settings, device)
        self._optimiser = torch.optim.AdamW(groups(self.network, settings), betas=BETAS)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @property
    def rate(self) -> float:
        """Of the fastest group."""
        return max(float(group["lr"]) for group in self._optimiser.param_groups)

    def learn(self, batches: Iterator[VideoBatch]) -> Losses:
        """One step of the optimiser, from the next `accumulate` batches; the mean of their losses."""
        self._prepare()
        sums: Losses = {}
        for _ in range(self.settings.accumulate):
            losses = losses_of(self.network, self.loss, next(batches).to(self.device), amp=self.amp)
            self._scaler.scale(losses["total"] / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(torch.as_tensor(value).detach()) / self.settings.accumulate
        if not math.isfinite(sums["total"]) and self.amp is not torch.float16:
            raise FinetuneError(
                f"step {self.step + 1}: the loss is {sums['total']}; expected a number, try a smaller --rate"
            )
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.step += 1
        self._add_to_average()
        return sums

    def _prepare(self) -> None:
        """This step's rates and random numbers."""
        share = self.step / self.settings.steps
        warm = (self.step + 1) / max(5.0, WARM_UP * self.settings.steps)
        factor = min(1.0, warm) * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * share)) / 2)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        self._optimiser.zero_grad(set_to_none=True)
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self.network.rng = np.random.default_rng((self.settings.seed, self.step, 1))

    @torch.no_grad()
    def _add_to_average(self) -> None:
        """Young averages forget faster."""
        decay = min(self.settings.average, (self.step + 1) / (self.step + 9))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def save(self, path: Path, history: str) -> None:
        """All that going on needs; `history` is the course's own."""
        state = {
            "network": self.network.state_dict(), "average": self.average, "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(), "step": self.step, "history": history,
        }  # fmt: skip
        with replaced(path) as file:
            torch.save(state, file)

    def resume(self, path: Path) -> str:
        """Go on from a saved state; the history. Raises `FinetuneError`."""
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._scaler.load_state_dict(state["scaler"])
            self.average = dict(state["average"])
            self.step = int(state["step"])
            return str(state["history"])
        except _DAMAGE as exc:
            reason = str(exc).strip().partition("\n")[0][:100]
            raise FinetuneError(f"{path}: cannot go on from it ({reason}); expected the state of such a run") from exc


def amp_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """What autocast computes in; None without it."""
    if not settings.amp:
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def export(weights: dict[str, Tensor], path: Path) -> None:
    """A checkpoint as Meta writes them: what loads theirs loads this, and a daemon under another user may read it."""
    with moved_in(path) as beside:
        torch.save({"model": {name: value.detach().cpu().float() for name, value in weights.items()}}, beside)
