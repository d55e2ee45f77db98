"""`Recording`: what the programs are really given, and what the fp32 reference makes of it.

Owns: a short roll-out of the reference over a generated clip, and the batches that are cut from it. One thread: the one
that gates. Never: imports the tracker, or asks the program under test anything.

Four objects are prompted on two frames and tracked until every bank is full; then their memories are written down on
four further frames: sixteen different rows. The inputs are rounded to the program's number format and given to the
reference in fp32, so that what differs is the program's own doing. A row whose decisions (is the object there, which
of three masks) change by that rounding alone hangs in the balance and is no evidence; it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.eager import EagerEngine
from engines.graphs import pointer_position
from engines.spec import (
    MAX_FRAMES,
    NUM_CONDS,
    FrameFeatures,
    MemoryRead,
    ModelSpec,
    PointPrompt,
    ProgramKey,
    Segmentation,
    program_spec,
)
from engines.synthetic import ClipSpec, SyntheticClip

NUM_OBJECTS = 4
NUM_MOMENTS = 4  # frames at which all rows are written down
_TIME = 5  # of the inputs of `track`: memory_time_bm
_SEED = 3_200_000_001
_MEAN_RGB, _STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAX_BALANCE = 0.5  # of the logits' RMS: by so much an undecided row changes when its inputs are rounded

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One call of a program: its inputs, and what the reference makes of them; all on the CPU."""

    inputs: Tensors
    wanted: Tensors


@dataclass(frozen=True, slots=True)
class _Kept:
    """What one frame left of all objects."""

    memory_bnc: Tensor
    pointers_bc: Tensor


