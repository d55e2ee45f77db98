"""Writes the golden figures of `stream.quality` beside it: masks drawn here, judged by DAVIS' own evaluation code.

    git clone https://github.com/davisvideochallenge/davis2017-evaluation DAVIS
    git -C DAVIS checkout ac7c43fca936f9722837b7fbd337d284ba37004b
    pip install scikit-image scipy tqdm
    PYTHONPATH=DAVIS:. python tests/golden/quality/make.py

The figures in `figures.json` were made with that commit, unchanged, on numpy 2.4.6, scikit-image 0.26.0, scipy 1.17.1
and OpenCV 5.0.0. The masks lie in `NAME.truth.jsonl` and `NAME.predicted.jsonl` (see `stream.masksets.lines`); the
evaluation read them as indexed PNG, which Pillow wrote. None of its code is here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from stream.masksets import DavisWriter, RleLine, RleObject, RleWriter, rle_of

HERE = Path(__file__).resolve().parent
COMMIT = "ac7c43fca936f9722837b7fbd337d284ba37004b"
Ids = np.ndarray  # (height, width), uint8


def blob(ids: Ids, object_id: int, centre: tuple[float, float], *, radius: float, seed: int) -> None:
    """A star-like shape, drawn over what is there."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radii = radius * (1 + 0.35 * rng.uniform(-1, 1, angles.size))
    corners = np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], axis=1)
    cv2.fillPoly(ids, [np.round(corners).astype(np.int32)], object_id)


def shaken(ids: Ids, rng: np.random.Generator, reach: int) -> Ids:
    """What a tracker might have found: moved, with holes and specks, grown or shrunk."""
    moved = np.roll(ids, tuple(rng.integers(-reach, reach + 1, 2)), (0, 1))
    kernel = np.ones((3, 3), np.uint8)
    changed = [moved, cv2.dilate(moved, kernel), cv2.erode(moved, kernel)][int(rng.integers(3))].copy()
    for _ in range(4):
        y, x = int(rng.integers(ids.shape[0])), int(rng.integers(ids.shape[1]))
        changed[y : y + 3, x : x + 4] = int(rng.choice([0, 1, 2]))
    return changed


def plain() -> tuple[list[Ids], list[Ids]]:
    """Two objects that touch, 24 pictures."""
    rng, truth = np.random.default_rng(1), []
    for index in range(24):
        ids = np.zeros((90, 120), np.uint8)
        blob(ids, 1, (30 + 2 * index, 40), radius=18, seed=5)
        blob(ids, 2, (90 - index, 50 + index), radius=14, seed=6)
        truth.append(ids)
    return truth, [shaken(ids, rng, 2) for ids in truth]


