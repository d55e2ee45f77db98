"""Evaluating the tracker: the protocol, what is scored, what is left behind, and how it goes on after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluate_rig import SETTINGS, Written, small_clip, three_clips, write_davis
from killing import kill_process
from pocket import pocket_engine
from segment_rig import CLIP, SIZE, write_clip

from engines.synthetic import EVALUATION_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, ClipSpec, SyntheticClip
from stream.config import EnhanceOptions
from stream.enhance import Enhancer
from stream.evaluate import (
    PROMPT_KINDS,
    Campaign,
    Material,
    PromptKind,
    Shelf,
    ShelfError,
    clip_material,
    evaluate_tracker,
    exhibit_of,
    find_material,
    generated_material,
    speed_of,
)  # fmt: skip
from stream.evaluate.fitting import disjoint
from stream.evaluate.protocol import add
from stream.evaluate.pursuit import pursue
from stream.masksets import rle_of
from stream.quality import SequenceScore, score_sequence
from stream.sequence import LabelledFrame, MaskFileError
from stream.tracker import Tracker


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker(pocket_engine())


def evaluated(tracker: Tracker, folder: Path) -> Campaign:
    shelf = Shelf(folder)
    shelf.open(SETTINGS)
    campaign = Campaign(tracker, three_clips(), shelf=shelf)
    assert [progress.num_done for progress in campaign.run()][-1] == 24
    return campaign


def masks_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_an_evaluation_that_was_killed_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, tracker: Tracker) -> None:
    rig = Path(__file__).with_name("evaluate_rig.py")
    command, pipe = [sys.executable, str(rig), str(tmp_path / "killed")], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["generated-1", "12"]:
            break
    kill_process(process)
    assert 8 < len(masks_in(tmp_path / "killed")) < 24, "it was in the middle of the second"
    left = sorted(path.name for path in (tmp_path / "killed" / ".evaluation").glob("generated*"))
    assert left == ["generated-0.json"], "only what is done has a record"
    first = (tmp_path / "killed" / ".evaluation" / "generated-0.json").read_bytes()
    resumed, whole = evaluated(tracker, tmp_path / "killed"), evaluated(tracker, tmp_path / "whole")
    assert [record.score for record in resumed.records] == [record.score for record in whole.records]
    assert masks_in(tmp_path / "killed") == masks_in(tmp_path / "whole") and len(masks_in(tmp_path / "whole")) == 24
    assert (tmp_path / "killed" / ".evaluation" / "generated-0.json").read_bytes() == first, "it was not done again"


def test_scores_of_a_run_are_those_of_the_masks_that_it_leaves(tmp_path: Path, tracker: Tracker) -> None:
    campaign = evaluated(tracker, tmp_path)
    for record, material in zip(campaign.records, three_clips(), strict=True):
        exhibit = exhibit_of(material, tmp_path / material.name)
        again = score_sequence(exhibit.prediction, exhibit.truth)
        assert record.score is not None and record.score.objects == again.objects
        assert msgspec.json.decode(msgspec.json.encode(record.score), type=SequenceScore) == record.score


def test_a_folder_of_other_settings_or_other_things_is_refused_in_one_line(tmp_path: Path, tracker: Tracker) -> None:
    Shelf(tmp_path / "out").open(SETTINGS)
    other = msgspec.structs.replace(SETTINGS, prompt="click")
    with pytest.raises(ShelfError, match="was made with prompt 'mask', not 'click'; expected the same settings"):
        Shelf(tmp_path / "out").open(other)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ShelfError, match="photos: holds something else; expected a new or empty folder"):
        Shelf(tmp_path / "photos").open(SETTINGS)
    (tmp_path / "out" / ".evaluation" / "a.json").write_bytes(b"{")
    with pytest.raises(ShelfError, match=r"a\.json: .*; remove it to evaluate a again"):
        Shelf(tmp_path / "out").find("a")


def test_an_object_is_prompted_where_the_truth_first_shows_it_and_once(tracker: Tracker) -> None:
    material = clip_material(small_clip(num_frames=6))
    empty = np.zeros((96, 112), np.bool_)
    late = [replace(f, masks={1: f.masks[1], 2: empty if f.index < 3 else f.masks[2]}) for f in frames_of(material)]
    sights = list(pursue(tracker, replace(material, truth=Written(late, (96, 112), 6)), "mask"))
    assert [sorted(sight.found.masks) for sight in sights] == [[1], [1], [1], [1, 2], [1, 2], [1, 2]]
    assert [sight.is_start for sight in sights] == [True, False, False, True, False, False]


def test_nothing_is_tracked_before_the_first_annotated_picture(tracker: Tracker) -> None:
    material = clip_material(small_clip(num_frames=5))
    truth = Written(frames_of(material)[2:], (96, 112), 5)
    sights = list(pursue(tracker, replace(material, truth=truth), "mask"))
    assert [len(sight.found.masks) for sight in sights] == [0, 0, 2, 2, 2] and sights[0].seconds == 0


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_a_prompt_of_each_kind_follows_from_the_true_mask(kind: PromptKind) -> None:
    fresh, mask = Tracker(pocket_engine()), np.zeros((96, 112), np.bool_)
    mask[20:31, 40:71] = True
    add(fresh, 7, mask, kind=kind)
    added = fresh.snapshot(7).added
    assert added is not None
    if kind == "mask":
        assert added.mask_hw is not None and np.array_equal(added.mask_hw, mask)
    elif kind == "click":
        ((x, y, label),) = added.points
        assert y == 25 and 45 <= x <= 65 and label == 1, "the middle, farthest from the border"
    else:
        assert added.box == (40, 20, 71, 31), "a mask of one pixel has a box, too"


def test_masks_share_no_pixel_and_the_higher_logit_wins() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 16, 16)).astype(np.float32) * 5
    full = F.interpolate(torch.from_numpy(logits)[None], (96, 112), mode="bilinear", align_corners=False)[0].numpy()
    found = disjoint(full > 0, logits)
    assert found.sum(0).max() == 1 and np.array_equal(found.any(0), (full > 0).any(0))
    winners = np.where((full > 0).any(0), full.argmax(0), -1)
    assert np.mean([found[k][winners == k].mean() for k in range(4)]) > 0.9999, "rounding may decide a tie otherwise"


def test_pictures_that_the_video_lacks_count_as_empty(tracker: Tracker) -> None:
    clip = small_clip(num_frames=10)
    material, short = clip_material(clip), clip_material(small_clip(num_frames=6))
    campaign = Campaign(tracker, [replace(material, open_footage=short.open_footage)])
    assert list(campaign.run())[-1].num_done == 10
    score = campaign.records[0].score
    assert score is not None and score.num_missing == 3 and score.frames == tuple(range(1, 9))
    assert all(item.j[-3:] == (0.0, 0.0, 0.0) for item in score.objects if min(item.num_truth[-3:]) > 0)
    assert any(min(item.num_truth[-3:]) > 0 for item in score.objects)


def test_a_truth_of_one_mask_leaves_predictions_but_no_score(tmp_path: Path, tracker: Tracker) -> None:
    material = clip_material(small_clip(num_frames=4))
    only = replace(material, truth=Written(frames_of(material)[:1], (96, 112), 4))
    shelf = Shelf(tmp_path)
    shelf.open(SETTINGS)
    campaign = Campaign(tracker, [only], shelf=shelf)
    list(campaign.run())
    assert campaign.records[0].score is None and len(masks_in(tmp_path)) == 4 * 2  # a picture for each object
    with pytest.raises(MaskFileError, match="without an object to score"):
        evaluate_tracker(tracker, [only])


def test_pictures_are_enhanced_before_the_tracker_sees_them_and_only_if_asked(tracker: Tracker) -> None:
    dark = clip_material(small_clip())
    plain, off, lifted = (
        [sight.found.masks for sight in pursue(tracker, dark, "mask", enhancer=enhancer)]
        for enhancer in (None, Enhancer(EnhanceOptions()), Enhancer(EnhanceOptions(denoise=1.0, low_light=1.0)))
    )
    pairs = [(one[k], other[k]) for one, other in zip(plain, off, strict=True) for k in one]
    assert len(pairs) == 16 and all(np.array_equal(*pair) for pair in pairs)
    assert any(not np.array_equal(one[k], other[k]) for one, other in zip(plain, lifted, strict=True) for k in one)


def test_speed_leaves_out_pictures_with_a_new_prompt(tracker: Tracker) -> None:
    campaign = Campaign(tracker, three_clips())
    list(campaign.run())
    assert [record.pace.num_pictures for record in campaign.records] == [7, 7, 7]
    speed = speed_of([record.pace for record in campaign.records], "a machine")
    assert speed is not None and speed.objects_per_picture == 2
    assert speed.pictures_per_s == pytest.approx(1000 / speed.ms_per_picture)
    assert speed_of([], "a machine") is None


def test_a_davis_folder_is_paired_with_its_pictures(tmp_path: Path, tracker: Tracker) -> None:
    for seed, name in enumerate(("bear", "camel")):
        write_davis(tmp_path, name, small_clip(seed, num_frames=5), every=2)
    bear, camel = find_material(tmp_path)
    assert (bear.name, camel.name) == ("bear", "camel") and list(bear.truth.annotated) == [0, 2, 4]
    sights = list(pursue(tracker, camel, "mask"))
    assert [sight.picture.index for sight in sights] == [0, 1, 2, 3, 4]
    assert [sight.truth is not None for sight in sights] == [True, False, True, False, True]
    assert [item.name for item in find_material(tmp_path, sequences=["camel"])] == ["camel"]
    with pytest.raises(MaskFileError, match="there is no sequence 'cow'; expected one of bear, camel"):
        find_material(tmp_path, sequences=["cow"])
    shutil.rmtree(tmp_path / "JPEGImages")
    with pytest.raises(MaskFileError, match=r"no pictures of bear; expected JPEGImages/bear or bear\.mp4"):
        find_material(tmp_path / "Annotations" / "480p" / "bear")


def test_sa_v_masklets_are_paired_with_the_video_and_may_overlap(tmp_path: Path, tracker: Tracker) -> None:
    write_sav(tmp_path, num_frames=9)
    (material,) = find_material(tmp_path)
    assert material.name == "sav_000001" and list(material.truth.annotated) == [0, 4, 8]
    shelf = Shelf(tmp_path / "out")
    shelf.open(SETTINGS)
    campaign = Campaign(tracker, [material], shelf=shelf)
    list(campaign.run())
    assert campaign.records[0].score is not None and campaign.records[0].score.frames == (4,)
    folders = sorted(path.name for path in (tmp_path / "out" / "sav_000001").iterdir())
    assert folders == ["000", "001"], "a folder for each object, whose masks may overlap, as in SA-V"
    assert len(masks_in(tmp_path / "out")) == 2 * 9


def test_generated_clips_are_of_seeds_that_no_training_draws() -> None:
    third = find_material("generated:3")[2]
    expected = clip_material(SyntheticClip(ClipSpec(EVALUATION_SEEDS[2])))
    (one, *_), (other, *_) = (list(item.open_footage().pictures(59)) for item in (third, expected))
    assert third.name == "generated-2" and np.array_equal(one.image_hwc, other.image_hwc)
    assert not any(seed in TRAINING_SEEDS or seed in VALIDATION_SEEDS for seed in EVALUATION_SEEDS)
    assert generated_material(1, like=ClipSpec(0, num_frames=3))[0].truth.num_frames == 3
    with pytest.raises(MaskFileError, match="generated:0: expected 1 to 1000 clips"):
        find_material("generated:0")


def frames_of(material: Material) -> list[LabelledFrame]:
    return [material.truth.frame(index) for index in material.truth.annotated]


def write_sav(folder: Path, *, num_frames: int) -> None:
    """One video with two masklets at every fourth picture, numbered from 0 as in SA-V."""
    write_clip(folder / "sav_000001.mp4", num_frames)
    masklet = [[msgspec.to_builtins(rle_of(mask)) for mask in CLIP.masks(index)] for index in range(0, num_frames, 4)]
    told = {"video_id": "sav_000001", "video_frame_count": float(num_frames), "masklet": masklet, "masklet_id": [0, 1]}
    sizes = {"video_height": float(SIZE[0]), "video_width": float(SIZE[1])}
    (folder / "sav_000001_manual.json").write_text(json.dumps({**told, **sizes}))
