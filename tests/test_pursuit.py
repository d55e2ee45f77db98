"""The memory policy "motion" in the tracker: its steps, its clock, its anchors, and that "sam2" does not feel it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pocket import Frames, OneByOne, assert_same, clip_frames, pocket_engine
from torch import Tensor

from engines.programmed import ProgrammedEngine
from engines.spec import FrameFeatures, MemoryRead, ProgramKey, Proposals, Segmentation, program_spec
from stream.device import OptionError
from stream.frame import ObjectState
from stream.memory import MemoryBank
from stream.prompt import PromptError, checked_prompt
from stream.slots import NO_SLOT
from stream.tracker import Tracker, TrackerOptions

MOTION = TrackerOptions(memory_policy="motion")
POINT = [(50.0, 40.0, 1)]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip_frames(5, 24)


class Shown(OneByOne):
    """Proposes one square for every row, where it is told to, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[int, int] | None] = []
        self.remembered = 0

    def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
        found, conditioned = super().propose(frames, row_frame_b, read)
        place = self.places.pop(0)
        logits = torch.full_like(found.logits_bkhw, -5.0)
        if place is not None:
            logits[:, :, place[1] - 2 : place[1] + 2, place[0] - 2 : place[0] + 2] = 5.0
        score = torch.full_like(found.scores_b, -1.0 if place is None else 3.0)
        return Proposals(logits, torch.full_like(found.ious_bk, 0.9), score, found.pointers_bkc), conditioned

    def remember(self, frames: FrameFeatures, row_frame_b: Tensor, chosen: tuple[Tensor, Tensor]) -> Tensor:
        self.remembered += 1
        return super().remember(frames, row_frame_b, chosen)


def square(x: int, y: int) -> np.ndarray:
    """A mask of the picture that becomes the square at (x, y) of the small logits."""
    mask = np.zeros((96, 112), np.bool_)
    mask[(y - 2) * 6 : (y + 2) * 6, (x - 2) * 7 : (x + 2) * 7] = True
    return mask


def pursued(places: list[tuple[int, int] | None]) -> tuple[Shown, Tracker]:
    engine = Shown()
    engine.places = list(places)
    tracker = Tracker(engine, MOTION)
    tracker.add(1, mask=square(6, 6))
    return engine, tracker


# ---- what is proposed


def test_the_best_proposal_is_what_track_finds(frames: Frames) -> None:
    class Compared(OneByOne):
        def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
            found, conditioned = super().track(frames, row_frame_b, read)
            proposals, same = self.propose(frames, row_frame_b, read)
            best, row = proposals.ious_bk.argmax(dim=1), torch.arange(len(row_frame_b))
            assert torch.equal(proposals.logits_bkhw[row, best], found.logits_bhw) and torch.equal(same, conditioned)
            assert torch.equal(proposals.scores_b, found.scores_b)
            assert torch.allclose(proposals.pointers_bkc[row, best], found.pointers_bc, atol=1e-5)
            chosen = (found.logits_bhw, found.scores_b)
            assert torch.equal(self.remember(frames, row_frame_b, chosen), found.memory_bnc)
            self.compared = len(row_frame_b)
            return found, conditioned

    engine = Compared()
    tracker = Tracker(engine)
    tracker.add(1, points=POINT)
    for frame in frames[:4]:
        tracker.step(frame)
    assert engine.compared == 1


def test_where_the_model_has_one_opinion_both_policies_agree_bit_for_bit(frames: Frames) -> None:
    class Single(OneByOne):
        def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
            found, conditioned = self.track(frames, row_frame_b, read)
            proposals = Proposals(*(x[:, None] for x in found[:2]), found.scores_b, found.pointers_bc[:, None])
            return proposals, conditioned

    results = []
    for options in (TrackerOptions(), MOTION):
        tracker = Tracker(Single(), options)
        tracker.add(1, points=POINT)
        results.append([tracker.step(frame, time_ns=0) for frame in frames[:2]])
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


# ---- "sam2" does not feel it


def test_an_object_with_the_other_policy_beside_it_changes_nothing_for_one_of_sam2(frames: Frames) -> None:
    alone, beside = Tracker(OneByOne()), Tracker(OneByOne())
    for tracker in (alone, beside):
        tracker.add(1, points=POINT)
    beside.add(2, points=[(20, 20, 1)])
    beside.set_policy(2, "motion")
    for frame in frames[:12]:
        one, both = alone.step(frame, time_ns=0), beside.step(frame, time_ns=0)
        assert np.array_equal(one.packed_nhb[0], both.packed_nhb[0]) and one.scores[0] == both.scores[0]