def hard() -> tuple[list[Ids], list[Ids]]:
    """Absences, a lost object, one that was never found, a full picture, single pixels, corners and borders; decay."""
    rng, truth, predicted = np.random.default_rng(2), [], []
    for index in range(19):
        ids = np.zeros((81, 77), np.uint8)
        blob(ids, 1, (10 - index, 20), radius=15, seed=7)  # leaves at the left
        if not 7 <= index < 11:
            blob(ids, 2, (40, 40 + 2 * index), radius=12, seed=8)
        ids[2:4, 60:63] = 3
        ids[-1, -1], ids[0, -1], ids[-1, 0] = 4, 4, 4
        if index == 5:
            ids[:] = 1
        found = shaken(ids, rng, index // 4)
        found[found == 4] = 0
        if index in (9, 12):
            found[20:30, 20:30] = 2
        if index > 13:
            found[found == 3] = 0
        if index == 5:
            found[:] = 1
        if index == 6:
            found = ids.copy()
        truth.append(ids)
        predicted.append(found)
    return truth, predicted


def large() -> tuple[list[Ids], list[Ids]]:
    """The size of DAVIS, where boundaries agree within eight pixels."""
    rng, truth = np.random.default_rng(3), []
    for index in range(7):
        ids = np.zeros((480, 854), np.uint8)
        blob(ids, 1, (200 + 20 * index, 240), radius=120, seed=9)
        blob(ids, 2, (600, 100 + 50 * index), radius=70, seed=10)
        truth.append(ids)
    return truth, [shaken(ids, rng, 12) for ids in truth]


def short() -> tuple[list[Ids], list[Ids]]:
    """One picture is left to score."""
    truth, predicted = plain()
    return truth[:3], predicted[:3]


def swapped() -> tuple[list[Ids], list[Ids]]:
    """Ids that say nothing, and more objects than truth: for the unsupervised task."""
    truth, predicted = plain()
    ids = np.array([0, 3, 1], np.uint8)
    found = [ids[np.minimum(picture, 2)] for picture in predicted]
    for index, picture in enumerate(found):
        blob(picture, 2, (20, 70), radius=6 + index / 4, seed=11)
    return truth, found


SEQUENCES: dict[str, Callable[[], tuple[list[Ids], list[Ids]]]] = {
    "plain": plain,
    "hard": hard,
    "large": large,
    "short": short,
    "swapped": swapped,
}


def write_lines(path: Path, pictures: list[Ids]) -> None:
    with RleWriter(path) as writer:
        for index, ids in enumerate(pictures):
            present = [int(object_id) for object_id in np.unique(ids) if object_id]
            objects = tuple(RleObject(id=object_id, rle=rle_of(ids == object_id)) for object_id in present)
            writer.put(RleLine(index=index, height=ids.shape[0], width=ids.shape[1], objects=objects))


def write_davis(root: Path, pictures: list[Ids], name: str) -> None:
    folder = root / name
    writer = DavisWriter(folder)
    for index, ids in enumerate(pictures):
        writer.put(index, {int(key): ids == key for key in np.unique(ids) if key}, size=ids.shape)


def write_video(root: Path, truth: list[Ids], name: str) -> None:
    """The folders that the evaluation looks for."""
    for kind in ("Annotations", "Annotations_unsupervised"):
        write_davis(root / kind / "480p", truth, name)
    pictures = root / "JPEGImages" / "480p" / name
    pictures.mkdir(parents=True)
    for index, ids in enumerate(truth):
        Image.fromarray(ids).save(pictures / f"{index:05d}.jpg")


def judge(root: Path, results: Path, name: str) -> dict[str, object]:
    """Per object and picture J and F, and their mean, recall and decay."""
    from davis2017.evaluation import DAVISEvaluation
    from davis2017.results import Results
    from davis2017.utils import db_statistics

    task = "unsupervised" if name == "swapped" else "semi-supervised"
    evaluation = DAVISEvaluation(davis_root=str(root), task=task, gt_set="val", sequences=name)
    truth, void, ids = evaluation.dataset.get_all_masks(name, True)
    reader = Results(root_dir=str(results))
    if task == "unsupervised":
        j, f = evaluation._evaluate_unsupervised(truth, reader.read_masks(name, ids), void, ("J", "F"))
    else:
        found = reader.read_masks(name, ids[1:-1])
        j, f = evaluation._evaluate_semisupervised(truth[:, 1:-1], found, None, ("J", "F"))
    statistics = {
        measure: [[float(value) for value in db_statistics(row)] for row in table]
        for measure, table in (("j", j), ("f", f))
    }
    whole = evaluation.evaluate(str(results))
    for measure in "jf":  # the whole program says the same
        means = [row[0] for row in statistics[measure]]
        assert np.allclose(means, whole[measure.upper()]["M"]), (name, measure)
    return {"task": task, "j": j.tolist(), "f": f.tolist(), "statistics": statistics}


def main() -> None:
    figures: dict[str, object] = {"commit": COMMIT}
    with tempfile.TemporaryDirectory() as scratch:
        root, results = Path(scratch) / "davis", Path(scratch) / "results"
        drawn = {name: draw() for name, draw in SEQUENCES.items()}
        for name, (truth, predicted) in drawn.items():
            write_video(root, truth, name)
            write_davis(results, predicted, name)
            write_lines(HERE / f"{name}.truth.jsonl", truth)
            write_lines(HERE / f"{name}.predicted.jsonl", predicted)
        (root / "ImageSets" / "2017").mkdir(parents=True)
        (root / "ImageSets" / "2017" / "val.txt").write_text("\n".join(drawn))
        figures |= {name: judge(root, results, name) for name in drawn}
    (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
