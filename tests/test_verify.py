"""An engine is compared with the reference before it is used: a true one passes, a wrong one does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.eager import EagerEngine
from engines.spec import FrameFeatures, MemoryRead, Segmentation
from engines.weights import build_model
from stream.evidence import Evidence
from stream.verify import CLIP, LIMITS, NUM_FRAMES, Trial, compare, verify

Change = Callable[[Segmentation, Segmentation], Segmentation]  # of what was found, knowing what was found before


def engine_of(network: SAM2Base, dtype: torch.dtype = torch.float32) -> EagerEngine:
    return EagerEngine(network, name="nano", device=torch.device("cpu"), dtype=dtype)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial()


@pytest.fixture(scope="module")
def right(trial: Trial) -> Iterator[Evidence]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield trial.record(engine_of(build_model("nano")))
    torch.set_num_threads(threads)


class Wrong(EagerEngine):
    """nano in fp32 whose tracked rows are changed on their way out."""

    def __init__(self, change: Change) -> None:
        super().__init__(build_model("nano"), name="nano", device=torch.device("cpu"), dtype=torch.float32)
        self.change = change
        self.before: dict[int, Segmentation] = {}  # by number of rows

    def track(self, frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead) -> tuple[Segmentation, Tensor]:
        found, conditioned = super().track(frames, row_frame_b, read)
        before = self.before.get(len(row_frame_b), found)
        self.before[len(row_frame_b)] = found
        return self.change(found, before), conditioned


class StalePictures(EagerEngine):
    """nano in fp32 whose finest features are a picture old."""

    before: FrameFeatures | None = None

    def encode(self, frames_f3hw: Tensor) -> FrameFeatures:
        found, before = super().encode(frames_f3hw), self.before
        self.before = found
        return found if before is None else found._replace(high0_fchw=before.high0_fchw)


def swapped(found: Segmentation, before: Segmentation) -> Segmentation:
    return Segmentation(*(value.flip(0) for value in found))


WRONG: dict[str, Change] = {
    "two rows swapped": swapped,
    "masks one step stale": lambda found, before: found._replace(logits_bhw=before.logits_bhw),
    "memory one step stale": lambda found, before: found._replace(memory_bnc=before.memory_bnc),
    "everything one step stale": lambda found, before: before,
    "not a number": lambda found, before: found._replace(logits_bhw=found.logits_bhw * float("nan")),
    "scores with another sign": lambda found, before: found._replace(scores_b=-found.scores_b),
}


def test_an_engine_agrees_with_itself_to_the_last_bit(right: Evidence, trial: Trial) -> None:
    same = compare(trial.record(engine_of(build_model("nano"))), right)
    assert (same.error, same.worst_error, same.mean_iou, same.worst_iou, same.flip_share) == (0, 0, 1, 1, 0)
    assert same.num_frames == NUM_FRAMES and not same.breaches(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_passes_with_room_to_spare(dtype: torch.dtype, right: Evidence, trial: Trial) -> None:
    found = compare(trial.record(engine_of(build_model("nano"), dtype)), right)
    assert not found.breaches(dtype)
    limits = LIMITS[dtype]
    assert found.error < limits.error / 2 and found.worst_error < limits.worst_error / 2
    assert found.breaches(torch.float32), "and would not pass for fp32"


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_engine_is_refused_in_every_precision(kind: str, right: Evidence, trial: Trial) -> None:
    found = compare(trial.record(Wrong(WRONG[kind]), lambda seconds: len(seconds) < 16), right)
    assert all(found.breaches(dtype) for dtype in LIMITS), found


def test_an_engine_with_stale_features_is_refused(right: Evidence, trial: Trial) -> None:
    network = build_model("nano")
    stale = StalePictures(network, name="nano", device=torch.device("cpu"), dtype=torch.float32)
    assert compare(trial.record(stale), right).breaches(torch.bfloat16)


def test_a_memory_that_says_the_opposite_is_refused() -> None:
    reference, wrong = engine_of(build_model("nano")), engine_of(build_model("nano"))
    remember = wrong.track_module.remember
    remember.scale, remember.bias = -20.0, 10.0
    assert verify(wrong, reference).breaches(torch.bfloat16)


def test_what_breaks_a_limit_is_told_with_the_limit(right: Evidence) -> None:
    upside_down = dataclasses.replace(right, scores_tn=-right.scores_tn)
    [flips] = [text for text in compare(upside_down, right).breaches(torch.float16) if text.startswith("flip share")]
    assert flips == "flip share 1 (limit 0.05)"


def test_the_clip_shows_objects_that_are_seen_and_one_that_is_gone_for_a_while(right: Evidence) -> None:
    seen_tn = right.scores_tn > 0
    assert seen_tn[0].all() and seen_tn[-1].any() and 0.1 < 1 - seen_tn.mean() < 0.5
    assert right.packed_tnhb.shape == (NUM_FRAMES, 2, CLIP.height, CLIP.width // 8)
    assert np.abs(right.scores_tn).min() > 0.5, "no decision of the reference hangs by a thread"


def test_a_trial_ends_when_it_is_told_and_is_compared_as_far_as_it_went(right: Evidence, trial: Trial) -> None:
    found = trial.record(engine_of(build_model("nano")), lambda seconds: len(seconds) < 5)
    assert found.num_frames == 5
    agreement = compare(found, right)
    assert agreement.num_frames == 5 and not agreement.breaches(torch.float32)
    assert "on 5 frames" in str(agreement)
