"""The memory bank against the official selection, over random histories: `Diary` is a slow and obvious copy of
`SAM2Base._prepare_memory_conditioned_features` with dictionaries of frames, and is itself held against the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import sam2.modeling.sam2_base as official
import torch
from pocket import pocket_network
from torch import Tensor, nn

from engines.spec import MemoryRead, ModelSpec, Segmentation
from stream.memory import SCRATCH_ROW, MemoryBank

SPEC = ModelSpec("toy", image_size=32, hidden_dim=16, memory_dim=4, num_memories=7, max_pointers=16)
NUM_FRAMES = 100
ACTIONS = ("track", "add", "refine", "refine_as_cond", "add and refine")
Selection = tuple[list[tuple[int, float]], list[tuple[int, float]]]  # (time index, memory), (distance, pointer)


@dataclass
class Diary:
    """What one object remembers: frame to the value that stands for its memory and its pointer."""

    max_cond: int
    cond: dict[int, float] = field(default_factory=dict)
    recent: dict[int, float] = field(default_factory=dict)
    evicted: dict[int, float] = field(default_factory=dict)

    def track(self, frame: int, value: float) -> None:
        self.recent[frame] = value

    def prompt(self, frame: int, value: float) -> None:
        self.cond[frame] = value
        self.recent.pop(frame, None)
        while len(self.cond) > self.max_cond:
            oldest_first = sorted(self.cond)
            victim = oldest_first[0] if self.max_cond == 1 else oldest_first[1]
            self.evicted[victim] = self.cond.pop(victim)

    def selection(self, frame: int) -> Selection:
        memories = [(6, value) for value in self.cond.values()]
        for t_pos in range(1, 7):
            value = self.recent.get(frame - (7 - t_pos), self.evicted.get(frame - (7 - t_pos)))
            if value is not None:
                memories.append((6 - t_pos, value))
        pointers = [(frame - time, value) for time, value in self.cond.items()]
        for distance in range(1, 16):
            value = self.recent.get(frame - distance, self.evicted.get(frame - distance))
            if value is not None:
                pointers.append((distance, value))
        return sorted(memories), sorted(pointers)


def found(values: Sequence[float], spec: ModelSpec = SPEC) -> Segmentation:
    """What a program would leave: memory and pointer are filled with a value that names the frame."""
    value_b = torch.tensor(values, dtype=torch.float32)
    memory = value_b[:, None, None].expand(-1, spec.num_tokens, spec.memory_dim)
    pointers = value_b[:, None].expand(-1, spec.hidden_dim)
    return Segmentation(torch.empty(0), torch.empty(0), torch.empty(0), pointers, memory)


def sine_float64(distances: Sequence[int], dim: int = SPEC.hidden_dim) -> np.ndarray:
    """`get_1d_sine_pe(distance / 15, dim)`, written again in float64."""
    rows = []
    for distance in distances:
        angles = [distance / 15 / 10000 ** (2 * (i // 2) / (dim // 2)) for i in range(dim // 2)]
        rows.append([np.sin(np.float64(a)) for a in angles] + [np.cos(np.float64(a)) for a in angles])
    return np.array(rows)


def sine_table(limit: int) -> dict[bytes, int]:
    """From the sine encoding back to the distance."""
    return {row.astype(np.float32).tobytes(): distance for distance, row in enumerate(sine_float64(range(limit)))}


DISTANCE_OF = sine_table(NUM_FRAMES + 1)


def selection_of(read: MemoryRead, index: int) -> Selection:
    """What row `index` of a batch reads, as the diary tells it; every token of a memory must be the frame's."""
    memory, pointers = read.memory_bmnc[index].flatten(1), read.pointers_bpc[index]
    assert (memory == memory[:, :1]).all() and (pointers == pointers[:, :1]).all(), "no slot mixes two frames"
    times = read.memory_time_bm[index].tolist()
    distances = [DISTANCE_OF[row.tobytes()] for row in read.pointer_pos_bpc[index].numpy()]
    return (
        sorted(zip(times, memory[:, 0].tolist(), strict=True)),
        sorted(zip(distances, pointers[:, 0].tolist(), strict=True)),
    )


def make_bank(max_cond: int, *, capacity: int = 4, spec: ModelSpec = SPEC) -> MemoryBank:
    return MemoryBank(spec, device=torch.device("cpu"), dtype=torch.float32, max_cond=max_cond, capacity=capacity)


