"""`Judge`: how good weights are on the clips that were held out.

Owns: the tracker that it runs them in, which is the daemon's. Runs in the training thread, between two steps. Never:
keeps a mask, or changes the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import torch
from torch import Tensor

from stream.evaluate import Campaign, Material, PromptKind, scores_of
from stream.finetune.network import tracking_engine
from stream.finetune.settings import FinetuneError
from stream.quality import SequenceScore, Summary, summarise
from stream.tracker import Tracker


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Means over the held-out objects, after so many steps."""

    step: int
    j_and_f: float
    summary: Summary


class Judge:
    """`scores` and `verdict` are written by the training thread: those of the last weights that were judged."""

    def __init__(self, model: str, clips: Sequence[Material], *, prompt: PromptKind, device: torch.device) -> None:
        self.clips, self.prompt = clips, prompt
        self.scores: tuple[SequenceScore, ...] = ()
        self.verdict: Verdict | None = None
        self._model, self._device = model, device

    def tracker(self, weights: dict[str, Tensor]) -> Tracker:
        """A tracker with these weights."""
        return Tracker(tracking_engine(self._model, weights, self._device))

    def judge(self, weights: dict[str, Tensor], step: int) -> Iterator[tuple[int, int]]:
        """Run all clips; yields how many pictures are done, of how many. Raises as `Campaign.run`."""
        campaign = Campaign(self.tracker(weights), self.clips, prompt=self.prompt)
        for progress in campaign.run():
            yield progress.num_done, progress.num_pictures
        self.scores = tuple(scores_of(campaign.records))
        summary = summarise(self.scores)
        if summary is None:
            names = ", ".join(clip.name for clip in self.clips)
            raise FinetuneError(f"{names}: no object can be judged, expected one on three annotated pictures")
        self.verdict = Verdict(step=step, j_and_f=summary.j_and_f, summary=summary)
