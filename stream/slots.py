"""`SlotTable`: which slot of the memory bank holds which frame, row by row; `stream.memory` has the tensors.

Owns: the times of all slots, the ages of the rows, and which rows are free. The worker's thread alone uses it.
Never: touches a tensor.

A row has `max_cond` prompt slots, then a ring of recent slots: 6 memory frames and 15 object pointers, two rings of
different lengths as in `SAM2Base._prepare_memory_conditioned_features`. A row's time is the number of frames that it
has processed. The memory of a prompted frame is written to its prompt slot *and* to the rings, where it is passed over
while the prompt slot holds it; so a prompt that was evicted still counts as recent for as long as it is.

A frame may be passed over (`stream.policy`): nothing of it is written, and the row's time stands still, so that the
recent slots hold the last frames that were not. An anchor is such a frame's opposite: it lies in a prompt slot that no
prompt uses, and is the first to go when one does.

Capacity: rows are added by doubling when all are taken. Row 0 is scratch, for padding a batch: padding reads its slot
0, which nobody writes, and writes its slot 1, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.spec import ModelSpec

NO_TIME = -1
NO_SLOT = -1
ALL_COUNTED = -1  # a trail without a frame that was passed over
SCRATCH_ROW = 0
DRAIN_SLOT = 1  # of the scratch row
_LAST = np.iinfo(np.int64).max

Indexes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a batch of rows of equal lengths reads, as places in the bank's tensors."""

    memory_bm: Indexes
    time_bm: Indexes  # 0 = previous frame ... 5 = six frames ago, 6 = conditioning frame
    pointer_bp: Indexes
    distance_bp: Indexes  # frames since then


@dataclass(frozen=True, slots=True)
class Places:
    """Where a batch of rows writes, as places in the bank's tensors."""

    memory_b: Indexes
    pointer_b: Indexes