def live(bank: MemoryBank, row: int, action: str, value: float, *, diary: Diary) -> None:
    """One frame of one object, with the bank's calls in a turn's order; the diary hears of it too."""
    frame = bank.age(row)
    if action in ("add", "add and refine"):
        bank.write_prompted(row, found([value]))
        diary.prompt(frame, value)
    else:
        bank.write_recent([row], found([value]))
        diary.track(frame, value)
    if action == "refine":
        bank.write_recent([row], found([value + 0.5]))
        diary.track(frame, value + 0.5)
    if action in ("refine_as_cond", "add and refine"):
        bank.write_prompted(row, found([value + 0.5]))
        diary.prompt(frame, value + 0.5)
    bank.advance([row])


@pytest.mark.parametrize("max_cond", range(1, 8))
@pytest.mark.parametrize("seed", range(4))
def test_a_row_reads_what_the_official_selection_reads(max_cond: int, seed: int) -> None:
    """Three objects of different ages share the bank; their prompts come rarely, often and all the time."""
    random = np.random.default_rng([seed, max_cond])
    bank = make_bank(max_cond)
    rows, diaries, starts = [], [], (0, 5, 29)
    for frame in range(NUM_FRAMES):
        if frame in starts:
            rows.append(bank.acquire())
            diaries.append(Diary(max_cond))
        for index, (row, diary) in enumerate(zip(rows, diaries, strict=True)):
            prompts = (0.03, 0.2, 0.6)[(index + seed) % 3]
            chances = [1 - prompts, *[prompts / 4] * 4]
            action = "add" if bank.age(row) == 0 else str(random.choice(ACTIONS, p=chances))
            if bank.age(row):
                read = bank.read([row])
                assert selection_of(read, 0) == diary.selection(bank.age(row)), f"object {index} on frame {frame}"
                assert bank.lengths(row) == (read.memory_bmnc.shape[1], read.pointers_bpc.shape[1])
            live(bank, row, action, 1000.0 * index + frame, diary=diary)


class Listener(nn.Module):
    """In place of `MemoryAttention`: notes what it is given."""

    def forward(self, curr: list[Tensor], memory: Tensor, memory_pos: Tensor, **other: object) -> Tensor:
        self.memory_tc, self.position_tc = memory[:, 0], memory_pos[:, 0]
        self.num_pointer_tokens = int(str(other["num_obj_ptr_tokens"]))
        return curr[-1]


class Echo(nn.Module):
    """In place of `obj_ptr_tpos_proj`: notes the encoded distances."""

    def forward(self, position_pc: Tensor) -> Tensor:
        self.position_pc = position_pc
        return position_pc[:, :32]


@pytest.fixture(scope="module")
def original() -> official.SAM2Base:
    """A real SAM 2 whose memories name their frames; only the two learned steps are replaced by ears."""
    network = pocket_network()
    network.memory_attention, network.obj_ptr_tpos_proj = Listener(), Echo()
    network.maskmem_tpos_enc.copy_(torch.arange(7.0)[:, None, None, None].expand(-1, 1, 1, 32))
    return network


def ask_original(network: official.SAM2Base, diary: Diary, frame: int) -> Selection:
    def output(value: float) -> dict[str, object]:
        zeros = torch.zeros(1, 32, 4, 4)
        pointer = torch.full((1, 128), value)
        return {"maskmem_features": zeros + value, "maskmem_pos_enc": [zeros], "obj_ptr": pointer}

    everything = {time: output(value) for time, value in (diary.cond | diary.evicted).items()}
    recent = {time: output(value) for time, value in diary.recent.items()}
    features = [torch.zeros(16, 1, 128)]
    network._prepare_memory_conditioned_features(
        frame, False, features, features, [(4, 4)],
        {"cond_frame_outputs": everything, "non_cond_frame_outputs": recent}, 10_000,
    )  # fmt: skip
    heard, echo = network.memory_attention, network.obj_ptr_tpos_proj
    assert isinstance(heard, Listener) and isinstance(echo, Echo)
    split = heard.memory_tc.shape[0] - heard.num_pointer_tokens
    times, values = heard.position_tc[:split:16, 0].int().tolist(), heard.memory_tc[:split:16, 0].tolist()
    table = torch.from_numpy(sine_float64(range(NUM_FRAMES + 1), 128)).float()
    distances = [int((table - row).abs().sum(dim=1).argmin()) for row in echo.position_pc]
    pointers = heard.memory_tc[split::4, 0].tolist()
    return sorted(zip(times, values, strict=True)), sorted(zip(distances, pointers, strict=True))