def test_a_camera_and_an_object_may_have_their_own_policy(frames: Frames) -> None:
    tracker = Tracker(OneByOne())
    tracker.set_camera_policy("door", "motion", camera_motion=True)
    for camera in ("door", "yard"):
        tracker.add(1, points=POINT, camera=camera)
        tracker.add(2, points=[(20, 20, 1)], camera=camera)
    tracker.set_policy(2, "sam2", camera="door")
    for frame in frames[:3]:
        tracker.launch({"door": frame, "yard": frame}, {"door": 0, "yard": 0})
    has_motion = {key: item.motion is not None for key, item in tracker._objects.items()}
    assert has_motion == {("door", 1): True, ("door", 2): False, ("yard", 1): False, ("yard", 2): False}
    assert tracker._guidance.view("door") is not None and tracker._guidance.view("yard") is None
    tracker.reset("door")
    assert tracker._guidance.view("door") is None and tracker._guidance.of("door").memory_policy == "motion"
    tracker.set_camera_policy("door", None)
    assert tracker._guidance.of("door").memory_policy == "sam2" and not tracker._guidance._policies


def test_an_unknown_policy_or_object_is_an_error() -> None:
    expected = "memory_policy is 'kalman'; expected sam2 or motion"
    tracker = Tracker(OneByOne())
    with pytest.raises(OptionError, match=expected):
        Tracker(tracker.engine, TrackerOptions(memory_policy="kalman"))
    with pytest.raises(OptionError, match=expected):
        tracker.set_camera_policy("", "kalman")
    with pytest.raises(PromptError, match="there is no object 3"):
        tracker.set_policy(3, "motion")


# ---- what is shown, and what is remembered


def test_a_jump_is_hidden_published_as_score_zero_and_not_remembered(frames: Frames) -> None:
    engine, tracker = pursued([(6, 6), (6, 6), (13, 13), (6, 6)])
    tracker.step(frames[0], time_ns=0)
    found = [tracker.step(frame, time_ns=index * 300_000_000) for index, frame in enumerate(frames[1:5])]
    assert [masks.states[0] for masks in found] == [
        ObjectState.TRACKED, ObjectState.TRACKED, ObjectState.OCCLUDED, ObjectState.REACQUIRED,
    ]  # fmt: skip
    assert found[2].scores[0] == 0.0 and found[2].areas[0] == 0 and found[1].scores[0] == 3.0
    assert [masks.unseen_ns for masks in found] == [(0,), (0,), (300_000_000,), (0,)]
    assert engine.remembered == 3


def test_time_stands_still_for_a_memory_that_passes_a_frame_over(frames: Frames) -> None:
    _, tracker = pursued([(6, 6), None, None, (6, 6)])
    ages = []
    for frame in frames[:5]:
        tracker.step(frame, time_ns=0)
        row = tracker._objects["", 1].row
        ages.append((tracker._bank.age(row), tracker._bank.num_frames(row)))
    assert ages == [(1, 1), (2, 2), (2, 3), (2, 4), (3, 5)]


def test_a_cut_part_is_not_in_the_picture(frames: Frames) -> None:
    class Double(Shown):
        def propose(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Proposals, Tensor]:
            found, conditioned = super().propose(frames, row_frame_b, read)
            found.logits_bkhw[:, :, 11:15, 11:15] = 5.0
            return found, conditioned

    engine = Double()
    engine.places = [(6, 6)] * 2
    tracker = Tracker(engine, MOTION)
    tracker.add(1, mask=square(6, 6))
    tracker.step(frames[0])
    masks = tracker.step(frames[1])
    assert masks.areas[0] > 0 and masks.boxes_n4[0][2] < 70, "only the part where it was"


def test_a_correction_by_a_person_is_remembered_even_where_the_policy_saw_nothing(frames: Frames) -> None:
    _, tracker = pursued([(6, 6), (13, 13), (13, 13)])
    for frame in frames[:2]:
        tracker.step(frame, time_ns=0)
    tracker.refine(1, mask=square(13, 13))
    row = tracker._objects["", 1].row
    assert tracker.step(frames[2], time_ns=0).states == (ObjectState.TRACKED,)
    assert tracker._bank.age(row) == 3, "its frame counts"
    assert tracker.step(frames[3], time_ns=0).states == (ObjectState.TRACKED,), "what it said is where the object is"


# ---- going on


def test_an_object_goes_on_from_its_snapshot_bit_for_bit(frames: Frames) -> None:
    def fresh() -> Tracker:
        return Tracker(OneByOne(), TrackerOptions(memory_policy="motion", camera_motion=True))

    undisturbed, broken = fresh(), fresh()
    for tracker in (undisturbed, broken):
        tracker.add(4, points=POINT)
        for index, frame in enumerate(frames[:8]):
            tracker.step(frame, time_ns=index * 1000)
    resumed = fresh()
    resumed.restore(4, broken.snapshot(4))
    for index, frame in enumerate(frames[8:16], 8):
        assert_same(undisturbed.step(frame, time_ns=index * 1000), resumed.step(frame, time_ns=index * 1000))


