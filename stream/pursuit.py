"""`Pursuit`: one picture's step for objects whose policy is "motion": propose, decide, remember.

Owns: how the masks that compete are measured, and what becomes of a ruling (`stream.policy`). Lives within one turn, in
that thread. Never: decides anything itself.

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
from stream.policy import Claims, Motion, Ruling, rule
from stream.results import ResultBuffer

HIDDEN_SCORE = 0.0  # of a mask that was refused; the next number that says "not visible"


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


@dataclass(frozen=True, slots=True)
class _Proposed:
    """One row's masks that compete."""

    proposals: Proposals
    conditioned_1chw: Tensor


class Pursuit:
    """Written by the tracker's thread."""

    def __init__(self, engine: Engine, bank: MemoryBank, results: ResultBuffer) -> None:
        self.engine, self.bank, self.results = engine, bank, results

    @torch.inference_mode()
    def run(self, frames: FrameFeatures, sought: Sequence[Sought]) -> list[Found]:
        """In the order of `sought`; the results and the memory are written, no row grows older."""
        proposed = self._propose(frames, sought)
        rulings: dict[int, Ruling] = {}
        for frame in dict.fromkeys(item.frame for item in sought):
            seats = [seat for seat, item in enumerate(sought) if item.frame == frame]
            claims = _measure([proposed[seat].proposals for seat in seats])
            rulings |= zip(seats, rule(claims, [sought[seat].motion for seat in seats]), strict=True)
        return [self._settle(frames, item, proposed[seat], rulings[seat]) for seat, item in enumerate(sought)]

    def _propose(self, frames: FrameFeatures, sought: Sequence[Sought]) -> dict[int, _Proposed]:
        """Rows with equally long memories share a batch."""
        most, by_lengths = self.engine.row_buckets[-1], dict[tuple[int, int], list[int]]()
        for seat, lengths in enumerate(self.bank.slots.lengths([item.row for item in sought])):
            by_lengths.setdefault(lengths, []).append(seat)
        groups = [seats[i : i + most] for seats in by_lengths.values() for i in range(0, len(seats), most)]
        proposed = {}
        for seats in groups:
            size = next(size for size in self.engine.row_buckets if size >= len(seats))
            row_frame = np.zeros(size, np.int64)
            row_frame[: len(seats)] = [sought[seat].frame for seat in seats]
            read = self.bank.read([sought[seat].row for seat in seats], batch=size)
            found, conditioned = self.engine.propose(frames, self.bank.upload(row_frame), read)
            for index, seat in enumerate(seats):
                one = slice(index, index + 1)
                proposed[seat] = _Proposed(Proposals(*(x[one].clone() for x in found)), conditioned[one].clone())
        return proposed

    def _settle(self, frames: FrameFeatures, item: Sought, proposed: _Proposed, ruling: Ruling) -> Found:
        """Write what was decided to the results and to the memory."""
        found, choice = proposed.proposals, ruling.choice
        logits, scores = found.logits_bkhw[:, choice], found.scores_b
        if not ruling.is_seen:
            logits, scores = torch.full_like(logits, NO_OBJECT_LOGIT), scores.clamp(max=HIDDEN_SCORE)
        row_frame = self.bank.upload(np.array([item.frame], np.int64))
        pointers, ious = found.pointers_bkc[:, choice], found.ious_bk[:, choice]
        if ruling.is_remembered:
            memory = self.engine.remember(frames, row_frame, (logits, scores))
            kept = Segmentation(logits, ious, scores, pointers, memory)
            self.bank.write_recent([item.row], kept)
            if ruling.is_anchor:
                self.bank.write_anchor(item.row, kept)
        result = Segmentation(logits, ious, scores, pointers, logits)  # the results take no memory
        self.results.put(self.bank.upload(np.array([item.position], np.int64)), result)
        return Found(ruling, proposed.conditioned_1chw, logits)


def _measure(proposals: Sequence[Proposals]) -> Claims:
    """All that is decided by, on the host: one wait for the device.

    Centre and extent are those of the rectangle with the mask's moments: a stray pixel far away hardly moves it.
    """
    logits_nkhw = torch.cat([one.logits_bkhw for one in proposals])
    count, num_choices, height, width = logits_nkhw.shape
    masks_nkhw = (logits_nkhw > 0).float()
    flat = masks_nkhw.flatten(2).flatten(0, 1)
    shared = flat @ flat.T
    numbers = torch.cat([
        masks_nkhw.sum(dim=2).flatten(), masks_nkhw.sum(dim=3).flatten(), shared.flatten(),
        *(one.ious_bk.flatten() for one in proposals), *(one.scores_b for one in proposals),
    ]).cpu().numpy().astype(np.float64)  # fmt: skip
    sizes = count * num_choices * np.array([width, height, count * num_choices, 1])
    columns, rows, shared_np, ious, scores = np.split(numbers, np.cumsum(sizes))
    shape = (count, num_choices)
    areas = columns.reshape(*shape, width).sum(axis=2)
    x, across = _moments(columns.reshape(*shape, width))
    y, down = _moments(rows.reshape(*shape, height))
    shared_nn = shared_np.reshape(count * num_choices, -1)
    union = areas.reshape(-1, 1) + areas.reshape(1, -1) - shared_nn
    overlaps = (shared_nn / np.maximum(union, 1)).reshape(*shape, *shape)
    places = np.stack([x, y, across, down], axis=2)
    return Claims(places, areas / (height * width), ious.reshape(shape), scores, overlaps)


def _moments(counts_nkc: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and extent along an axis, as shares of it."""
    length = counts_nkc.shape[2]
    at = (np.arange(length) + 0.5) / length
    total = np.maximum(counts_nkc.sum(axis=2), 1)
    middle = (counts_nkc * at).sum(axis=2) / total
    spread = (counts_nkc * (at - middle[..., None]) ** 2).sum(axis=2) / total + 1 / (12 * length**2)
    return middle, np.sqrt(12 * spread)
