"""Refining masks: the official area rule, no ghosts, no overlaps, edges of the picture; and off means untouched."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
import sam2.utils.misc
import torch
from lanes import LateLane
from pocket import assert_same, clip_frames, pocket_engine
from torch import Tensor

from stream.config import RefineOptions
from stream.frame import Masks
from stream.prepare import Upload
from stream.readout import Readout, read_out
from stream.refine import Finish, Refinement
from stream.refine.guided import MARGIN, GuidedEdges, guided
from stream.refine.guided_device import drawn_on_device
from stream.refine.overlap import without_overlap
from stream.refine.regions import on_device, pixels_of, without_small_regions
from stream.refine.steady import steadied
from stream.tracker import Tracker

EVERYTHING = RefineOptions(fill_holes=60, remove_specks=60, smooth=0.7, upsample="guided", non_overlap=True)


def blobs(seed: int, count: int = 3, size: int = 64) -> Tensor:
    """Logits with holes and specks of many sizes."""
    noise = np.random.default_rng(seed).standard_normal((count, size, size)).astype(np.float32)
    return torch.from_numpy(np.stack([cv2.GaussianBlur(one, (0, 0), 1.0 + 0.5 * i) for i, one in enumerate(noise)]))


def disk(x: float, y: float, *, radius: float = 9.0, size: int = 48, slope: float = 2.0) -> Tensor:
    """Logits of a disk; a pixel from its edge they are `slope`."""
    rows, columns = np.mgrid[:size, :size]
    distance = radius - np.hypot(columns - x, rows - y)
    return torch.from_numpy(np.clip(slope * distance, -10, 10).astype(np.float32))


# --- holes and specks ------------------------------------------------------------------------------------------------


def connected_on_a_cpu(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for the official CUDA kernel."""
    labels, areas = torch.zeros_like(mask, dtype=torch.int64), torch.zeros_like(mask, dtype=torch.int64)
    for index, one in enumerate(mask[:, 0].numpy().astype(np.uint8)):
        _, found, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8)
        labels[index, 0] = torch.from_numpy(found)
        areas[index, 0] = torch.from_numpy(np.where(found > 0, stats[found, cv2.CC_STAT_AREA], 0))
    return labels, areas


@pytest.mark.parametrize("area", [1, 8, 40])
def test_holes_are_filled_by_the_official_rule(area: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2.utils.misc, "get_connected_components", connected_on_a_cpu)
    logits = blobs(1)
    wanted = sam2.utils.misc.fill_holes_in_mask_scores(logits[:, None], area)[:, 0]
    found = without_small_regions(logits, holes=area, specks=0)
    assert torch.equal(found, wanted) and not torch.equal(found, logits)


def test_specks_are_removed_but_never_the_largest_piece() -> None:
    logits = torch.full((2, 32, 32), -3.0)
    logits[0, 2:4, 2:4] = logits[1, 5, 5] = 2.0
    logits[0, 10:20, 10:20] = 2.0
    found = without_small_regions(logits, holes=0, specks=4)
    assert (found[0] > 0).sum() == 100 and found[0, 2, 2] == pytest.approx(-0.1)
    assert torch.equal(found[1], logits[1]), "a small object is no speck of itself"
    assert torch.equal(without_small_regions(logits, holes=0, specks=3), logits)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("holes", "specks"), [(1, 0), (9, 0), (0, 9), (30, 30), (60, 5)])
def test_a_device_finds_the_same_regions(seed: int, holes: int, specks: int) -> None:
    logits = blobs(seed)
    wanted = without_small_regions(logits, holes=holes, specks=specks)
    assert torch.equal(on_device(logits, holes=holes, specks=specks), wanted)


def test_a_device_leaves_long_winding_regions_alone() -> None:
    """More pixels than it follows, and no more than are asked for: the CPU fills it, a device does not know."""
    logits = torch.full((1, 64, 64), 3.0)
    logits[0, 10, 2:62] = logits[0, 10:50, 61] = -3.0
    assert (without_small_regions(logits, holes=200, specks=0) > 0).all()
    assert torch.equal(on_device(logits, holes=200, specks=0), logits)