@pytest.mark.parametrize("max_cond", [1, 2, 4])
def test_the_diary_is_the_original(max_cond: int, original: official.SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original prefers conditioning frames near in time; here it gets the diary's choice, the rest is its own."""
    random = np.random.default_rng(max_cond)
    diary = Diary(max_cond)
    monkeypatch.setattr(
        official,
        "select_closest_cond_frames",
        lambda _, outputs, __: (
            {time: outputs[time] for time in diary.cond},
            {time: outputs[time] for time in outputs if time not in diary.cond},
        ),
    )
    for frame in range(NUM_FRAMES):
        if frame:
            assert ask_original(original, diary, frame) == diary.selection(frame), f"frame {frame}"
        if frame == 0 or random.random() < 0.1:
            diary.prompt(frame, float(frame))
        else:
            diary.track(frame, float(frame))


@pytest.mark.parametrize("max_cond", range(1, 8))
def test_the_first_and_the_newest_prompts_are_kept(max_cond: int) -> None:
    bank, diary = make_bank(max_cond), Diary(max_cond)
    row = bank.acquire()
    for frame in range(60):
        live(bank, row, "add" if frame % 4 == 0 else "track", float(frame), diary=diary)
    prompted = list(range(0, 60, 4))
    kept = [0, *prompted[len(prompted) - max_cond + 1 :]] if max_cond > 1 else [prompted[-1]]
    times, values = zip(*selection_of(bank.read([row]), 0)[0], strict=True)
    assert [value for time, value in zip(times, values, strict=True) if time == 6] == kept


def test_an_evicted_prompt_is_recent_for_six_memories_and_fifteen_pointers() -> None:
    bank, diary = make_bank(1), Diary(1)
    row = bank.acquire()
    live(bank, row, "add", 0.0, diary=diary)
    live(bank, row, "add", 1.0, diary=diary)  # evicts the first at once
    as_memory, as_pointer = [], []
    for frame in range(2, 30):
        memories, pointers = selection_of(bank.read([row]), 0)
        as_memory += [frame] if 0.0 in [value for _, value in memories] else []
        as_pointer += [frame] if 0.0 in [value for _, value in pointers] else []
        live(bank, row, "track", float(frame), diary=diary)
    assert as_memory == list(range(2, 7))  # frames 1 to 6; on frame 1 it was still a prompt
    assert as_pointer == list(range(2, 16))


@pytest.mark.parametrize("age_at_eviction", [1, 3, 5, 6, 7, 14, 15, 16])
def test_eviction_does_not_lengthen_what_is_recent(age_at_eviction: int) -> None:
    """The middle one of three prompts goes when the third comes, however old it is by then."""
    bank, diary = make_bank(2), Diary(2)
    row = bank.acquire()
    prompts = (0, 20, 20 + age_at_eviction)
    seen_as_memory, seen_as_pointer = set(), set()
    for frame in range(60):
        if frame > prompts[2]:
            memories, pointers = selection_of(bank.read([row]), 0)
            seen_as_memory |= {frame - 20} if any(value == 20 for _, value in memories) else set()
            seen_as_pointer |= {frame - 20} if any(value == 20 for _, value in pointers) else set()
        live(bank, row, "add" if frame in prompts else "track", float(frame), diary=diary)
    assert seen_as_memory == set(range(age_at_eviction + 1, 7))
    assert seen_as_pointer == set(range(age_at_eviction + 1, 16))


@pytest.mark.parametrize("num_cond", range(1, 8))
def test_a_full_bank_has_the_keys_of_the_formula(num_cond: int) -> None:
    tiny = replace(SPEC, image_size=1024, hidden_dim=256, memory_dim=64)
    assert tiny.num_keys(num_cond) == 4096 * (num_cond + 6) + 4 * (num_cond + 15)
    bank, diary = make_bank(num_cond), Diary(num_cond)
    row = bank.acquire()
    for frame in range(num_cond + 15):
        assert not bank.is_full(row)
        live(bank, row, "add" if frame < num_cond else "track", float(frame), diary=diary)
    for frame in range(20):
        assert bank.is_full(row)
        read = bank.read([row])
        split = SPEC.hidden_dim // SPEC.memory_dim
        num_keys = read.memory_bmnc[0].shape[0] * SPEC.num_tokens + read.pointers_bpc[0].shape[0] * split
        assert num_keys == SPEC.num_keys(num_cond)
        live(bank, row, "track", float(frame), diary=diary)


def test_distances_are_exact_after_three_weeks() -> None:
    spec = replace(SPEC, hidden_dim=256)
    bank = make_bank(2, spec=spec)
    row = bank.acquire()
    three_weeks = 21 * 24 * 3600 * 30
    bank.write_prompted(row, found([1.0], spec))
    bank.advance([row])
    bank.slots.age_r[row] = three_weeks
    for frame in range(20):
        bank.write_recent([row], found([float(frame)], spec))
        bank.advance([row])
    read = bank.read([row])
    wanted = sine_float64([three_weeks + 20, *range(15, 0, -1)], 256)
    assert np.abs(read.pointer_pos_bpc[0].numpy() - wanted).max() < 1e-7
    single = torch.tensor([three_weeks + 20.0]) / 15
    in_float32 = official.get_1d_sine_pe(single, dim=256).numpy()
    assert np.abs(in_float32 - wanted[:1]).max() > 1e-2, "what the original would compute by then"


def test_near_distances_are_the_originals_up_to_rounding() -> None:
    bank = make_bank(2, spec=replace(SPEC, hidden_dim=128))
    row = bank.acquire()
    bank.write_prompted(row, found([0.0], bank.spec))
    bank.advance([row])
    for frame in range(1, 40):
        read = bank.read([row])
        distances = [frame, *range(min(frame - 1, 15), 0, -1)]
        wanted = official.get_1d_sine_pe(torch.tensor(distances) / 15, dim=128)
        assert (read.pointer_pos_bpc[0] - wanted).abs().max() < 3e-7
        bank.write_recent([row], found([float(frame)], bank.spec))
        bank.advance([row])


def test_a_row_is_reused_empty() -> None:
    bank, diary = make_bank(2, capacity=1), Diary(2)
    row = bank.acquire()
    for frame in range(40):
        live(bank, row, "add" if frame % 7 == 0 else "track", 100.0 + frame, diary=diary)
    bank.release(row)
    assert bank.acquire() == row and bank.age(row) == 0 and bank.lengths(row) == (0, 0)
    fresh = Diary(2)
    for frame in range(40):
        if frame:
            assert selection_of(bank.read([row]), 0) == fresh.selection(frame)
        live(bank, row, "add" if frame == 0 else "track", float(frame), diary=fresh)


def test_growing_keeps_what_is_there() -> None:
    bank = make_bank(2, capacity=2)
    rows, diaries = [], []
    for count in range(1, 20):
        rows.append(bank.acquire())
        diaries.append(Diary(2))
        for index, (row, diary) in enumerate(zip(rows, diaries, strict=True)):
            live(bank, row, "track" if bank.age(row) else "add", 100.0 * index + count, diary=diary)
            assert selection_of(bank.read([row]), 0) == diary.selection(bank.age(row)), f"object {index} of {count}"
    assert bank.num_rows == 19


def test_the_scratch_row_is_never_handed_out_or_written() -> None:
    bank = make_bank(3, capacity=1)
    random, held = np.random.default_rng(1), []
    for step in range(300):
        if held and random.random() < 0.4:
            bank.release(held.pop(int(random.integers(len(held)))))
        else:
            held.append(bank.acquire())
        assert SCRATCH_ROW not in held and len(set(held)) == len(held) == bank.num_rows
        if held:
            bank.write_recent(held, found([float(step + 1)] * (len(held) + 2)))  # two rows of padding
    store, slots = bank.store, bank.slots
    assert not store.memory_snc[: slots.num_memories].any() and not store.pointer_sc[: slots.num_pointers].any()


def test_padding_changes_no_row_and_holds_no_rubbish() -> None:
    bank, diary = make_bank(2), Diary(2)
    rows = [bank.acquire() for _ in range(3)]
    for frame in range(25):
        for row in rows:
            live(bank, row, "track" if frame else "add", 10.0 * row + frame, diary=diary)
    plain, padded = bank.read(rows), bank.read(rows, batch=8)
    for a, b in zip(plain, padded, strict=True):
        assert b.shape[0] == 8 and torch.equal(a, b[:3])
        assert torch.isfinite(b[3:].float()).all()
    assert not padded.memory_bmnc[3:].any() and not padded.pointers_bpc[3:].any()


def test_a_row_is_released_once() -> None:
    bank = make_bank(2)
    row = bank.acquire()
    bank.release(row)
    with pytest.raises(AssertionError, match="released once"):
        bank.release(row)
    with pytest.raises(AssertionError, match="released once"):
        bank.release(SCRATCH_ROW)
