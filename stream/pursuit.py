"""`Pursuit`: one picture's step for objects whose policy is "motion": propose, decide, remember.

Owns: how masks reach the host, and what becomes of a ruling (`stream.policy`). Lives within one turn, in that thread.
Never: decides anything itself.

The decision is the host's, so a turn with such objects waits once for the device, where others wait for nothing. Their
step runs on the engine's plain programs: a ready-made program ends with the choice of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.spec import NO_OBJECT_LOGIT, Engine, FrameFeatures, Proposals, Segmentation
from stream.memory import MemoryBank
from stream.policy import Motion, Proposed, Ruling, first_motion, rule
from stream.results import ResultBuffer

HIDDEN_SCORE = 0.0  # of a mask that was refused: the highest score that says "not visible"
CUT_LOGIT = -10.0  # at most, of what was cut off


@dataclass(frozen=True, slots=True)
class Sought:
    """One object: its row in the bank, its frame's place in the turn, its place in the results, and its motion as
    predicted to this picture.
    """

    row: int
    frame: int
    position: int
    motion: Motion | None


@dataclass(frozen=True, slots=True)
class Found:
    """What was made of it."""

    ruling: Ruling
    conditioned_1chw: Tensor
    logits_1hw: Tensor


class Pursuit:
    """Written by the tracker's thread."""

    def __init__(self, engine: Engine, bank: MemoryBank, results: ResultBuffer) -> None:
        self.engine, self.bank, self.results = engine, bank, results

    @torch.inference_mode()
    def run(self, frames: FrameFeatures, sought: Sequence[Sought]) -> list[Found]:
        """In the order of `sought`; the results and the memory are written, no row grows older."""
        found = self._propose(frames, sought)
        proposed = _to_host([proposals for proposals, _ in found])
        rulings: dict[int, Ruling] = {}
        for frame in dict.fromkeys(item.frame for item in sought):
            seats = [seat for seat, item in enumerate(sought) if item.frame == frame]
            ruled = rule([proposed[seat] for seat in seats], [sought[seat].motion for seat in seats])
            rulings |= zip(seats, ruled, strict=True)
        return [
            Found(rulings[seat], conditioned, self._settle(frames, sought[seat], proposals, ruling=rulings[seat]))
            for seat, (proposals, conditioned) in enumerate(found)
        ]

    def _propose(self, frames: FrameFeatures, sought: Sequence[Sought]) -> list[tuple[Proposals, Tensor]]:
        """Each object's masks that compete, and its conditioned features; rows with equally long memories share a
        batch.
        """
        most, by_lengths = self.engine.row_buckets[-1], dict[tuple[int, int], list[int]]()
        for seat, lengths in enumerate(self.bank.slots.lengths([item.row for item in sought])):
            by_lengths.setdefault(lengths, []).append(seat)
        found: dict[int, tuple[Proposals, Tensor]] = {}
        for seats in (group[i : i + most] for group in by_lengths.values() for i in range(0, len(group), most)):
            size = next(size for size in self.engine.row_buckets if size >= len(seats))
            row_frame = np.zeros(size, np.int64)
            row_frame[: len(seats)] = [sought[seat].frame for seat in seats]
            read = self.bank.read([sought[seat].row for seat in seats], batch=size)
            proposals, conditioned = self.engine.propose(frames, self.bank.upload(row_frame), read)
            for index, seat in enumerate(seats):
                one = slice(index, index + 1)
                found[seat] = Proposals(*(x[one].clone() for x in proposals)), conditioned[one].clone()
        return [found[seat] for seat in range(len(sought))]

    def _settle(self, frames: FrameFeatures, item: Sought, found: Proposals, *, ruling: Ruling) -> Tensor:
        """Write what was decided to the results and to the memory; the logits (1, h, w)."""
        logits, scores = found.logits_bkhw[:, ruling.choice], found.scores_b
        if not ruling.is_seen:
            logits, scores = torch.full_like(logits, NO_OBJECT_LOGIT), scores.clamp(max=HIDDEN_SCORE)
        elif ruling.cut_hw is not None:
            is_cut = self.bank.upload(ruling.cut_hw)
            logits = torch.where(is_cut, logits.clamp(max=CUT_LOGIT), logits)
        kept = Segmentation(
            logits, found.ious_bk[:, ruling.choice], scores, found.pointers_bkc[:, ruling.choice], logits
        )
        self.results.put(self.bank.upload(np.array([item.position], np.int64)), kept)  # which take no memory
        if ruling.is_remembered:
            row_frame = self.bank.upload(np.array([item.frame], np.int64))
            kept = kept._replace(memory_bnc=self.engine.remember(frames, row_frame, (logits, scores)))
            self.bank.write_recent([item.row], kept)
            if ruling.is_anchor:
                self.bank.write_anchor(item.row, kept)
        return logits


def begin(found: Segmentation) -> Motion | None:
    """What is known of an object that was just prompted; waits for the device."""
    return first_motion((found.logits_bhw[0] > 0).cpu().numpy(), float(found.ious_b[0]))


def _to_host(found: Sequence[Proposals]) -> list[Proposed]:
    """All that is decided by; one wait for the device."""
    masks = torch.cat([one.logits_bkhw for one in found]) > 0
    numbers = torch.stack([torch.cat([one.ious_bk[0], one.scores_b]) for one in found])
    packed = (
        torch.cat([masks.flatten(1).view(torch.uint8), numbers.contiguous().view(torch.uint8)], dim=1).cpu().numpy()
    )
    num_bits = int(masks[0].numel())
    masks_nkhw: NDArray[np.bool_] = packed[:, :num_bits].view(np.bool_).reshape(masks.shape)
    numbers_nx = np.ascontiguousarray(packed[:, num_bits:]).view(np.float32).astype(np.float64)
    return [Proposed(bits, row[:-1], float(row[-1])) for bits, row in zip(masks_nkhw, numbers_nx, strict=True)]