def test_areas_are_those_of_a_mask_of_256_pixels() -> None:
    assert [pixels_of(area, 256) for area in (0, 1, 8)] == [0, 1, 8]
    assert [pixels_of(area, 64) for area in (0, 8, 16, 160)] == [0, 1, 1, 10]


# --- steadiness ------------------------------------------------------------------------------------------------------


def smoothed(frames: list[Tensor], smooth: float) -> list[Tensor]:
    before, found = frames[0], []
    for frame in frames:
        before = steadied(frame[None], before[None], torch.tensor([smooth]))[0]
        found.append(before)
    return found


def flicker(frames: list[Tensor]) -> float:
    return float(np.mean([((a > 0) ^ (b > 0)).sum() for a, b in itertools.pairwise(frames)]))


def test_a_trembling_edge_comes_to_rest() -> None:
    random = torch.Generator().manual_seed(1)
    frames = [disk(24, 24) + 1.5 * torch.randn(48, 48, generator=random) for _ in range(12)]
    assert flicker(smoothed(frames, 1.0)) < 0.6 * flicker(frames)


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0, 6.0, 12.0])
def test_a_fast_object_leaves_no_ghost_and_is_not_held_back(speed: float) -> None:
    """Up to more than its own radius a picture, with the most smoothing there is."""
    frames = [disk(11 + speed * t, 24) for t in range(int(26 / speed) + 1)]
    for frame, found in zip(frames, smoothed(frames, 1.0), strict=True):
        assert ((frame > 0) ^ (found > 0)).sum() <= 0.05 * (frame > 0).sum()
        around = cv2.dilate((frame > 0).numpy().astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not ((found > 0).numpy() & ~around).any(), "nothing where the object was"


def test_what_grows_fast_is_not_held_back() -> None:
    frames = [disk(24, 24, radius=5 + 1.0 * t) for t in range(14)]
    for frame, found in zip(frames, smoothed(frames, 1.0), strict=True):
        assert iou((frame > 0).numpy(), (found > 0).numpy()) >= 0.95


def test_what_appears_vanishes_or_comes_back_elsewhere_has_no_past() -> None:
    nothing = torch.full((48, 48), -10.0)
    frames = [disk(10, 10), nothing, nothing, disk(38, 38), disk(10, 10), nothing]
    found = smoothed(frames, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(frames[1:], found[1:], strict=True))


def test_each_object_is_smoothed_as_it_asked() -> None:
    now, past = torch.stack([disk(24, 24)] * 2), torch.stack([disk(24, 24, radius=9.4)] * 2)
    found = steadied(now, past, torch.tensor([0.0, 1.0]))
    assert torch.equal(found[0], now[0]) and not torch.equal(found[1], now[1])


# --- overlaps --------------------------------------------------------------------------------------------------------


def bits(part: Tensor, size: tuple[int, int], guides: list[GuidedEdges | None] | None = None) -> np.ndarray:
    count = part.shape[0]
    (block,) = read_out([(part, torch.zeros(count), torch.zeros(count))], [size], None if guides is None else [guides])
    return np.unpackbits(block.wait()[1], axis=2, count=size[1]).astype(np.bool_)


def test_a_pixel_belongs_to_one_object_at_most_also_when_enlarged() -> None:
    logits = torch.stack([disk(20, 24), disk(28, 24), disk(24, 30), disk(24, 30)])
    apart = without_overlap(logits)
    before, after = bits(logits, (350, 500)), bits(apart, (350, 500))
    assert before.sum(axis=0).max() == 4 and after.sum(axis=0).max() == 1
    assert not (after & ~before).any(), "nobody gets what he did not claim"
    assert torch.equal(without_overlap(logits[:1]), logits[:1])


def test_where_nobody_else_is_nothing_changes() -> None:
    logits = torch.stack([disk(12, 12), disk(36, 36)])
    assert torch.equal(without_overlap(logits) > 0, logits > 0)


# --- edges -----------------------------------------------------------------------------------------------------------


def scene(size: int = 384) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """A picture of a square on grain, the square, and coarse logits of it that are a little off."""
    random = np.random.default_rng(5)
    truth = np.zeros((size, size), np.bool_)
    truth[101:262, 90:241] = True
    picture = np.where(truth[..., None], (40, 160, 90), (150, 120, 170)) + random.normal(0, 6, (size, size, 3))
    coarse = cv2.resize(np.roll(truth, (3, -3), (0, 1)).astype(np.float32), (48, 48), interpolation=cv2.INTER_AREA)
    return np.clip(picture, 0, 255).astype(np.uint8), truth, torch.from_numpy(8 * (coarse - 0.5))[None]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_edges_are_drawn_to_those_of_the_picture() -> None:
    picture, truth, logits = scene()
    coarse, fine = bits(logits, truth.shape)[0], bits(logits, truth.shape, [GuidedEdges(picture)])[0]
    assert iou(coarse, truth) < 0.94 and iou(fine, truth) > 0.98


def test_a_picture_without_edges_leaves_the_mask_as_it_was() -> None:
    _, truth, logits = scene()
    flat = np.full((*truth.shape, 3), 90, np.uint8)
    assert iou(bits(logits, truth.shape)[0], bits(logits, truth.shape, [GuidedEdges(flat)])[0]) > 0.98


def test_far_from_the_edge_nothing_changes_whatever_the_picture_shows() -> None:
    _, truth, logits = scene()
    noise = np.random.default_rng(1).integers(0, 256, (*truth.shape, 3), dtype=np.uint8)
    coarse, fine = bits(logits, truth.shape)[0], bits(logits, truth.shape, [GuidedEdges(noise)])[0]
    distance = cv2.distanceTransform(coarse.astype(np.uint8), cv2.DIST_L2, 5)
    distance += cv2.distanceTransform(1 - coarse.astype(np.uint8), cv2.DIST_L2, 5)
    assert not (coarse ^ fine)[distance > (MARGIN + 1) * 8].any()


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3), (48, 48), (20, 31)])
def test_pictures_of_any_size_are_drawn(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert bits(disk(24, 24, radius=20)[None], size, [GuidedEdges(picture)]).shape == (1, *size)


def test_drawn_edges_do_not_overlap_where_that_was_asked_for() -> None:
    picture, truth, _ = scene()
    logits = torch.stack([disk(20, 24), disk(27, 24)])
    refinement, finishes = Refinement(), [Finish(), Finish()]
    refinement.set(RefineOptions(upsample="guided", non_overlap=True), "")
    apart = refinement.refined("", logits, finishes)
    found = bits(apart, truth.shape, refinement.guides("", picture, finishes))
    assert found.any(axis=(1, 2)).all() and found.sum(axis=0).max() == 1


def test_a_device_draws_the_same_edges_on_the_model_s_picture() -> None:
    picture, truth, logits = scene()
    colours = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1).float() / 255
    found = drawn_on_device(torch.cat([logits, logits]), colours, [True, False])
    high = torch.nn.functional.interpolate(logits[None], truth.shape, mode="bilinear", align_corners=False)[0, 0]
    assert iou(found[0].numpy() > 0, guided(picture, high.numpy(), 8.0) > 0) > 0.995
    assert torch.equal(found[1], high)


