"""Masks come back as they were written, from every format; what is broken or unknown is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_masks

from stream import wire
from stream.frame import Masks, ObjectState
from stream.masksets import (
    DavisWriter,
    LineSequence,
    ObjectWriter,
    Rle,
    RleLine,
    RleObject,
    RleWriter,
    bits_of,
    confidence,
    footage_of,
    labelled,
    line_of,
    open_masks,
    place_like,
    read_indexed,
    rle_of,
)
from stream.recording import Record, RecordingWriter
from stream.sequence import MaskFileError, MaskSequence

HEIGHT, WIDTH = SIZE = (21, 34)
Masking = Mapping[int, np.ndarray]


def box(top: int, left: int, height: int = 8, width: int = 8) -> np.ndarray:
    mask_hw = np.zeros(SIZE, bool)
    mask_hw[top : top + height, left : left + width] = True
    return mask_hw


VIDEO: list[Masking] = [{1: box(2, 2 + index), 2: box(12, 20 - index)} for index in range(5)]


def assert_holds(sequence: MaskSequence, pictures: list[Masking], step: int = 1) -> None:
    assert list(sequence.annotated) == list(range(0, len(pictures) * step, step))
    assert sequence.size == SIZE
    for place, expected in enumerate(pictures):
        frame = sequence.frame(place * step)
        found = {key: mask_hw for key, mask_hw in frame.masks.items() if mask_hw.any()}
        assert frame.index == place * step
        assert found.keys() == expected.keys()
        assert all(mask_hw.dtype == np.bool_ for mask_hw in found.values())
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def write_davis(folder: Path, pictures: list[Masking] = VIDEO, step: int = 1) -> Path:
    writer = DavisWriter(folder)
    for place, masks in enumerate(pictures):
        writer.put(place * step, masks, size=SIZE)
    return folder


def write_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f"{name}.jpg")


def coco_rle(mask_hw: np.ndarray) -> dict[str, object]:
    encoded = coco_masks.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def line(index: int, masks: Masking) -> RleLine:
    objects = tuple(
        RleObject(id=key, label="cup", rle=rle_of(mask_hw), confidence=0.5) for key, mask_hw in masks.items()
    )
    return RleLine(index=index, time_s=index / 10, height=HEIGHT, width=WIDTH, objects=objects)


def write_lines(path: Path, indices: range = range(5)) -> Path:
    with RleWriter(path) as writer:
        for index in indices:
            writer.put(line(index, VIDEO[index]))
    return path


# --- run-length masks ---


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_run_lengths_are_letter_for_letter_those_of_pycocotools(mask_hw: np.ndarray) -> None:
    rle = rle_of(mask_hw)
    assert {"size": list(rle.size), "counts": rle.counts} == coco_rle(mask_hw)
    assert np.array_equal(bits_of(rle, "here"), mask_hw)
    flat = mask_hw.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    assert np.array_equal(bits_of(Rle(rle.size, [0, *runs] if flat[0] else runs), "here"), mask_hw)


@pytest.mark.parametrize(
    "rle, words",
    [
        (Rle((3, 4), "!!"), "outside"),
        (Rle((3, 4), "é"), "ascii"),
        (Rle((3, 4), "3"), "cover 3 pixels"),
        (Rle((3, 4), [5, 6]), "cover 11 pixels, expected 3 x 4"),
        (Rle((3, 4), [15, -3]), "expected 3 x 4"),
        (Rle((3, 400_000), "0"), "3 x 400000"),
        (Rle((0, 4), "0"), "0 x 4"),
    ],
)
def test_a_broken_run_length_is_named(rle: Rle, words: str) -> None:
    with pytest.raises(MaskFileError, match=words) as told:
        bits_of(rle, "file.json, picture 3")
    assert str(told.value).startswith("file.json, picture 3: ")


# --- folders of PNG ---


@pytest.mark.parametrize("inner", ["clip", "Annotations/clip", "Annotations/480p/clip", "Annotations_x/clip"])
def test_a_davis_folder_is_found_at_every_level(tmp_path: Path, inner: str) -> None:
    write_davis(tmp_path / inner)
    for path in [tmp_path / inner, *(tmp_path / inner).parents][: len(Path(inner).parts) + 1]:
        (sequence,) = open_masks(path)
        assert sequence.name == "clip"
        assert_holds(sequence, VIDEO)


def test_sequences_come_by_name_and_one_can_be_asked_for(tmp_path: Path) -> None:
    for name in ("clip10", "clip2", ".hidden"):
        write_davis(tmp_path / name)
    assert [item.name for item in open_masks(tmp_path)] == ["clip2", "clip10"]
    assert [item.name for item in open_masks(tmp_path, sequence="clip10")] == ["clip10"]
    with pytest.raises(MaskFileError, match=r"has no sequence 'bear', expected one of clip2, clip10"):
        open_masks(tmp_path, sequence="bear")


def test_pictures_beside_the_masks_say_where_each_belongs(tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(1, 12)]  # from 1, and more than are annotated
    write_pictures(tmp_path / "JPEGImages" / "480p" / "clip", names)
    folder = tmp_path / "Annotations" / "480p" / "clip"
    writer = DavisWriter(folder)
    for place, masks in enumerate(VIDEO):
        writer.put(0, masks, size=SIZE, name=names[2 * place])
    (truth,) = open_masks(tmp_path)
    assert_holds(truth, VIDEO, step=2)
    assert (truth.num_frames, footage_of(truth)) == (11, tmp_path / "JPEGImages" / "480p" / "clip")
    (other,) = open_masks(write_davis(tmp_path / "other" / "clip"))
    assert place_like(other, truth) is other  # 00000 is no name of truth's: nothing to go by
    folder.rename(tmp_path / "clip")
    (alone,) = open_masks(tmp_path / "clip")
    assert alone.annotated == (1, 3, 5, 7, 9)
    assert_holds(place_like(alone, truth), VIDEO, step=2)


def test_a_mask_without_its_picture_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "JPEGImages" / "clip", ["00000", "00001"])
    write_davis(tmp_path / "Annotations" / "clip")
    with pytest.raises(MaskFileError, match=r"mask 00002 has no picture of its name"):
        open_masks(tmp_path)


def test_without_pictures_the_number_in_the_name_is_the_place_unless_it_is_a_time(tmp_path: Path) -> None:
    assert_holds(open_masks(write_davis(tmp_path / "sparse", step=4))[0], VIDEO, step=4)
    writer = DavisWriter(tmp_path / "times")
    for place, masks in enumerate(VIDEO):
        writer.put(0, masks, size=SIZE, name=str(1_700_000_000_000 + 40 * place))
    assert_holds(open_masks(tmp_path / "times")[0], VIDEO)


def test_folders_for_each_object_keep_what_overlaps(tmp_path: Path) -> None:
    pictures = [{0: box(2, 2), 1: box(4, 4)}, {0: box(2, 2)}, {1: box(4, 4)}]
    writer = ObjectWriter(tmp_path / "Annotations_6fps" / "sav_1")
    for place, masks in enumerate(pictures):
        writer.put(4 * place, masks, size=SIZE)
    (sequence,) = open_masks(tmp_path)
    assert_holds(sequence, pictures, step=4)
    for path in tmp_path.rglob("*.png"):  # the data set has 0 and 255
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)
    assert_holds(open_masks(tmp_path)[0], pictures, step=4)


def test_the_palette_is_that_of_davis_and_the_lowest_id_wins(tmp_path: Path) -> None:
    path = DavisWriter(tmp_path).put(7, {3: box(2, 2), 1: box(6, 6)}, size=SIZE)
    assert path.name == "00007.png"
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        ids_hw = np.asarray(picture)
    assert (ids_hw[3, 3], ids_hw[7, 7], ids_hw[0, 0]) == (3, 1, 0)


@pytest.mark.parametrize("object_id", [0, 255, 1000])
def test_an_id_that_no_indexed_png_can_hold_is_refused(tmp_path: Path, object_id: int) -> None:
    with pytest.raises(MaskFileError, match=f"object id {object_id} does not fit an indexed PNG, expected 1 to 254"):
        DavisWriter(tmp_path).put(0, {object_id: box(2, 2)}, size=SIZE)
    assert not list(tmp_path.iterdir())


def test_void_is_background_and_a_grey_mask_of_one_object_is_object_one(tmp_path: Path) -> None:
    ids_hw = np.zeros(SIZE, np.uint8)
    ids_hw[:4], ids_hw[4:8] = 2, 255
    Image.fromarray(ids_hw).save(tmp_path / "void.png")
    assert {key: int(mask_hw.sum()) for key, mask_hw in read_indexed(tmp_path / "void.png").items()} == {2: 4 * WIDTH}
    Image.fromarray(box(2, 2).astype(np.uint8) * 255).save(tmp_path / "grey.png")
    Image.fromarray(box(2, 2)).save(tmp_path / "bits.png")
    Image.fromarray(box(2, 2).astype(np.uint16) * 1000).save(tmp_path / "deep.png")
    for name, object_id in (("grey", 1), ("bits", 1), ("deep", 1000)):
        (sequence,) = open_masks(tmp_path / f"{name}.png")
        assert_holds(sequence, [{object_id: box(2, 2)}])


def test_a_picture_that_is_no_mask_is_told_in_one_line(tmp_path: Path) -> None:
    write_davis(tmp_path / "clip")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "clip" / "00001.png")
    whole = (tmp_path / "clip" / "00002.png").read_bytes()
    (tmp_path / "clip" / "00002.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "clip" / "00003.png").write_bytes(b"")
    (sequence,) = open_masks(tmp_path)
    for index, words in ((1, r"has colours \(RGB\)"), (2, "cannot be read"), (3, "cannot be read")):
        with pytest.raises(MaskFileError, match=words) as told:
            sequence.frame(index)
        assert f"{index:05d}.png" in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(KeyError):
        sequence.frame(9)


# --- JSON lines ---


def test_lines_come_back_with_labels_and_confidences(tmp_path: Path) -> None:
    (sequence,) = open_masks(write_lines(tmp_path / "clip.jsonl"))
    assert_holds(sequence, VIDEO)
    assert (sequence.name, sequence.labels) == ("clip", {1: "cup", 2: "cup"})
    assert sequence.frame(3).confidences == {1: 0.5, 2: 0.5}
    assert isinstance(sequence, LineSequence) and sequence.line(2) == line(2, VIDEO[2])


def test_a_line_is_written_as_the_specification_has_it(tmp_path: Path) -> None:
    written = json.loads(write_lines(tmp_path / "clip.jsonl").read_text().splitlines()[1])
    assert list(written) == ["index", "time_s", "height", "width", "objects"]
    assert list(written["objects"][0]) == ["id", "label", "rle", "confidence", "score", "iou", "state"]
    assert written["objects"][0]["rle"] == coco_rle(VIDEO[1][1])


@pytest.mark.parametrize("resume_at", [0, 2, 5, 9])
def test_a_file_that_goes_on_after_a_kill_equals_an_undisturbed_one(tmp_path: Path, resume_at: int) -> None:
    whole = write_lines(tmp_path / "whole.jsonl").read_bytes()
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(whole[:-30])  # the last line was cut short
    with RleWriter(torn, resume_at=resume_at) as writer:
        first = 0 if writer.last_index is None else writer.last_index + 1
        assert first == min(resume_at, 4)
        for index in range(first, 5):
            writer.put(line(index, VIDEO[index]))
    assert torn.read_bytes() == whole


def test_a_new_file_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "clip.jsonl")
    assert_holds(open_masks(write_lines(path, range(2)))[0], VIDEO[:2])


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "clip.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert_holds(open_masks(path)[0], VIDEO[:4])
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"index": 1, "height"\n', *lines[2:]]))
    with pytest.raises(MaskFileError, match=r"clip.jsonl, line 2: "):
        open_masks(path)
    path.write_bytes(lines[0].replace(b'"counts":"', b'"counts":"!'))
    with pytest.raises(MaskFileError, match=r"clip.jsonl, picture 0, object 1: "):
        open_masks(path)[0].frame(0)


def test_what_the_tracker_says_is_written_and_read_alike(tmp_path: Path) -> None:
    masks_nhw = np.stack([box(2, 3), np.zeros(SIZE, bool)])
    masks = Masks(
        height=HEIGHT, width=WIDTH, object_ids=(4, 9), states=(ObjectState.TRACKED, ObjectState.LOST),
        scores=np.array([2.0, -5.0], np.float32), ious=np.array([0.9, np.nan], np.float32),
        boxes_n4=np.array([[3, 2, 11, 10], [0, 0, 0, 0]], np.int32), areas=np.array([64, 0]),
        centroids_n2=np.zeros((2, 2), np.float32), packed_nhb=np.packbits(masks_nhw, axis=2),
    )  # fmt: skip
    with RleWriter(tmp_path / "clip.jsonl") as writer:
        writer.put(line_of(masks, 6, time_s=0.25, labels={4: "cup"}))
    (sequence,) = open_masks(tmp_path)
    read, direct = sequence.frame(6), labelled(masks, 6)
    assert read.masks.keys() == direct.masks.keys() == {4, 9}
    assert all(np.array_equal(read.masks[key], direct.masks[key]) for key in (4, 9))
    assert read.confidences == pytest.approx({4: 0.9 / (1 + np.exp(-2.0)), 9: 0.0}, abs=1e-6)
    assert direct.confidences == pytest.approx(read.confidences, abs=1e-6)
    assert sequence.labels == {4: "cup"}
    assert isinstance(sequence, LineSequence) and [item.state for item in sequence.line(6).objects] == [
        "tracked",
        "lost",
    ]


def test_confidence_is_the_sigmoid_of_the_score_times_the_predicted_iou() -> None:
    assert confidence(0.0, 0.8) == pytest.approx(0.4)
    assert (confidence(float("inf"), 1.5), confidence(-1e9, 1.0)) == (pytest.approx(1.0), pytest.approx(0.0))
    assert confidence(float("nan"), 0.5) == 0.0


# --- JSON of data sets ---


def sav_json(pictures: list[Masking]) -> dict[str, object]:
    empty = np.zeros(SIZE, bool)
    return {
        "video_id": "sav_7", "video_frame_count": 19.0, "video_height": float(HEIGHT), "video_width": float(WIDTH),
        "masklet_id": [0, 2], "masklet_num": 2,
        "masklet": [[coco_rle(masks.get(key, empty)) for key in (0, 2)] for masks in pictures],
    }  # fmt: skip


def test_masklets_of_sav_lie_at_every_fourth_picture(tmp_path: Path) -> None:
    pictures = [{0: box(2, 2), 2: box(5, 6)}, {0: box(2, 3)}, {}, {2: box(5, 6)}]
    for end in ("manual", "auto"):
        (tmp_path / f"sav_7_{end}.json").write_text(json.dumps(sav_json(pictures)))
    (tmp_path / "sav_8_auto.json").write_text(json.dumps(sav_json(pictures)))
    (tmp_path / "sav_7.mp4").touch()
    first, second = open_masks(tmp_path)  # the automatic masklets of sav_7 are left out
    assert (first.name, second.name, footage_of(first), footage_of(second)) == (
        "sav_7", "sav_8", tmp_path / "sav_7.mp4", None,
    )  # fmt: skip
    assert_holds(first, pictures, step=4)
    assert first.num_frames == 19
    with pytest.raises(KeyError):
        first.frame(2)


def test_a_masklet_without_its_id_is_named(tmp_path: Path) -> None:
    broken = sav_json([{0: box(2, 2)}]) | {"masklet_id": [0]}
    (tmp_path / "a_manual.json").write_text(json.dumps(broken))
    with pytest.raises(MaskFileError, match=r"picture 0: 2 masks, expected 1 as in masklet_id"):
        open_masks(tmp_path)[0].frame(0)
    (tmp_path / "a_manual.json").write_text("{}")
    with pytest.raises(MaskFileError, match=r"a_manual.json: .*expected SA-V's JSON"):
        assert open_masks(tmp_path)[0].size


def test_coco_annotations_with_tracks_are_sequences(tmp_path: Path) -> None:
    document = {
        "videos": [{"id": 5, "name": "left cam"}],
        "images": [{"id": 100 - index, "video_id": 5, "frame_id": index} for index in range(5)],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 100 - index, "category_id": 3, "track_id": key, "segmentation": coco_rle(mask_hw)}
            for index, masks in enumerate(VIDEO)
            for key, mask_hw in masks.items()
        ],
    }
    (tmp_path / "tracks.json").write_text(json.dumps(document))
    (sequence,) = open_masks(tmp_path / "tracks.json")
    assert (sequence.name, sequence.labels) == ("left_cam", {1: "cup", 2: "cup"})
    assert_holds(sequence, VIDEO)


def test_coco_results_without_tracks_keep_scores_and_categories(tmp_path: Path) -> None:
    items = [
        {"image_id": index, "category_id": 3, "segmentation": coco_rle(mask_hw), "score": 0.25 * key}
        for index, masks in enumerate(VIDEO)
        for key, mask_hw in masks.items()
    ]
    (tmp_path / "results.json").write_text(json.dumps(items))
    (sequence,) = open_masks(tmp_path / "results.json")
    frame = sequence.frame(4)
    assert sorted(frame.confidences.values()) == [0.25, 0.5]
    assert {sequence.labels[key] for key in frame.masks} == {"3"}
    assert any(np.array_equal(mask_hw, VIDEO[4][2]) for mask_hw in frame.masks.values())


def test_youtube_vis_has_a_list_of_masks_for_each_object(tmp_path: Path) -> None:
    pictures = [{7: box(2, 2)}, {}, {7: box(2, 4)}]
    masks = [coco_rle(picture[7]) if picture else None for picture in pictures]
    annotation = {"id": 7, "video_id": 2, "category_id": 1, "segmentations": masks}
    document = {"videos": [{"id": 2, "name": "v"}], "annotations": [annotation]}
    (tmp_path / "vis.json").write_text(json.dumps(document))
    assert_holds(open_masks(tmp_path / "vis.json")[0], pictures)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected COCO's JSON"),
        ("[]", "holds no annotation"),
        ('{"a": 1}', "expected COCO's JSON"),
        ('[{"image_id": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]}]', "is a polygon"),
        ('[{"image_id": 0, "segmentation": {"size": [2]}}]', "expected COCO's run-length encoding"),
        ('[{"image_id": "x"}]', "expected COCO's JSON"),
    ],
)
def test_json_of_another_kind_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MaskFileError, match=words) as told:
        open_masks(tmp_path / "a.json")[0].frame(0)
    assert "\n" not in str(told.value) and "a.json" in str(told.value)


# --- recordings ---


def message(seq: int, masks: Masking, *, camera: str = "left", run: int = 1, encoding: str = "bits") -> Record:
    encoder = wire.MaskEncoder(encoding)
    items = []
    for key, mask_hw in masks.items():
        ys, xs = np.nonzero(mask_hw)
        edges = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        patch = encoder.encode(np.packbits(mask_hw, axis=1), edges, width=WIDTH)
        items.append(
            wire.ObjectMask(
                id=key, label="cup", state=ObjectState.TRACKED, score=0.0, predicted_iou=0.5, box=edges,
                area=int(mask_hw.sum()), centroid=(1.0, 1.0), patch=patch,
            )
        )  # fmt: skip
    times = {
        f"{moment}{zone}_ns": 1 for moment in ("arrival", "decoded", "inferred", "published") for zone in ("", "_utc")
    }
    whole = wire.MasksMessage(
        run=run, camera=camera, epoch=0, seq=seq, frame_id="", width=WIDTH, height=HEIGHT, pts_ns=None,
        clock_source="arrival", clock_id="", num_dropped=0, model="m", backend="eager", objects=tuple(items), **times,
    )  # fmt: skip
    return Record(seq, seq, wire.encode(whole))


@pytest.mark.parametrize("encoding", ["bits", "coco_rle"])
def test_a_recording_has_a_sequence_for_each_camera(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "night.masks"
    with RecordingWriter(path) as writer:
        for index, masks in enumerate(VIDEO):
            writer.put(message(2 * index, masks, encoding=encoding))
            writer.put(message(index, {5: box(1, 1)}, camera="right", encoding=encoding))
    left, right = open_masks(path)
    assert (left.name, right.name, left.labels) == ("left", "right", {1: "cup", 2: "cup"})
    assert_holds(left, VIDEO, step=2)
    assert_holds(right, [{5: box(1, 1)}] * 5)
    assert left.frame(0).confidences == {1: 0.25, 2: 0.25}


def test_another_run_of_the_daemon_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "night.masks"
    with RecordingWriter(path) as writer:
        for index, masks in enumerate(VIDEO):
            writer.put(message(index if index < 3 else index + 40, masks, run=1 if index < 3 else 2))
    assert open_masks(path)[0].annotated == (0, 1, 2, 3, 4)


def test_a_recording_that_was_cut_short_gives_what_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "night.masks"
    with RecordingWriter(path) as writer:
        for index, masks in enumerate(VIDEO):
            writer.put(message(index, masks))
    path.write_bytes(path.read_bytes()[:-5])
    assert_holds(open_masks(path)[0], VIDEO[:4])


def test_a_recording_without_masks_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "night.masks"
    with RecordingWriter(path) as writer:
        writer.put(message(0, VIDEO[0], encoding="none"))
    with pytest.raises(MaskFileError, match="encoding none"):
        open_masks(path)[0].frame(0)
    path.write_bytes(b"something else")
    with pytest.raises(MaskFileError, match="expected b'S2MASKS'"):
        open_masks(path)


# --- recognising ---


def nothing(path: Path) -> None:
    """Leaves the path as it is: not there."""


@pytest.mark.parametrize(
    "name, make, words",
    [
        ("absent", nothing, "does not exist, expected DAVIS folders"),
        ("empty", Path.mkdir, "holds no masks, expected DAVIS folders"),
        ("movie.mp4", Path.touch, "is of no known kind, expected DAVIS folders"),
        ("none.jsonl", Path.touch, "holds no whole line"),
    ],
)
def test_what_holds_no_masks_is_told_in_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(MaskFileError, match=words) as told:
        open_masks(tmp_path / name)
    assert name in str(told.value) and "\n" not in str(told.value)


def test_files_that_are_gone_or_too_deep_are_told_in_one_line(tmp_path: Path) -> None:
    lines, recorded = write_lines(tmp_path / "clip.jsonl"), tmp_path / "clip.masks"
    with RecordingWriter(recorded) as writer:
        writer.put(message(0, VIDEO[0]))
    sav = tmp_path / "a_manual.json"
    sav.write_text(json.dumps(sav_json([{0: box(2, 2)}])))
    opened = [open_masks(path)[0] for path in (lines, recorded, sav)]
    for path in (lines, recorded, sav):
        path.unlink()
    for sequence in opened:
        with pytest.raises(MaskFileError, match="No such file"):
            sequence.frame(0)
    for name in ("deep.json", "deep_manual.json", "deep.jsonl"):
        (tmp_path / name).write_text('{"index": 0, "masklet": ' + "[" * 100_000 + "\n")
        with pytest.raises(MaskFileError, match=name):
            open_masks(tmp_path / name)[0].frame(0)
