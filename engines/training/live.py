"""Long clips for training, at the price of short ones: groups of clips that are tracked on, a few frames a step.

Owns the groups that are under way and the plan of every step. Each step shows one group its next two frames, learns
from them, and leaves the group's memory, without gradients, for its next turn; so a model learns from its own memory
of dozens of frames while every frame that is computed also teaches. Runs in the training process's one thread. Never
steps an optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engines.training.architecture import plain_attention
from engines.training.prompts import Prompt, draw_prompt
from engines.training.rollout import ClipRunner, Fresh, Plan
from engines.training.samples import Batch, LiveClips, Recipe

MIN_AREA = 0.0015
"""An object is prompted only where it shows at least this share of the frame."""
LENGTHS = (2, 4, 8, 16, 32, 60)
LENGTH_PROBABILITY = (0.3, 0.14, 0.2, 0.18, 0.12, 0.06)
"""Short clips bring new scenes, long ones what sixty frames of own memory look like."""
STILL_SHARE = 0.4
"""So many steps show single pictures of twice as many scenes, at two thirds of the time: what a click means is learned
from many scenes, and no tracking mends a wrong first mask."""
STILL_HARD_SHARE = 0.6
"""Of these scenes so many are hard ones, where there are hard ones at all."""
NUM_LEARNED_FRAMES = 2
NUM_GROUPS = 12
"""So many groups take turns, so that neighbouring steps learn from different times of different scenes."""
_NOTHING = Prompt(torch.zeros(0), torch.zeros(0))


@dataclass(frozen=True, slots=True)
class Group:
    """Clips under way."""

    clips: LiveClips
    runner: ClipRunner
    rows: torch.Tensor
    """Which of the clips' objects are followed."""


class Field:
    """The groups under way, one of which moves on in a step; written by the training thread."""

    def __init__(self, model: Any, recipe: Recipe, rng: np.random.Generator) -> None:
        self._model = model
        self._recipe = recipe
        self._rng = rng
        self._groups: list[Group | None] = [None] * NUM_GROUPS
        self._turn = 0

    def step(self) -> tuple[torch.Tensor, ClipRunner]:
        """The loss of the next group's next frames, or of single pictures, and who ran them."""
        if self._rng.random() < STILL_SHARE:
            with plain_attention(), torch.autocast("cpu", torch.bfloat16):
                return self._show_stills()
        self._turn = (self._turn + 1) % len(self._groups)
        group = self._groups[self._turn]
        with plain_attention(), torch.autocast("cpu", torch.bfloat16):
            if group is None or group.clips.is_over:
                self._groups[self._turn], loss = self._begin()
            else:
                batch = group.clips.take(NUM_LEARNED_FRAMES)
                truth = batch.masks_bnthw.flatten(0, 1)[group.rows]
                loss = group.runner.go_on(batch.frames_btchw, truth, self._later_plan(group, truth))
        running = self._groups[self._turn]
        assert running is not None, "a step leaves its group running"
        return loss, running.runner

    def _show_stills(self) -> tuple[torch.Tensor, ClipRunner]:
        hard_share = STILL_HARD_SHARE if self._recipe.hard_share else 0.0
        recipe = replace(self._recipe, num_frames=1, num_clips=2 * self._recipe.num_clips, hard_share=hard_share)
        batch = LiveClips(self._rng, recipe).take(1)
        rows, clip_of_row = _visible_rows(batch)
        truth = batch.masks_bnthw.flatten(0, 1)[rows]
        kind = "click" if self._rng.random() < 0.85 else "box"
        plan = Plan(draw_prompt(self._rng, truth[:, 0], kind), corrected_frame=0 if self._rng.random() < 0.15 else None)
        runner = ClipRunner(self._model, batch.frames_btchw, clip_of_row)
        return runner.run(truth, plan), runner

    def _begin(self) -> tuple[Group, torch.Tensor]:
        length = int(self._rng.choice(LENGTHS, p=LENGTH_PROBABILITY))
        clips = LiveClips(self._rng, replace(self._recipe, num_frames=length))
        batch = clips.take(NUM_LEARNED_FRAMES)
        rows, clip_of_row = _visible_rows(batch)
        truth = batch.masks_bnthw.flatten(0, 1)[rows]
        kind = str(self._rng.choice(["click", "box", "mask"], p=[0.6, 0.1, 0.3]))
        plan = Plan(draw_prompt(self._rng, truth[:, 0], kind), corrected_frame=0 if self._rng.random() < 0.15 else None)
        plan = replace(plan, fresh=self._fresh(truth))
        runner = ClipRunner(self._model, batch.frames_btchw, clip_of_row)
        return Group(clips, runner, rows), runner.run(truth, plan)

    def _later_plan(self, group: Group, truth_nthw: torch.Tensor) -> Plan:
        first, draw = group.clips.shown - truth_nthw.shape[1], self._rng.random()
        return Plan(
            _NOTHING,
            corrected_frame=first if draw < 0.06 else None,
            mask_frame=first if draw > 0.98 else None,
            fresh=self._fresh(truth_nthw),
        )

    def _fresh(self, truth_nthw: torch.Tensor) -> Fresh | None:
        last = truth_nthw[:, -1]
        rows = (last.mean((1, 2)) >= MIN_AREA).nonzero()[:, 0]
        if not len(rows):
            return None
        kind = "click" if self._rng.random() < 0.85 else "box"
        return Fresh(draw_prompt(self._rng, last[rows], kind), rows)


def _visible_rows(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    num_clips, num_objects = batch.masks_bnthw.shape[:2]
    areas = batch.masks_bnthw[:, :, 0].mean((2, 3)).flatten()
    rows = (areas >= MIN_AREA).nonzero()[:, 0]
    return rows, torch.arange(num_clips).repeat_interleave(num_objects)[rows]