# --- in the tracker --------------------------------------------------------------------------------------------------

FRAMES = clip_frames(4, 8)


def follow(tracker: Tracker, frames: list[np.ndarray], *, prompt: bool = True) -> list[Masks]:
    if prompt:
        tracker.add(1, points=[(40, 40, 1)])
        tracker.add(2, points=[(70, 60, 1)])
    return [tracker.step(frame, time_ns=0) for frame in frames]


def test_the_memory_never_sees_what_was_refined() -> None:
    plain, refined = Tracker(pocket_engine()), Tracker(pocket_engine())
    refined.refine_masks(EVERYTHING)
    one, other = follow(plain, FRAMES), follow(refined, FRAMES)
    assert torch.equal(plain.logits_nhw, refined.logits_nhw)
    assert any(not np.array_equal(a.packed_nhb, b.packed_nhb) for a, b in zip(one, other, strict=True))


def test_off_is_untouched() -> None:
    logits, finishes = blobs(1), [Finish() for _ in range(3)]
    refinement = Refinement()
    assert refinement.refined("", logits, finishes) is logits
    assert not refinement.guides("", FRAMES[0], finishes) and not refinement.is_drawn("", finishes)
    plain, switched = Tracker(pocket_engine()), Tracker(pocket_engine())
    switched.refine_masks(EVERYTHING)
    switched.refine_masks(None)
    for a, b in zip(follow(plain, FRAMES), follow(switched, FRAMES), strict=True):
        assert_same(a, b)