def test_how_long_an_object_is_unseen_survives_in_its_snapshot(frames: Frames) -> None:
    second = 1_000_000_000
    engine, tracker = pursued([None] * 4)
    for time in (0, 1, 2):
        tracker.step(frames[time], time_ns=time * second)
    resumed = Tracker(engine, MOTION)
    resumed.restore(1, tracker.snapshot(1))
    masks = resumed.step(frames[3], time_ns=3 * second)
    assert masks.states == (ObjectState.LOST,) and masks.unseen_ns == (3 * second,)


def test_a_click_on_a_past_picture_goes_back_over_frames_that_were_passed_over(frames: Frames) -> None:
    _, tracker = pursued([(6, 6), None, None, (6, 6), (6, 6)])
    for index, frame in enumerate(frames[:5]):
        tracker.launch({"": frame}, {"": index}, marks={"": index})
    row = tracker._objects["", 1].row
    assert (tracker._bank.age(row), tracker._bank.num_frames(row)) == (3, 5)
    assert tracker.prompt_past(1, checked_prompt(points=POINT, box=None, mask=None), 2, camera="", refine=False)
    assert (tracker._bank.age(row), tracker._bank.num_frames(row)) == (5, 5), "picture 2 and the two after it count now"
    tracker.step(frames[5])


# ---- the bank


def bank_with_anchor() -> tuple[MemoryBank, int, Segmentation]:
    engine = pocket_engine()
    bank = MemoryBank(engine.spec, device=engine.device, dtype=torch.float32, max_cond=2)
    row, spec = bank.acquire(), engine.spec
    found = Segmentation(
        torch.zeros(1, 16, 16), torch.ones(1), torch.ones(1), torch.ones(1, spec.hidden_dim),
        torch.ones(1, spec.num_tokens, spec.memory_dim),
    )  # fmt: skip
    bank.write_prompted(row, found)
    bank.advance([row])
    bank.write_recent([row], found)
    bank.write_anchor(row, found)
    bank.advance([row])
    return bank, row, found


def test_an_anchor_lies_in_the_free_prompt_slot_and_a_newer_one_takes_its_place() -> None:
    bank, row, found = bank_with_anchor()
    assert bank.slots.num_cond(row) == 2 and bank.slots.memory_time_rs[row, :2].tolist() == [0, 1]
    bank.write_recent([row], found)
    bank.write_anchor(row, found)
    assert bank.slots.memory_time_rs[row, :2].tolist() == [0, 2]


def test_a_prompt_evicts_the_anchor_before_a_prompt() -> None:
    bank, row, found = bank_with_anchor()
    bank.write_prompted(row, found)
    assert bank.slots.memory_time_rs[row, :2].tolist() == [0, 2] and bank.slots.anchor_r[row] == NO_SLOT
    bank.advance([row])
    bank.write_anchor(row, found)
    assert bank.slots.memory_time_rs[row, :2].tolist() == [0, 2], "prompts have both slots"


def test_going_back_forgets_a_younger_anchor_and_counts_what_was_passed_over() -> None:
    bank, row, _ = bank_with_anchor()
    bank.pass_over([row])
    bank.pass_over([row])
    assert (bank.age(row), bank.num_frames(row)) == (2, 4)
    bank.go_back(row, 3)  # two that were passed over, and the anchor's
    assert (bank.age(row), bank.num_frames(row)) == (1, 1)
    assert bank.slots.anchor_r[row] == NO_SLOT and bank.slots.num_cond(row) == 1


def test_a_row_keeps_its_anchor_and_its_trail_when_it_moves() -> None:
    bank, row, _ = bank_with_anchor()
    bank.pass_over([row])
    other, _, _ = bank_with_anchor()
    place = other.acquire()
    other.import_row(place, bank.export_row(row))
    assert other.num_frames(place) == 3 and other.slots.anchor_r[place] == 1
    other.go_back(place, 2)
    assert other.age(place) == 1


# ---- engines with programs


def test_programs_do_not_serve_the_motion_policy_and_results_are_those_of_the_inner_engine(
    frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    class Untouched:
        def __init__(self, key: ProgramKey) -> None:
            self.spec = program_spec(inner.spec, key, inner.dtype)

        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            raise AssertionError("a program chooses by itself")

    inner = pocket_engine()
    engine = ProgrammedEngine(inner, backend="programmed", sparse_1sc=inner.track_module.sparse_1sc)
    for cond in (1, 2):
        engine.install(ProgramKey("track", 1, cond), Untouched(ProgramKey("track", 1, cond)))
    results = []
    caplog.set_level("INFO")
    for one in (inner, engine):
        tracker = Tracker(one, MOTION)
        tracker.add(1, points=POINT)
        results.append([tracker.step(frame, time_ns=0) for frame in frames])
    for one, other in zip(*results, strict=True):
        assert_same(one, other)
    said = [text for text in caplog.messages if "run on eager, not on programmed" in text]
    assert len(said) == 1, "said once, though every picture is such a step"