class Recording:
    """`_cases` grows by at most one list a kind of program; the thread that gates writes it."""

    def __init__(self, reference: EagerEngine, dtype: torch.dtype) -> None:
        assert reference.dtype is torch.float32, "what others are measured by computes in fp32"
        self._reference, self._dtype = reference, dtype
        self._spec: ModelSpec = reference.spec
        self._num_cond = max(NUM_CONDS)
        self._cases: dict[tuple[str, int], list[Case]] = {}  # single frames, or rows with so many conditioning frames
        self._rows: list[tuple[FrameFeatures, MemoryRead]] = []  # of each moment

    def case(self, key: ProgramKey, turn: int) -> Case:
        """A batch for this program; every turn has other frames or rows at each place."""
        kind = (key.kind, key.num_cond)
        if kind not in self._cases:
            self._cases[kind] = self._frames() if key.kind == "encode" else self._tracked(key.num_cond)
        cases = self._cases[kind]
        picked = [cases[(turn + place) % len(cases)] for place in range(key.batch)]
        inputs = tuple(torch.cat(column) for column in zip(*(one.inputs for one in picked), strict=True))
        return Case(inputs, tuple(torch.cat(column) for column in zip(*(one.wanted for one in picked), strict=True)))

    def reversed_time(self, num_cond: int) -> Case:
        """The first row, told that its memories came in the opposite order."""
        row = self.case(ProgramKey("track", 1, num_cond), 0)
        inputs = tuple(x.flip(1) if index == _TIME else x for index, x in enumerate(row.inputs))
        return Case(inputs, _on_host(self._follow(tuple(x.to(self._reference.device) for x in inputs))))

    def _frames(self) -> list[Case]:
        frames = [frame.cpu() for frame in self._pictures(MAX_FRAMES)]
        return [Case((frame,), _on_host(self._encode(frame))) for frame in frames]

    def _tracked(self, num_cond: int) -> list[Case]:
        if not self._rows:
            self._rows = self._roll_out()
        cases = [self._row_case(index, num_cond) for index in range(len(self._rows) * NUM_OBJECTS)]
        decided = [case for case, is_decided in cases if is_decided]
        return decided if len(decided) > 1 else [case for case, _ in cases]

    def _row_case(self, index: int, num_cond: int) -> tuple[Case, bool]:
        """Neighbours differ in frame and object."""
        moment, turn = index % NUM_MOMENTS, index // NUM_MOMENTS
        features, read = self._rows[moment]
        row = (moment + turn) % NUM_OBJECTS
        exact = (*features, *_one_row(read, row, self._num_cond - num_cond), self._reference.track_module.sparse_1sc)
        formats = program_spec(self._spec, ProgramKey("track", 1, num_cond), self._dtype).inputs
        inputs = tuple(x.to(kind.dtype) for x, kind in zip(exact, formats, strict=True))
        wanted = self._follow(inputs)
        return Case(_on_host(inputs), _on_host(wanted)), _agree(wanted, self._follow(exact))

    def _follow(self, inputs: Tensors) -> Tensors:
        """In fp32, whatever the inputs were rounded to."""
        exact = [x.float() if x.is_floating_point() else x for x in inputs]
        frame, read = FrameFeatures(*exact[:4]), MemoryRead(*exact[4:8])
        first = torch.zeros(1, dtype=torch.int64, device=self._reference.device)
        found, conditioned = self._reference.track(frame, first, read)
        return (*found, conditioned)

    def _encode(self, frame_13hw: Tensor) -> FrameFeatures:
        return self._reference.encode(frame_13hw.to(self._reference.device))

    def _pictures(self, count: int) -> list[Tensor]:
        clip, device = self._clip(), self._reference.device
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255.0 for values in (_MEAN_RGB, _STD_RGB))
        frames = [torch.from_numpy(np.ascontiguousarray(clip.frame(number)[..., ::-1])) for number in range(count)]
        return [((frame.permute(2, 0, 1)[None].float() - mean) / std).to(device) for frame in frames]

    def _clip(self) -> SyntheticClip:
        size = self._spec.image_size
        return SyntheticClip(
            ClipSpec(seed=_SEED, height=size, width=size, num_objects=NUM_OBJECTS, leave_probability=0.0)
        )

    def _roll_out(self) -> list[tuple[FrameFeatures, MemoryRead]]:
        """Four frames, and what all objects remember there with full banks of two conditioning frames."""
        num_warm = self._num_cond + self._spec.num_recent_pointers
        frames = self._pictures(num_warm + NUM_MOMENTS)
        kept: list[_Kept] = []
        rows = []
        objects = torch.zeros(NUM_OBJECTS, dtype=torch.int64, device=self._reference.device)  # all on one frame
        for number, frame in enumerate(frames):
            features = self._encode(frame)
            if number < self._num_cond:
                kept.append(self._prompted(features))
                continue
            read = self._read(kept)
            if number >= num_warm:
                rows.append((features, read))
            found, _ = self._reference.track(features, objects, read)
            kept.append(_Kept(found.memory_bnc, found.pointers_bc))
        return rows

    def _prompted(self, frame: FrameFeatures) -> _Kept:
        clip, device = self._clip(), self._reference.device
        found: list[Segmentation] = []
        for index in range(NUM_OBJECTS):
            coords = torch.tensor([[clip.click(index)]], dtype=torch.float32, device=device)
            prompt = PointPrompt(coords, torch.ones(1, 1, dtype=torch.int32, device=device), None)
            found.append(self._reference.prompt_points(frame, prompt, None))
        return _Kept(torch.cat([one.memory_bnc for one in found]), torch.cat([one.pointers_bc for one in found]))

    def _read(self, kept: Sequence[_Kept]) -> MemoryRead:
        """Conditioning frames from old to new, then the recent ones, as the tracker's bank orders them."""
        spec, now, num_cond = self._spec, len(kept), self._num_cond
        device = self._reference.device
        prompted = list(range(num_cond))
        memories = [*prompted, *range(max(num_cond, now - spec.num_recent_memories), now)]
        pointers = [*prompted, *range(max(num_cond, now - spec.num_recent_pointers), now)]
        times = [spec.num_memories - 1 if index < num_cond else now - index - 1 for index in memories]
        distances = np.array([[now - index for index in pointers]], np.float64).repeat(NUM_OBJECTS, axis=0)
        return MemoryRead(
            torch.stack([kept[index].memory_bnc for index in memories], dim=1),
            torch.tensor([times], device=device).expand(NUM_OBJECTS, -1).contiguous(),
            torch.stack([kept[index].pointers_bc for index in pointers], dim=1),
            torch.from_numpy(pointer_position(distances, spec.max_pointers, spec.hidden_dim)).to(device),
        )


def _one_row(read: MemoryRead, row: int, num_forgotten: int) -> MemoryRead:
    """One object's memory without its first conditioning frames."""
    return MemoryRead(*(x[row : row + 1, num_forgotten:].contiguous() for x in read))


def _agree(one: Tensors, other: Tensors) -> bool:
    """Whether object scores have one sign, and masks one shape."""
    (logits, _, scores, *_), (others, _, scores_too, *_) = one, other
    change = (logits - others).square().mean().sqrt()
    same_mask = bool(change <= _MAX_BALANCE * logits.square().mean().sqrt())
    return same_mask and bool(((scores > 0) == (scores_too > 0)).all())


def _on_host(tensors: Sequence[Tensor]) -> Tensors:
    return tuple(x.detach().clone().cpu() for x in tensors)
