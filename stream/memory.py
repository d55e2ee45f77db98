"""`MemoryBank`: what every tracked object remembers, as fixed tensors with one row per object over all cameras.

Owns: memory frames, object pointers and their times. The worker's thread alone reads and writes it.
Never: runs a model, knows a camera or an object id, or grows with the number of frames.

A row has `max_cond` prompt slots, then a ring of recent slots: 6 memory frames and 15 object pointers, two rings of
different lengths as in `SAM2Base._prepare_memory_conditioned_features`. A row's time is the number of frames that it
has processed. The memory of a prompted frame is written to its prompt slot *and* to the rings, where it is passed over
while the prompt slot holds it; so a prompt that was evicted still counts as recent for as long as it is.

Capacity: rows are added by doubling when all are taken; nothing else allocates. Row 0 is scratch, for padding a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.graphs import pointer_position
from engines.spec import MemoryRead, ModelSpec, Segmentation

NO_TIME = -1
SCRATCH_ROW = 0


@dataclass(frozen=True, slots=True)
class RowMemory:
    """All that one row remembers, apart from the bank; the arrays are its own."""

    memory_snc: Tensor
    pointer_sc: Tensor
    memory_times_s: NDArray[np.int64]
    pointer_times_s: NDArray[np.int64]
    age: int


class MemoryBank:
    """All mutable fields are written by the worker's thread."""

    def __init__(
        self, spec: ModelSpec, *, device: torch.device, dtype: torch.dtype, max_cond: int = 2, capacity: int = 16
    ) -> None:
        assert 1 <= max_cond <= spec.num_memories, "the tracker has checked max_cond"
        self.spec, self.device, self.max_cond = spec, device, max_cond
        self._memories = max_cond + spec.num_recent_memories
        self._pointers = max_cond + spec.num_recent_pointers
        rows = capacity + 1
        self._memory_snc = torch.zeros(
            rows * self._memories, spec.num_tokens, spec.memory_dim, dtype=dtype, device=device
        )
        self._pointer_sc = torch.zeros(rows * self._pointers, spec.hidden_dim, device=device)
        self._memory_time_rs = np.full((rows, self._memories), NO_TIME, np.int64)
        self._pointer_time_rs = np.full((rows, self._pointers), NO_TIME, np.int64)
        self._age_r = np.zeros(rows, np.int64)
        self._free = list(range(rows - 1, SCRATCH_ROW, -1))
        steps = np.arange(spec.max_pointers, dtype=np.float64)
        self._near_position_dc = pointer_position(steps, spec.max_pointers, spec.hidden_dim)

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return len(self._age_r) - 1 - len(self._free)

    def acquire(self) -> int:
        """A fresh row of age 0."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._memory_time_rs[row] = NO_TIME
        self._pointer_time_rs[row] = NO_TIME
        self._age_r[row] = 0
        return row

    def release(self, row: int) -> None:
        assert row != SCRATCH_ROW and row not in self._free, "a row is released once"
        self._free.append(row)

    def export_row(self, row: int) -> RowMemory:
        """A copy of the row, on the bank's device."""
        memories, pointers = self._spans(row)
        return RowMemory(
            self._memory_snc[memories].clone(), self._pointer_sc[pointers].clone(),
            self._memory_time_rs[row].copy(), self._pointer_time_rs[row].copy(), self.age(row),
        )  # fmt: skip

    def import_row(self, row: int, kept: RowMemory) -> None:
        """Make `row` remember exactly what the exported one did; time has stood still for it."""
        assert self.accepts(kept), "an exported row fits a bank of the same kind"
        memories, pointers = self._spans(row)
        self._memory_snc[memories].copy_(kept.memory_snc)
        self._pointer_sc[pointers].copy_(kept.pointer_sc)
        self._memory_time_rs[row], self._pointer_time_rs[row] = kept.memory_times_s, kept.pointer_times_s
        self._age_r[row] = kept.age

    def accepts(self, kept: RowMemory) -> bool:
        """Whether a row of another bank fits this one."""
        memories, pointers = self._spans(SCRATCH_ROW)
        shapes = kept.memory_snc.shape, kept.pointer_sc.shape
        lengths = kept.memory_times_s.shape, kept.pointer_times_s.shape
        wanted = self._memory_snc[memories].shape, self._pointer_sc[pointers].shape
        return shapes == wanted and lengths == ((self._memories,), (self._pointers,))

    def rewind(self, row: int, age: int) -> None:
        """Forget what the row saw from frame `age` on, so that it may see it again; frames in prompt slots stay, and
        count again once the row is older than they are.
        """
        assert 0 <= age <= self.age(row), "a row goes back to a frame that it has processed"
        for times_s in (self._memory_time_rs[row], self._pointer_time_rs[row]):
            prompts, recent = times_s[: self.max_cond], times_s[self.max_cond :]
            recent[(recent >= age) & ~np.isin(recent, prompts)] = NO_TIME
        self._age_r[row] = age

    def is_prompted(self, row: int) -> bool:
        """Whether the frame in hand is in a prompt slot."""
        return bool((self._memory_time_rs[row, : self.max_cond] == self._age_r[row]).any())

    def age(self, row: int) -> int:
        """Frames that the row has processed; the index of the frame in hand."""
        return int(self._age_r[row])

    def advance(self, rows: Sequence[int]) -> None:
        """The frame in hand is done."""
        self._age_r[list(rows)] += 1

    def lengths(self, row: int) -> tuple[int, int]:
        """How many memory frames and pointers the row attends to now; rows of equal lengths can share a batch."""
        return len(self._memory_slots(row)), len(self._pointer_slots(row))

    def is_full(self, row: int) -> bool:
        """Whether every recent slot counts, so that the lengths stay as they are until the next prompt."""
        memories, pointers = self.lengths(row)
        num_cond = int((self._memory_time_rs[row, : self.max_cond] != NO_TIME).sum())
        recent = self.spec.num_recent_memories, self.spec.num_recent_pointers
        return (memories - num_cond, pointers - num_cond) == recent

    def read(self, rows: Sequence[int], *, batch: int | None = None) -> MemoryRead:
        """What `rows` (of equal lengths) attend to; padded to `batch` rows with the scratch row."""
        memory_slots = np.stack([self._memory_slots(row) for row in rows])
        pointer_slots = np.stack([self._pointer_slots(row) for row in rows])
        index = np.asarray(rows)[:, None]
        age = self._age_r[list(rows)][:, None]
        steps = age - self._memory_time_rs[index, memory_slots] - 1
        times = np.where(memory_slots < self.max_cond, self.spec.num_memories - 1, steps)
        distances = age - self._pointer_time_rs[index, pointer_slots]
        memory_index, pointer_index = index * self._memories + memory_slots, index * self._pointers + pointer_slots
        pad = (batch or len(rows)) - len(rows)
        if pad:
            memory_index, times, pointer_index, distances = (
                np.concatenate([x, np.zeros((pad, x.shape[1]), np.int64)])
                for x in (memory_index, times, pointer_index, distances)
            )
        memory = self._memory_snc.index_select(0, self.upload(memory_index.reshape(-1)))
        pointers = self._pointer_sc.index_select(0, self.upload(pointer_index.reshape(-1)))
        return MemoryRead(
            memory.view(*memory_index.shape, *memory.shape[1:]),
            self.upload(times),
            pointers.view(*pointer_index.shape, -1),
            self.upload(self._positions(distances)),
        )

    def write_recent(self, rows: Sequence[int], found: Segmentation) -> None:
        """Keep what the frame in hand left in `rows`; `found` may have padding rows at its end."""
        memory, pointers = found.memory_bnc[: len(rows)], found.pointers_bc[: len(rows)]
        self._store(rows, [self._recent_slot(row, self.spec.num_recent_memories) for row in rows], memory)
        self._point(rows, [self._recent_slot(row, self.spec.num_recent_pointers) for row in rows], pointers)

    def write_prompted(self, row: int, found: Segmentation) -> None:
        """Keep a prompted frame: a prompt slot, and the rings as well for the time after its eviction."""
        self.write_recent([row], found)
        slot = self._prompt_slot(row)
        self._store([row], [slot], found.memory_bnc)
        self._point([row], [slot], found.pointers_bc)

    def upload(self, values: NDArray[np.generic]) -> Tensor:
        """A small host array to the device without waiting."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _spans(self, row: int) -> tuple[slice, slice]:
        """Where the row's memory frames and pointers lie."""
        memories, pointers = row * self._memories, row * self._pointers
        return slice(memories, memories + self._memories), slice(pointers, pointers + self._pointers)

    def _recent_slot(self, row: int, length: int) -> int:
        return self.max_cond + int(self._age_r[row]) % length

    def _prompt_slot(self, row: int) -> int:
        """A free prompt slot, this frame's own, or the oldest but the first; with a single slot, that one."""
        times = self._memory_time_rs[row, : self.max_cond]
        for value in (self._age_r[row], NO_TIME):
            if value in times:
                return int(np.argmax(times == value))
        by_age = np.argsort(times)
        return int(by_age[min(1, self.max_cond - 1)])

    def _memory_slots(self, row: int) -> NDArray[np.int64]:
        return self._slots(self._memory_time_rs[row], int(self._age_r[row]), self.spec.num_recent_memories)

    def _pointer_slots(self, row: int) -> NDArray[np.int64]:
        return self._slots(self._pointer_time_rs[row], int(self._age_r[row]), self.spec.num_recent_pointers)

    def _slots(self, times: NDArray[np.int64], age: int, reach: int) -> NDArray[np.int64]:
        """Slots in use: prompts from old to new, then recent ones within `reach` frames, from old to new."""
        prompts = np.flatnonzero((times[: self.max_cond] != NO_TIME) & (times[: self.max_cond] < age))
        recent = times[self.max_cond :]
        counts = (recent >= max(0, age - reach)) & (recent < age) & ~np.isin(recent, times[prompts])
        slots = np.flatnonzero(counts) + self.max_cond
        return np.concatenate([prompts[np.argsort(times[prompts])], slots[np.argsort(times[slots])]])

    def _positions(self, distances: NDArray[np.int64]) -> NDArray[np.float32]:
        """Sine encodings; those of prompts grow older and are computed, the near ones are looked up."""
        near = self._near_position_dc[np.minimum(distances, len(self._near_position_dc) - 1)]
        far = distances >= len(self._near_position_dc)
        if far.any():
            near[far] = pointer_position(
                distances[far].astype(np.float64), self.spec.max_pointers, self.spec.hidden_dim
            )
        return near

    def _store(self, rows: Sequence[int], slots: Sequence[int], memory_bnc: Tensor) -> None:
        index = np.asarray(rows) * self._memories + np.asarray(slots)
        self._memory_snc.index_copy_(0, self.upload(index), memory_bnc.to(self._memory_snc.dtype))
        self._memory_time_rs[list(rows), list(slots)] = self._age_r[list(rows)]

    def _point(self, rows: Sequence[int], slots: Sequence[int], pointers_bc: Tensor) -> None:
        index = np.asarray(rows) * self._pointers + np.asarray(slots)
        self._pointer_sc.index_copy_(0, self.upload(index), pointers_bc)
        self._pointer_time_rs[list(rows), list(slots)] = self._age_r[list(rows)]

    def _grow(self) -> None:
        old = len(self._age_r)
        added = old - 1
        self._memory_snc = torch.cat([self._memory_snc, torch.zeros_like(self._memory_snc[self._memories :])])
        self._pointer_sc = torch.cat([self._pointer_sc, torch.zeros_like(self._pointer_sc[self._pointers :])])
        self._memory_time_rs = np.pad(self._memory_time_rs, ((0, added), (0, 0)), constant_values=NO_TIME)
        self._pointer_time_rs = np.pad(self._pointer_time_rs, ((0, added), (0, 0)), constant_values=NO_TIME)
        self._age_r = np.pad(self._age_r, (0, added))
        self._free = list(range(old + added - 1, old - 1, -1))
