"""J and F equal DAVIS' own evaluation, IoU and mAP pycocotools'; odd masks get the figures that the docs promise."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stream.masksets import open_masks
from stream.quality import Scoring, SequenceScore, score_sequence, summarise
from stream.quality.assignment import best_assignment
from stream.quality.blob import blob_of, iou, num_both
from stream.quality.boundary import boundary_f, boundary_of, radius_of
from stream.quality.statistics import statistics_of
from stream.sequence import LabelledFrame, MaskFileError

GOLDEN = Path(__file__).parent / "golden" / "quality"
FIGURES = json.loads((GOLDEN / "figures.json").read_text(encoding="utf-8"))
SIZE = (24, 30)


@dataclass(frozen=True)
class InMemory:
    """Masks as a sequence."""

    frames: Mapping[int, LabelledFrame]
    labels: Mapping[int, str] = field(default_factory=dict)
    name: str = "clip"
    size: tuple[int, int] = SIZE

    @property
    def annotated(self) -> list[int]:
        return sorted(self.frames)

    @property
    def num_frames(self) -> int:
        return max(self.frames) + 1

    def frame(self, index: int) -> LabelledFrame:
        return self.frames[index]


def box(top: int, left: int, height: int = 8, width: int = 8) -> np.ndarray:
    mask_hw = np.zeros(SIZE, bool)
    mask_hw[top : top + height, left : left + width] = True
    return mask_hw


NOTHING = np.zeros(SIZE, bool)


def video(*pictures: Mapping[int, np.ndarray], **more: object) -> InMemory:
    return InMemory({index: LabelledFrame(index, masks) for index, masks in enumerate(pictures)}, **more)


def golden(name: str) -> SequenceScore:
    truth, predicted = (open_masks(GOLDEN / f"{name}.{which}.jsonl")[0] for which in ("truth", "predicted"))
    if FIGURES[name]["task"] == "unsupervised":
        return score_sequence(predicted, truth, Scoring(match="best", skip_ends=False))
    return score_sequence(predicted, truth)


@pytest.mark.parametrize("name", ["plain", "hard", "large", "short", "swapped"])
def test_j_and_f_are_those_of_the_davis_2017_evaluation(name: str) -> None:
    score, expected = golden(name), FIGURES[name]
    assert [item.id for item in score.objects] == list(range(1, len(expected["j"]) + 1))
    objects = sorted(score.objects, key=lambda item: item.predicted_id)  # as the unsupervised task has them
    for item, j, f in zip(objects, expected["j"], expected["f"], strict=True):
        assert item.j == pytest.approx(j, abs=1e-9)
        assert item.f == pytest.approx(f, abs=1e-9)
    for measure, found in (("j", [item.region for item in objects]), ("f", [item.boundary for item in objects])):
        figures = [(item.mean, item.recall, item.decay) for item in found]
        assert np.asarray(figures) == pytest.approx(np.asarray(expected["statistics"][measure]), abs=1e-9)


def test_the_summary_is_the_mean_over_objects_of_all_sequences() -> None:
    names = ("plain", "hard", "large", "short")
    summary = summarise([golden(name) for name in names])
    assert summary is not None
    for measure, found in (("j", summary.j), ("f", summary.f)):
        rows = [row for name in names for row in FIGURES[name]["statistics"][measure]]
        assert (found.mean, found.recall, found.decay) == pytest.approx(np.mean(rows, axis=0), abs=1e-9)
    assert summary.j_and_f == pytest.approx((summary.j.mean + summary.f.mean) / 2)
    assert (summary.num_objects, summary.num_sequences) == (2 + 4 + 2 + 2, 4)


masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(masks, st.integers(1, 9))
def test_a_distance_finds_what_dilation_with_a_disk_finds(mask_hw: np.ndarray, radius: int) -> None:
    edge_hw = boundary_of(mask_hw)
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
    dilated = cv2.dilate(edge_hw.astype(np.uint8), disk) > 0
    if edge_hw.any():
        away = cv2.distanceTransform((~edge_hw).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.array_equal(away <= np.sqrt(radius * radius + 0.5), dilated)


@given(st.data())
def test_cutting_masks_to_their_boxes_changes_no_figure(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(2, 30), st.integers(2, 30)))
    one, other = (data.draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    a, b = blob_of(one), blob_of(other)
    assert num_both(a, b) == int((one & other).sum())
    assert a.area == int(one.sum())
    assert iou(a, b) == (((one & other).sum() / (one | other).sum()) if (one | other).any() else 1.0)
    assert np.array_equal(a.window(0, 0, size=shape), one)
    big = tuple(side + 50 for side in shape)  # far from the borders a wide margin of nothing changes no F
    wide = [np.pad(mask_hw, 25) for mask_hw in (one, other)]
    assert boundary_f(blob_of(wide[0]), blob_of(wide[1]), big) == boundary_f(blob_of(wide[1]), blob_of(wide[0]), big)


@pytest.mark.parametrize("size, radius", [((480, 854), 8), ((1080, 1920), 18), ((90, 120), 2)])
def test_boundaries_agree_within_eight_thousandths_of_the_diagonal(size: tuple[int, int], radius: int) -> None:
    assert radius_of(size) == radius


def test_decay_is_right_beyond_eight_bits() -> None:
    values = np.linspace(1, 0, 401)
    assert statistics_of(values.tolist()).decay == pytest.approx(0.75)


def test_two_empty_masks_agree_and_an_empty_one_misses_everything() -> None:
    truth = video({1: box(2, 2)}, {1: NOTHING}, {1: box(2, 2)}, {}, {1: box(2, 2)}, {1: box(2, 2)})
    predicted = video({}, {}, {}, {1: box(9, 9)}, {1: box(2, 2)}, {})
    (item,) = score_sequence(predicted, truth, Scoring(match="ids")).objects
    assert item.j == (1.0, 0.0, 0.0, 1.0)
    assert item.f == (1.0, 0.0, 0.0, 1.0)
    assert (item.precisions(), item.recalls()) == ([1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0])
    assert item.f1s() == [1.0, 0.0, 0.0, 1.0]


def test_an_object_that_the_prediction_never_has_counts_as_missed() -> None:
    truth = video(*[{1: box(2, 2), 2: box(12, 12)}] * 4)
    score = score_sequence(video(*[{1: box(2, 2)}] * 4), truth)
    assert [item.region.mean for item in score.objects] == [1.0, 0.0]


def test_objects_that_truth_does_not_have_are_named_and_cost_precision_only() -> None:
    truth = video(*[{1: box(2, 2)}] * 4)
    score = score_sequence(video(*[{1: box(2, 2), 7: box(12, 12)}] * 4), truth)
    summary = summarise([score])
    assert summary is not None
    assert (score.unmatched, summary.j.mean) == ((7,), 1.0)


@pytest.mark.parametrize("sure, ap", [({1: 0.9, 7: 0.1}, 1.0), ({1: 0.1, 7: 0.9}, 0.5)])
def test_what_the_tracker_is_sure_of_comes_first_in_precision(sure: dict[int, float], ap: float) -> None:
    truth, masks = video(*[{1: box(2, 2)}] * 4), {1: box(2, 2), 7: box(12, 12)}
    found = InMemory({index: LabelledFrame(index, masks, sure) for index in range(4)})
    summary = summarise([score_sequence(found, truth)])
    assert summary is not None and summary.map is not None
    assert summary.map.ap == pytest.approx(ap)


def test_ids_that_truth_does_not_know_are_matched_by_what_they_cover() -> None:
    truth = video(*[{1: box(2, 2), 2: box(12, 12)}] * 4)
    predicted = video(*[{8: box(12, 13), 9: box(2, 2), 10: box(2, 20)}] * 4)
    score = score_sequence(predicted, truth)
    assert [(item.id, item.predicted_id) for item in score.objects] == [(1, 9), (2, 8)]
    assert score.unmatched == (10,)
    given = score_sequence(predicted, truth, Scoring(match="ids"))
    assert [item.region.mean for item in given.objects] == [0.0, 0.0]


def test_an_object_is_judged_from_the_picture_after_its_first() -> None:
    first, both = {1: box(2, 2)}, {1: box(2, 2), 2: box(12, 12)}
    score = score_sequence(video(*[first] * 6), video(first, first, both, both, both, both))
    assert [item.frames for item in score.objects] == [(1, 2, 3, 4), (3, 4)]
    late = score_sequence(video(*[first] * 4), video(first, first, first, both))
    assert [item.id for item in late.objects] == [1]


def test_pictures_that_are_not_annotated_say_nothing_and_missing_ones_count_as_empty() -> None:
    truth = InMemory({index: LabelledFrame(index, {1: box(2, 2)}) for index in (0, 4, 8, 12)})
    predicted = InMemory({index: LabelledFrame(index, {1: box(2, 2)}) for index in (0, 1, 2, 3, 4, 5)})
    score = score_sequence(predicted, truth)
    assert (score.frames, score.objects[0].j, score.num_missing) == ((4, 8), (1.0, 0.0), 1)


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    truth = video(*[{1: box(2, 2)}] * 4)
    small = InMemory({1: LabelledFrame(1, {1: np.ones((3, 4), bool)})}, size=(3, 4))
    with pytest.raises(MaskFileError, match=r"is 3 x 4 pixels high and wide, expected truth's 24 x 30"):
        score_sequence(small, truth)
    with pytest.raises(MaskFileError, match=r"a mask of 3 x 4 pixels, expected truth's 24 x 30"):
        score_sequence(InMemory(small.frames), truth)
    with pytest.raises(MaskFileError, match=r"has 1 annotated pictures, expected at least 3"):
        score_sequence(truth, video({1: box(2, 2)}))
    with pytest.raises(MaskFileError, match=r"has none of the pictures to score, expected 1 to 2"):
        score_sequence(video({1: box(2, 2)}), truth)


def test_a_score_survives_json() -> None:
    score = golden("hard")
    assert msgspec.json.decode(msgspec.json.encode(score), type=SequenceScore) == score
    (worst,) = score.worst(1)
    assert worst[2] == min(j for item in score.objects for j in item.j)


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(0, 5)), elements=st.floats(0, 1)))
def test_the_best_assignment_is_the_best_of_all(gains_rc: np.ndarray) -> None:
    pairs = best_assignment(gains_rc)
    num_rows, num_columns = gains_rc.shape
    assert len(pairs) == min(num_rows, num_columns)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    table = gains_rc if num_rows <= num_columns else gains_rc.T
    orders = itertools.permutations(range(table.shape[1]), table.shape[0])
    best = max(sum(table[row, column] for row, column in enumerate(order)) for order in orders)
    assert sum(gains_rc[pair] for pair in pairs) == pytest.approx(best)


def scattered(seed: int, num_pictures: int = 12) -> tuple[InMemory, InMemory]:
    """Labelled boxes, and detections with confidences: near, far, doubled, and of labels that truth does not have."""
    rng = np.random.default_rng(seed)
    labels = {1: "cup", 2: "cup", 3: "dog", 4: "cup"}
    found_labels = {1: "cup", 2: "cup", 3: "dog", 4: "dog", 5: "cup", 6: "fox"}
    truth, found = {}, {}
    for index in range(num_pictures):
        places = {key: rng.integers(0, 14, 2) for key in labels if rng.random() < 0.8}
        truth[index] = LabelledFrame(index, {key: box(*place) for key, place in places.items()})
        masks, sure = {}, {}
        for key in found_labels:
            near = places.get(key, rng.integers(0, 14, 2)) + rng.integers(-1, 2, 2) * (rng.random() < 0.7)
            if rng.random() < 0.8:
                masks[key] = box(*np.maximum(near, 0), *(8 + rng.integers(0, 2, 2)))
                sure[key] = round(float(rng.random()), 1)  # equal ones, too
        found[index] = LabelledFrame(index, masks, sure)
    return InMemory(truth, labels), InMemory(found, found_labels)


def rle(mask_hw: np.ndarray) -> dict[str, object]:
    return coco_masks.encode(np.asfortranarray(mask_hw.astype(np.uint8)))


def coco_figures(truth: InMemory, found: InMemory) -> dict[str, list[float]]:
    """AP of each label at each threshold, by COCOeval with pictures as images."""
    categories = {name: key for key, name in enumerate(sorted({*truth.labels.values(), *found.labels.values()}), 1)}
    annotations, results = [], []
    for index in truth.annotated[1:-1]:
        for key, mask_hw in truth.frame(index).masks.items():
            item = {"image_id": index, "category_id": categories[truth.labels[key]], "segmentation": rle(mask_hw)}
            annotations.append(item | {"id": len(annotations) + 1, "area": int(mask_hw.sum()), "iscrowd": 0})
        for key, mask_hw in found.frame(index).masks.items():
            item = {"image_id": index, "category_id": categories[found.labels[key]], "segmentation": rle(mask_hw)}
            results.append(item | {"score": found.frame(index).confidences[key]})
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": index, "height": SIZE[0], "width": SIZE[1]} for index in truth.annotated[1:-1]],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for name, key in categories.items()],
    }
    dataset.createIndex()
    evaluation = COCOeval(dataset, dataset.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    precision_trkam = evaluation.eval["precision"]
    return {name: precision_trkam[:, :, key - 1, 0, -1].mean(axis=1).tolist() for name, key in categories.items()}


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_cocoeval(seed: int) -> None:
    truth, found = scattered(seed)
    expected = coco_figures(truth, found)
    summary = summarise([score_sequence(found, truth)])
    assert summary is not None and summary.map is not None
    assert expected.pop("fox") == [-1.0] * 10  # truth has none: no figure
    assert summary.map_per_label.keys() == expected.keys()
    for label, values in expected.items():
        got = summary.map_per_label[label]
        assert (got.ap, got.ap50, got.ap75) == pytest.approx((np.mean(values), values[0], values[5]), abs=1e-9)
    assert summary.map.ap == pytest.approx(np.mean([np.mean(values) for values in expected.values()]), abs=1e-9)


@given(st.data())
def test_iou_is_that_of_pycocotools(data: st.DataObject) -> None:
    one, other = (data.draw(hnp.arrays(np.bool_, (9, 7))) for _ in range(2))
    if one.any() or other.any():
        assert iou(blob_of(one), blob_of(other)) == pytest.approx(
            coco_masks.iou([rle(one)], [rle(other)], [0])[0, 0], abs=1e-9
        )