def test_an_object_has_settings_of_its_own() -> None:
    trackers = [Tracker(pocket_engine()) for _ in range(3)]
    own = RefineOptions(upsample="guided", smooth=0.5)
    for tracker in trackers:
        follow(tracker, FRAMES[:1])
    trackers[1].refine_masks(own, object_id=2)
    trackers[2].refine_masks(own)
    plain, second, both = (follow(tracker, FRAMES[1:], prompt=False)[-1] for tracker in trackers)
    assert np.array_equal(plain.packed_nhb[0], second.packed_nhb[0])
    assert np.array_equal(both.packed_nhb[1], second.packed_nhb[1])
    assert not np.array_equal(plain.packed_nhb[1], both.packed_nhb[1])


def test_on_a_device_edges_are_drawn_on_the_model_s_picture_that_is_there_already() -> None:
    """The Tracker's whole way with a late lane in place of a GPU's."""
    tracker, lane = Tracker(pocket_engine()), LateLane()
    device = torch.device("cpu")
    upload, readout = Upload(tracker.image_size, device, lane=lane), Readout(device, lane=lane)
    tracker._equipment = dataclasses.replace(tracker._equipment, upload=upload, readout=readout)
    tracker.refine_masks(RefineOptions(upsample="guided"))
    masks = follow(tracker, FRAMES[:3])[-1].masks_nhw
    drawn = drawn_on_device(tracker.logits_nhw, upload.colours(0), [True, True])
    wanted = torch.nn.functional.interpolate(drawn[:, None], masks.shape[1:], mode="bilinear", align_corners=False)
    assert np.array_equal(masks, (wanted[:, 0] > 0).numpy()) and masks.any()
    assert not np.array_equal(masks, bits(tracker.logits_nhw, masks.shape[1:]))


def test_a_restored_object_is_smoothed_as_if_nothing_had_happened() -> None:
    tracker, other = Tracker(pocket_engine()), Tracker(pocket_engine())
    tracker.refine_masks(dataclasses.replace(EVERYTHING, upsample="bilinear"))
    other.refine_masks(dataclasses.replace(EVERYTHING, upsample="bilinear"))
    follow(tracker, FRAMES[:5])
    for object_id in (1, 2):
        snapshot = tracker.snapshot(object_id)
        assert snapshot.finish.before_hw is not None
        other.restore(object_id, snapshot)
    for a, b in zip(*(follow(one, FRAMES[5:], prompt=False) for one in (tracker, other)), strict=True):
        assert_same(a, b)


def test_what_a_person_corrects_is_seen_at_once() -> None:
    tracker = Tracker(pocket_engine())
    tracker.refine_masks(RefineOptions(smooth=1.0))
    follow(tracker, FRAMES[:4])
    assert tracker.snapshot(1).finish.before_hw is not None
    tracker.refine(1, points=[(10, 10, 0)])
    masks = tracker.step(FRAMES[4], time_ns=0)
    plain = bits(tracker.logits_nhw, FRAMES[4].shape[:2])
    assert np.array_equal(masks.masks_nhw[0], plain[0])
