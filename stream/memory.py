"""`MemoryBank`: what every tracked object remembers, as fixed tensors with one row per object over all cameras.

Owns: memory frames and object pointers; which slot holds which frame says its `SlotTable`. The worker's thread alone
reads and writes it.
Never: runs a model, knows a camera or an object id, or grows with the number of frames.

Reading and writing are in two halves: the host's (`plan`, small arrays of places) and the device's (`gather`,
`scatter`: tensors of places), so that the device's half can be recorded once and played again with other places.

Capacity: rows are added by doubling when all are taken; `store` is another one then. Nothing else allocates, but what a
reading returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.graphs import pointer_position
from engines.spec import MemoryRead, ModelSpec, Segmentation
from stream.slots import ALL_COUNTED, DRAIN_SLOT, NO_SLOT, NO_TIME, SCRATCH_ROW, Indexes, Places, Reading, SlotTable

__all__ = ["NO_TIME", "SCRATCH_ROW", "MemoryBank", "Plan", "RowMemory", "Store"]


@dataclass(frozen=True, slots=True)
class RowMemory:
    """All that one row remembers, apart from the bank; the arrays are its own."""

    memory_snc: Tensor
    pointer_sc: Tensor
    memory_times_s: NDArray[np.int64]
    pointer_times_s: NDArray[np.int64]
    age: int
    num_idle: int = 0  # frames that were passed over
    trail: int = ALL_COUNTED
    anchor: int = NO_SLOT


@dataclass(frozen=True, slots=True)
class Plan:
    """The host's half of a step of a batch: where it reads, what is encoded of it, and where it writes."""

    reading: Reading
    position_bpc: NDArray[np.float32]  # sine encoding of the pointers' distances
    places: Places

    def rehearsal(self) -> Plan:
        """The same reading, but all that is found goes down the drain."""
        drains = np.full_like(self.places.memory_b, DRAIN_SLOT)
        return Plan(self.reading, self.position_bpc, Places(drains, drains))


class Store(NamedTuple):
    """The device's half of the bank: every slot of every row."""

    memory_snc: Tensor
    pointer_sc: Tensor

    def gather(self, memory_k: Tensor, pointer_k: Tensor) -> tuple[Tensor, Tensor]:
        """The memory frames and pointers at these places."""
        return self.memory_snc.index_select(0, memory_k), self.pointer_sc.index_select(0, pointer_k)

    def scatter(self, memory_b: Tensor, pointer_b: Tensor, found: Segmentation) -> None:
        """Keep what was found of each row at its place."""
        self.memory_snc.index_copy_(0, memory_b, found.memory_bnc.to(self.memory_snc.dtype))
        self.pointer_sc.index_copy_(0, pointer_b, found.pointers_bc)