class SlotTable:
    """All mutable fields are written by the worker's thread."""

    def __init__(self, spec: ModelSpec, *, max_cond: int, capacity: int) -> None:
        self.spec, self.max_cond = spec, max_cond
        self.num_memories = max_cond + spec.num_recent_memories  # slots of a row
        self.num_pointers = max_cond + spec.num_recent_pointers
        rows = capacity + 1
        self.memory_time_rs = np.full((rows, self.num_memories), NO_TIME, np.int64)
        self.pointer_time_rs = np.full((rows, self.num_pointers), NO_TIME, np.int64)
        self.age_r = np.zeros(rows, np.int64)
        self.num_idle_r = np.zeros(rows, np.int64)
        self.trail_r = np.full(rows, ALL_COUNTED, np.int64)
        self.anchor_r = np.full(rows, NO_SLOT, np.int64)
        self._free = list(range(rows - 1, SCRATCH_ROW, -1))

    @property
    def capacity(self) -> int:
        """Rows that there are, the scratch row included."""
        return len(self.age_r)

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return self.capacity - 1 - len(self._free)

    def acquire(self) -> int:
        """A fresh row of age 0; doubles the table where none is free."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.memory_time_rs[row] = self.pointer_time_rs[row] = NO_TIME
        self.age_r[row] = self.num_idle_r[row] = 0
        self.trail_r[row], self.anchor_r[row] = ALL_COUNTED, NO_SLOT
        return row

    def release(self, row: int) -> None:
        assert row != SCRATCH_ROW and row not in self._free, "a row is released once"
        self._free.append(row)

    def advance(self, rows: Sequence[int]) -> None:
        """The frame in hand is done."""
        self.age_r[list(rows)] += 1
        self.trail_r[list(rows)] = self.trail_r[list(rows)] << 1 | 1

    def pass_over(self, rows: Sequence[int]) -> None:
        """The frame in hand is done, and for the memory of `rows` it has not been: their time stands still."""
        self.num_idle_r[list(rows)] += 1
        self.trail_r[list(rows)] <<= 1

    def age_before(self, row: int, num_frames: int) -> int:
        """The row's time so many frames ago, also of those that were passed over; a row remembers 63 of them."""
        counted = int(self.trail_r[row]) & ((1 << min(num_frames, 63)) - 1)
        return max(0, int(self.age_r[row]) - counted.bit_count() - max(0, num_frames - 63))

    def go_back(self, row: int, num_frames: int) -> None:
        """Forget the last frames; those in prompt slots stay."""
        age = self.age_before(row, num_frames)
        idle = num_frames - (int(self.age_r[row]) - age)
        self.rewind(row, age)
        anchor = int(self.anchor_r[row])
        if anchor != NO_SLOT and self.memory_time_rs[row, anchor] >= age:  # who knows of what
            self.memory_time_rs[row, anchor] = self.pointer_time_rs[row, anchor] = NO_TIME
            self.anchor_r[row] = NO_SLOT
        self.num_idle_r[row] = max(0, self.num_idle_r[row] - max(0, idle))
        self.trail_r[row] >>= min(num_frames, 63)

    def rewind(self, row: int, age: int) -> None:
        """Forget what the row saw from frame `age` on; frames in prompt slots stay."""
        assert 0 <= age <= self.age_r[row], "a row goes back to a frame that it has processed"
        for times_s in (self.memory_time_rs[row], self.pointer_time_rs[row]):
            prompts, recent = times_s[: self.max_cond], times_s[self.max_cond :]
            recent[(recent >= age) & ~np.isin(recent, prompts)] = NO_TIME
        self.age_r[row] = age

    def is_prompted(self, row: int) -> bool:
        """Whether the frame in hand is in a prompt slot."""
        return bool((self.memory_time_rs[row, : self.max_cond] == self.age_r[row]).any())

    def num_cond(self, row: int) -> int:
        """Prompt slots in use."""
        return int((self.memory_time_rs[row, : self.max_cond] != NO_TIME).sum())

    def lengths(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """How many memory frames and pointers each row attends to now; rows of equal lengths can share a batch."""
        _, memories = self._select(self.memory_time_rs, rows, self.spec.num_recent_memories)
        _, pointers = self._select(self.pointer_time_rs, rows, self.spec.num_recent_pointers)
        return list(zip(memories.tolist(), pointers.tolist(), strict=True))

    def reading(self, rows: Sequence[int], batch: int) -> Reading:
        """Where `rows` (of equal lengths) read, padded to `batch` rows with the scratch row; prompts from old to new,
        then recent frames from old to new.
        """
        memory, memories = self._select(self.memory_time_rs, rows, self.spec.num_recent_memories)
        pointer, pointers = self._select(self.pointer_time_rs, rows, self.spec.num_recent_pointers)
        assert (memories == memories[0]).all() and (pointers == pointers[0]).all(), "rows of a batch are equally long"
        memory, pointer = memory[:, : memories[0]], pointer[:, : pointers[0]]
        index = np.asarray(rows)[:, None]
        age = self.age_r[index]
        steps = age - self.memory_time_rs[index, memory] - 1
        times = np.where(memory < self.max_cond, self.spec.num_memories - 1, steps)
        distances = age - self.pointer_time_rs[index, pointer]
        columns = index * self.num_memories + memory, times, index * self.num_pointers + pointer, distances
        return Reading(*(_padded(x, batch, 0) for x in columns))

    def recent_places(self, rows: Sequence[int], batch: int) -> Places:
        """Where the frame in hand goes in the rings of `rows`; padding goes down the drain."""
        index, age = np.asarray(rows), self.age_r[list(rows)]
        memory = index * self.num_memories + self.max_cond + age % self.spec.num_recent_memories
        pointer = index * self.num_pointers + self.max_cond + age % self.spec.num_recent_pointers
        return Places(_padded(memory, batch, DRAIN_SLOT), _padded(pointer, batch, DRAIN_SLOT))

    def prompt_places(self, row: int) -> Places:
        """A free prompt slot, this frame's own, or the oldest but the first; with a single slot, that one."""
        slot = self._prompt_slot(row)
        if slot == self.anchor_r[row]:
            self.anchor_r[row] = NO_SLOT
        return self._slot_places(row, slot)

    def anchor_places(self, row: int) -> Places | None:
        """Where an anchor goes: over the last one, or into a prompt slot that no prompt uses; None where all are."""
        times, slot = self.memory_time_rs[row, : self.max_cond], int(self.anchor_r[row])
        if slot == NO_SLOT:
            if NO_TIME not in times:
                return None
            slot = int(np.argmax(times == NO_TIME))
            self.anchor_r[row] = slot
        return self._slot_places(row, slot)

    def note(self, rows: Sequence[int], places: Places) -> None:
        """The frame in hand of `rows` lies at these places now."""
        for times_rs, places_b in ((self.memory_time_rs, places.memory_b), (self.pointer_time_rs, places.pointer_b)):
            times_rs.reshape(-1)[places_b[: len(rows)]] = self.age_r[list(rows)]

    def _prompt_slot(self, row: int) -> int:
        times = self.memory_time_rs[row, : self.max_cond]
        for value in (self.age_r[row], NO_TIME):
            if value in times:
                return int(np.argmax(times == value))
        if self.anchor_r[row] != NO_SLOT:
            return int(self.anchor_r[row])
        by_age = np.argsort(times)
        return int(by_age[min(1, self.max_cond - 1)])

    def _slot_places(self, row: int, slot: int) -> Places:
        return Places(np.array([row * self.num_memories + slot]), np.array([row * self.num_pointers + slot]))

    def _select(self, times_rs: Indexes, rows: Sequence[int], reach: int) -> tuple[Indexes, Indexes]:
        """Slots of each row in the order of reading, those that count first, and how many those are."""
        times, age = times_rs[list(rows)], self.age_r[list(rows), None]
        prompts, recent = times[:, : self.max_cond], times[:, self.max_cond :]
        is_prompt = (prompts != NO_TIME) & (prompts < age)
        is_double = ((recent[:, :, None] == prompts[:, None]) & is_prompt[:, None]).any(axis=2)
        is_recent = (recent >= np.maximum(0, age - reach)) & (recent < age) & ~is_double
        counts = np.concatenate([is_prompt, is_recent], axis=1)
        order = np.where(counts, times, _LAST)
        order[:, : self.max_cond] -= np.where(is_prompt, age + 1, 0)  # before all recent ones
        return np.argsort(order, axis=1, kind="stable"), counts.sum(axis=1)

    def _grow(self) -> None:
        old = self.capacity
        added = old - 1
        self.memory_time_rs = np.pad(self.memory_time_rs, ((0, added), (0, 0)), constant_values=NO_TIME)
        self.pointer_time_rs = np.pad(self.pointer_time_rs, ((0, added), (0, 0)), constant_values=NO_TIME)
        self.age_r, self.num_idle_r = np.pad(self.age_r, (0, added)), np.pad(self.num_idle_r, (0, added))
        self.trail_r = np.pad(self.trail_r, (0, added), constant_values=ALL_COUNTED)
        self.anchor_r = np.pad(self.anchor_r, (0, added), constant_values=NO_SLOT)
        self._free = list(range(old + added - 1, old - 1, -1))


def _padded(values: Indexes, batch: int, filler: int) -> Indexes:
    """`filler` in the rows that are missing."""
    missing = batch - values.shape[0]
    return values if not missing else np.concatenate([values, np.full((missing, *values.shape[1:]), filler)])