class MemoryBank:
    """All mutable fields are written by the worker's thread."""

    def __init__(
        self, spec: ModelSpec, *, device: torch.device, dtype: torch.dtype, max_cond: int = 2, capacity: int = 16
    ) -> None:
        assert 1 <= max_cond <= spec.num_memories, "the tracker has checked max_cond"
        self.spec, self.device, self.max_cond = spec, device, max_cond
        self.slots = SlotTable(spec, max_cond=max_cond, capacity=capacity)
        memories, pointers = (self.slots.capacity * x for x in (self.slots.num_memories, self.slots.num_pointers))
        self.store = Store(
            torch.zeros(memories, spec.num_tokens, spec.memory_dim, dtype=dtype, device=device),
            torch.zeros(pointers, spec.hidden_dim, device=device),
        )
        steps = np.arange(spec.max_pointers, dtype=np.float64)
        self._near_position_dc = pointer_position(steps, spec.max_pointers, spec.hidden_dim)

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return self.slots.num_rows

    def acquire(self) -> int:
        """A fresh row of age 0."""
        old = self.slots.capacity
        row = self.slots.acquire()
        if self.slots.capacity != old:
            shares = self.slots.num_memories, self.slots.num_pointers
            grown = (torch.cat([x, torch.zeros_like(x[one:])]) for x, one in zip(self.store, shares, strict=True))
            self.store = Store(*grown)
        return row

    def release(self, row: int) -> None:
        self.slots.release(row)

    def export_row(self, row: int) -> RowMemory:
        """A copy of the row, on the bank's device."""
        memories, pointers = self._spans(row)
        return RowMemory(
            self.store.memory_snc[memories].clone(), self.store.pointer_sc[pointers].clone(),
            self.slots.memory_time_rs[row].copy(), self.slots.pointer_time_rs[row].copy(), self.age(row),
            *(int(x[row]) for x in (self.slots.num_idle_r, self.slots.trail_r, self.slots.anchor_r)),
        )  # fmt: skip

    def import_row(self, row: int, kept: RowMemory) -> None:
        """Make `row` remember exactly what the exported one did; time has stood still for it."""
        assert self.accepts(kept), "an exported row fits a bank of the same kind"
        memories, pointers = self._spans(row)
        self.store.memory_snc[memories].copy_(kept.memory_snc)
        self.store.pointer_sc[pointers].copy_(kept.pointer_sc)
        self.slots.memory_time_rs[row], self.slots.pointer_time_rs[row] = kept.memory_times_s, kept.pointer_times_s
        self.slots.age_r[row], self.slots.num_idle_r[row] = kept.age, kept.num_idle
        self.slots.trail_r[row], self.slots.anchor_r[row] = kept.trail, kept.anchor

    def accepts(self, kept: RowMemory) -> bool:
        """Whether a row of another bank fits this one."""
        memories, pointers = self._spans(SCRATCH_ROW)
        shapes = kept.memory_snc.shape, kept.pointer_sc.shape
        lengths = kept.memory_times_s.shape, kept.pointer_times_s.shape
        wanted = self.store.memory_snc[memories].shape, self.store.pointer_sc[pointers].shape
        return shapes == wanted and lengths == ((self.slots.num_memories,), (self.slots.num_pointers,))

    def rewind(self, row: int, age: int) -> None:
        """Forget what the row saw from frame `age` on, so that it may see it again; frames in prompt slots stay, and
        count again once the row is older than they are.
        """
        self.slots.rewind(row, age)

    def go_back(self, row: int, num_frames: int) -> None:
        """`rewind` by so many frames, also those that were passed over."""
        self.slots.go_back(row, num_frames)

    def num_frames(self, row: int) -> int:
        """Frames that the row has processed, also those that were passed over."""
        return self.age(row) + int(self.slots.num_idle_r[row])

    def is_prompted(self, row: int) -> bool:
        """Whether the frame in hand is in a prompt slot."""
        return self.slots.is_prompted(row)

    def age(self, row: int) -> int:
        """Frames that the row has processed and not passed over; the index of the frame in hand."""
        return int(self.slots.age_r[row])

    def advance(self, rows: Sequence[int]) -> None:
        """The frame in hand is done."""
        self.slots.advance(rows)

    def pass_over(self, rows: Sequence[int]) -> None:
        """The frame in hand is done, and for these rows it has not been."""
        self.slots.pass_over(rows)

    def lengths(self, row: int) -> tuple[int, int]:
        """How many memory frames and pointers the row attends to now; rows of equal lengths can share a batch."""
        return self.slots.lengths([row])[0]

    def is_full(self, row: int) -> bool:
        """Whether every recent slot counts, so that the lengths stay as they are until the next prompt."""
        memories, pointers = self.lengths(row)
        num_cond = self.slots.num_cond(row)
        recent = self.spec.num_recent_memories, self.spec.num_recent_pointers
        return (memories - num_cond, pointers - num_cond) == recent

    def plan(self, rows: Sequence[int], batch: int) -> Plan:
        """Where `rows` (of equal lengths) read, and where their frame in hand goes; padded to `batch` rows."""
        reading = self.slots.reading(rows, batch)
        return Plan(reading, self._positions(reading.distance_bp), self.slots.recent_places(rows, batch))

    def blank_plan(self, batch: int, num_cond: int) -> Plan:
        """That of a batch of padding alone, as long as full banks with `num_cond` prompts."""
        memories, pointers = num_cond + self.spec.num_recent_memories, num_cond + self.spec.num_recent_pointers
        memory, pointer = (np.zeros((batch, count), np.int64) for count in (memories, pointers))
        row = np.zeros(batch, np.int64)
        return Plan(Reading(memory, memory, pointer, pointer), self._positions(pointer), Places(row, row)).rehearsal()

    def read(self, rows: Sequence[int], *, batch: int | None = None) -> MemoryRead:
        """What `rows` (of equal lengths) attend to; padded to `batch` rows with the scratch row."""
        reading = self.slots.reading(rows, batch or len(rows))
        flat = (self.upload(index.reshape(-1)) for index in (reading.memory_bm, reading.pointer_bp))
        memory, pointers = self.store.gather(*flat)
        return MemoryRead(
            memory.view(*reading.memory_bm.shape, *memory.shape[1:]),
            self.upload(reading.time_bm),
            pointers.view(*reading.pointer_bp.shape, -1),
            self.upload(self._positions(reading.distance_bp)),
        )

    def write_recent(self, rows: Sequence[int], found: Segmentation) -> None:
        """Keep what the frame in hand left in `rows`; `found` may have padding rows at its end."""
        self._write(rows, self.slots.recent_places(rows, len(rows)), found)

    def write_prompted(self, row: int, found: Segmentation) -> None:
        """Keep a prompted frame: a prompt slot, and the rings as well for the time after its eviction."""
        self.write_recent([row], found)
        self._write([row], self.slots.prompt_places(row), found)

    def write_anchor(self, row: int, found: Segmentation) -> None:
        """Keep the frame in hand like a prompted one, where no prompt needs the room."""
        places = self.slots.anchor_places(row)
        if places is not None:
            self._write([row], places, found)

    def upload(self, values: NDArray[np.generic]) -> Tensor:
        """A small host array to the device without waiting."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _spans(self, row: int) -> tuple[slice, slice]:
        """Where the row's memory frames and pointers lie."""
        memories, pointers = row * self.slots.num_memories, row * self.slots.num_pointers
        return slice(memories, memories + self.slots.num_memories), slice(pointers, pointers + self.slots.num_pointers)

    def _write(self, rows: Sequence[int], places: Places, found: Segmentation) -> None:
        count = len(rows)
        kept = found._replace(memory_bnc=found.memory_bnc[:count], pointers_bc=found.pointers_bc[:count])
        self.store.scatter(self.upload(places.memory_b), self.upload(places.pointer_b), kept)
        self.slots.note(rows, places)

    def _positions(self, distances: Indexes) -> NDArray[np.float32]:
        """Sine encodings; those of prompts grow older and are computed, the near ones are looked up."""
        near = self._near_position_dc[np.minimum(distances, len(self._near_position_dc) - 1)]
        far = distances >= len(self._near_position_dc)
        if far.any():
            near[far] = pointer_position(
                distances[far].astype(np.float64), self.spec.max_pointers, self.spec.hidden_dim
            )
        return near
