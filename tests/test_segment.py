"""`segment`: which pictures are processed, what follows which prompt, and what each format holds."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from segment_rig import CLIP, NUM, SIZE, click, make_task, run_task, shared_tracker, write_clip

from stream.footage import open_footage
from stream.masksets import open_masks, write_indexed
from stream.prompt import PromptError
from stream.segment import (
    GivenPrompt,
    Moment,
    MomentError,
    SegmentError,
    Settings,
    find_clips,
    moment_of,
    prompts_of_clip,
)
from stream.segment.plan import plan_of
from stream.sequence import FootageError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def results(clip: Path) -> Path:
    run_task(make_task(clip, clip.parent / "results"))
    return clip.parent / "results"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_masks(clip: Path) -> list[dict[int, np.ndarray]]:
    """What the tracker alone says of the same pictures."""
    tracker = shared_tracker()
    tracker.reset()
    found = []
    for picture in open_footage(clip).pictures():
        if not picture.index:
            for prompt in (click(1), click(2)):
                tracker.add(prompt.object_id, points=prompt.points)
        masks = tracker.step(picture.image_hwc, time_ns=picture.time_ns)
        found.append(dict(zip(masks.object_ids, masks.masks_nhw, strict=True)))
    return found


def test_every_picture_has_the_trackers_masks_in_json_lines_and_indexed_png(clip: Path, results: Path) -> None:
    (said,) = open_masks(results / "clip.jsonl")
    (drawn,) = open_masks(results / "Annotations")
    assert said.annotated == drawn.annotated == tuple(range(NUM)) and said.labels == {2: "two"}
    for index, truth in enumerate(expected_masks(clip)):
        assert {i: mask.tolist() for i, mask in said.frame(index).masks.items()} == {
            i: mask.tolist() for i, mask in truth.items()
        }
        ids_hw = np.where(truth[1], 1, np.where(truth[2], 2, 0))  # where objects overlap, the lowest id
        with Image.open(results / "Annotations" / "clip" / f"{index:05d}.png") as picture:
            assert picture.mode == "P" and np.array_equal(np.asarray(picture), ids_hw)


def test_lines_tell_time_label_scores_and_state(results: Path) -> None:
    found = lines(results / "clip.jsonl")
    assert [line["index"] for line in found] == list(range(NUM))
    assert found[5]["time_s"] == pytest.approx(0.2) and (found[5]["height"], found[5]["width"]) == SIZE
    one = found[5]["objects"][0]  # type: ignore[index]
    assert {"id", "label", "rle", "confidence", "score", "iou", "state"} <= set(one)


def test_cut_outs_are_the_picture_where_an_object_is_and_transparent_elsewhere(clip: Path, results: Path) -> None:
    (said,) = open_masks(results / "clip.jsonl")
    for picture in open_footage(clip).pictures():
        any_hw = np.any(list(said.frame(picture.index).masks.values()), axis=0)
        cut = cv2.imread(str(results / "cutouts" / "clip" / f"{picture.index:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(cut[..., 3] == 255, any_hw) and set(np.unique(cut[..., 3])) <= {0, 255}
        assert np.array_equal(cut[any_hw][:, :3], picture.image_hwc[any_hw])


def test_films_show_each_picture_at_its_time(clip: Path, results: Path) -> None:
    (said,) = open_masks(results / "clip.jsonl")
    overlay, matte, cut = (
        list(open_footage(results / f"clip.{kind}").pictures()) for kind in ("overlay.mp4", "mask.mp4", "cutout.webm")
    )
    for picture in open_footage(clip).pictures():
        index, any_hw = picture.index, np.any(list(said.frame(picture.index).masks.values()), axis=0)
        white_hw = matte[index].image_hwc[..., 0] > 127
        assert (white_hw & any_hw).sum() / max(1, (white_hw | any_hw).sum()) > 0.9 or any_hw.sum() < 30
        assert abs(overlay[index].time_ns - picture.time_ns) < 1e6 and abs(cut[index].time_ns - picture.time_ns) < 1e6
        off = cv2.dilate(any_hw.astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
        assert np.abs(overlay[index].image_hwc[off].astype(int) - picture.image_hwc[off]).sum() < 36 * max(1, off.sum())
    assert len(overlay) == len(matte) == len(cut) == NUM


def test_the_webm_has_transparency(results: Path) -> None:
    with av.open(str(results / "clip.cutout.webm")) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own decoder leaves the transparency out
        frame = decoder.decode(next(container.demux(stream)))[0]
    alpha_hw = frame.to_ndarray(format="bgra")[..., 3]
    with Image.open(results / "Annotations" / "clip" / "00000.png") as picture:
        any_hw = np.asarray(picture) > 0
    assert ((alpha_hw > 127) == any_hw).mean() > 0.99


def test_every_start_and_end_choose_the_pictures_and_keep_their_numbers(clip: Path, tmp_path: Path) -> None:
    chosen = {"start": moment_of("0.2"), "end": moment_of("17f"), "every": 4, "formats": ("rle", "davis")}
    summary = run_task(make_task(clip, tmp_path, click(), **chosen))
    assert [line["index"] for line in lines(tmp_path / "clip.jsonl")] == [5, 9, 13]
    assert sorted(path.stem for path in tmp_path.rglob("*.png")) == ["00005", "00009", "00013"]
    assert (summary.num_pictures, summary.first_index, summary.last_index) == (3, 5, 13)


def test_an_object_may_come_later_and_be_corrected_later(clip: Path, tmp_path: Path) -> None:
    later = click(2, moment=Moment(frame=7))
    correction = GivenPrompt(1, moment=Moment(frame=10), box=(20.0, 20.0, 60.0, 60.0))
    run_task(make_task(clip, tmp_path, click(1), later, correction, every=2, formats=("rle",)))
    run_task(make_task(clip, tmp_path / "without", click(1), later, every=2, formats=("rle",)))
    found, without = lines(tmp_path / "clip.jsonl"), lines(tmp_path / "without" / "clip.jsonl")
    ids = {line["index"]: [item["id"] for item in line["objects"]] for line in found}  # type: ignore[attr-defined]
    assert ids == {index: [1] if index < 7 else [1, 2] for index in sorted({*range(0, NUM, 2), 7})}
    changed = [line["index"] for line, other in zip(found, without, strict=True) if line != other]
    assert changed and min(changed) == 10  # type: ignore[type-var]


def test_pictures_before_the_first_prompt_are_empty(clip: Path, tmp_path: Path) -> None:
    run_task(make_task(clip, tmp_path, click(1, moment=Moment(time_ns=400_000_000)), formats=("rle", "davis")))
    found = lines(tmp_path / "clip.jsonl")
    assert [len(line["objects"]) for line in found] == [0] * 10 + [1] * (NUM - 10)  # type: ignore[arg-type]
    assert len(list(tmp_path.rglob("*.png"))) == NUM


def test_pictures_of_a_folder_give_their_names_to_the_results(clip: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for index in range(4):
        cv2.imwrite(str(shots / f"shot_{index + 8}.png"), CLIP.frame(index))
    run_task(make_task(shots, tmp_path / "out", click(), formats=("davis", "cutout-png")))
    names = {"shot_8", "shot_9", "shot_10", "shot_11"}
    assert {p.stem for p in (tmp_path / "out" / "Annotations" / "shots").iterdir()} == names
    assert {p.stem for p in (tmp_path / "out" / "cutouts" / "shots").iterdir()} == names


def test_a_change_of_size_in_the_middle_gives_masks_of_each_picture_s_own_size(tmp_path: Path) -> None:
    parts = [write_clip(tmp_path / "a.h264", 4), tmp_path / "b.h264"]
    with av.open(str(parts[1]), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
        for index in range(4, 8):
            large = cv2.resize(CLIP.frame(index), (176, 144))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, "bgr24")))
        container.mux(stream.encode())
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    run_task(make_task(both, tmp_path / "out"))
    sizes = [(line["height"], line["width"]) for line in lines(tmp_path / "out" / "both.jsonl")]
    assert sizes == [SIZE] * 4 + [(144, 176)] * 4
    film = list(open_footage(tmp_path / "out" / "both.overlay.mp4").pictures())
    assert len(film) == 8 and {picture.image_hwc.shape[:2] for picture in film} == {SIZE}


def test_a_mask_of_the_first_picture_brings_all_its_objects(clip: Path, tmp_path: Path) -> None:
    masks = CLIP.masks(0)
    davis = tmp_path / "Annotations" / "clip" / "00000.png"
    davis.parent.mkdir(parents=True)
    for path in (tmp_path / "clip.png", davis):
        write_indexed(path, np.where(masks[0], 3, np.where(masks[1], 7, 0)).astype(np.uint8))
    write_indexed(davis.with_name("00001.png"), np.zeros(SIZE, np.uint8))
    for place in (tmp_path / "clip.png", tmp_path, tmp_path / "Annotations"):
        prompts = prompts_of_clip(place, "clip")
        assert [(prompt.object_id, prompt.load(SIZE).mask_hw.sum()) for prompt in prompts] == [  # type: ignore[union-attr]
            (3, masks[0].sum()), (7, (masks[1] & ~masks[0]).sum()),
        ]  # fmt: skip
    run_task(make_task(clip, tmp_path / "out", *prompts, formats=("rle",), end=Moment(frame=2)))
    assert [item["id"] for item in lines(tmp_path / "out" / "clip.jsonl")[0]["objects"]] == [3, 7]  # type: ignore[attr-defined]


def test_a_json_file_brings_points_boxes_and_masks_at_their_moments(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "hand.png"), CLIP.masks(0)[0].astype(np.uint8) * 255)
    (tmp_path / "clip.json").write_text(
        json.dumps({"objects": [
            {"id": 1, "label": "cup", "points": [[50, 40], [10, 10, 0]]},
            {"id": 2, "box": [1, 2, 30, 40], "frame": "1:30"},
            {"id": 3, "mask": "hand.png", "frame": 12},
        ]})
    )  # fmt: skip
    for place in (tmp_path, tmp_path / "clip.json"):
        one, two, three = prompts_of_clip(place, "clip")
        assert one == GivenPrompt(1, "cup", None, ((50.0, 40.0, 1), (10.0, 10.0, 0)))
        assert (two.moment, two.box) == (Moment(time_ns=90 * 10**9), (1.0, 2.0, 30.0, 40.0))
        assert three.moment == Moment(frame=12) and np.array_equal(three.load(SIZE).mask_hw, CLIP.masks(0)[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected"),
        ('{"objects": []}', "expected"),
        ('{"objects": [{"points": [[1, 2]]}]}', "`id`"),
        ('{"objects": [{"id": 1, "point": [[1, 2]]}]}', "point"),
        ('{"objects": [{"id": 1}]}', "objects[0] (id 1)"),
        ('{"objects": [{"id": 1, "box": [5, 5, 2, 9]}]}', "x0 < x1"),
        ('{"objects": [{"id": 1, "mask": "absent.png"}]}', "absent.png"),
        ('{"objects": [{"id": 1, "points": [[1, 2]], "frame": "soon"}]}', "'soon' is no moment"),
        ('{"objects": [{"id": 1, "points": [[1, 2]], "frame": -1}]}', "expected 0 or more"),
    ],
)
def test_a_wrong_json_file_is_refused_in_one_line_that_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "clip.json").write_text(text)
    with pytest.raises(PromptError) as caught:
        prompts_of_clip(tmp_path / "clip.json", "clip")
    assert str(tmp_path / "clip.json") in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_moments_are_seconds_clocks_and_numbers() -> None:
    assert moment_of("12.5") == Moment(time_ns=12_500_000_000) == moment_of("12.5s") == moment_of("0:12.5")
    assert moment_of("1:30") == Moment(time_ns=90 * 10**9) and moment_of("1:00:01") == Moment(time_ns=3601 * 10**9)
    assert moment_of("300f") == Moment(frame=300)
    for text in ("", "soon", "-3", "1:61", "3 f", "1:2:3:4", "nan", "1e3"):
        with pytest.raises(MomentError, match="expected"):
            moment_of(text)


def test_what_cannot_be_done_is_said_in_one_line(clip: Path, tmp_path: Path) -> None:
    def refused(*prompts: GivenPrompt, **settings: object) -> str:
        with pytest.raises(SegmentError) as caught:
            run_task(make_task(clip, tmp_path, *prompts, **{"formats": ("davis",), "overwrite": True, **settings}))
        assert "\n" not in str(caught.value) and "expected" in str(caught.value)
        return str(caught.value)

    assert "it ends before picture 50" in refused(start=Moment(frame=50))
    assert "expected one after the start" in refused(start=Moment(frame=9), end=Moment(frame=9))
    assert "picture 99" in refused(click(), click(2, moment=Moment(frame=99)))
    assert "prompt on picture 2" in refused(click(1, moment=Moment(frame=2)), start=Moment(frame=3))
    assert "object id 255" in refused(click(255))
    assert "clip.mp4, picture 0: the point (900, 5)" in refused(GivenPrompt(1, points=((900.0, 5.0, 1),)))
    with pytest.raises(FootageError, match="there is no such file"):
        run_task(make_task(tmp_path / "absent.mp4", tmp_path))
    with pytest.raises(SegmentError, match="nothing says what to follow"):
        plan_of(type(make_task(clip, tmp_path))("x", "x", tmp_path, (), Settings()), open_footage(clip))


def test_words_of_the_command_line_become_videos_with_names_of_their_own(tmp_path: Path) -> None:
    for name in (
        "a.mp4",
        "b.mov",
        "notes.txt",
        "more/a.mp4",
        "shots/1.png",
        "davis/bear/0.jpg",
        "davis/dog/0.jpg",
        "a.overlay.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*words: str) -> list[tuple[str, str]]:
        clips = find_clips([str(tmp_path / word) for word in words])
        return [(clip.name, str(Path(clip.source).relative_to(tmp_path))) for clip in clips]

    assert found("a.mp4") == [("a", "a.mp4")]
    assert found("a.mp4", "more/a.mp4", "a.mp4") == [("a", "a.mp4"), ("more-a", "more/a.mp4")]
    assert found(".") == [("a", "a.mp4"), ("b", "b.mov"), ("shots", "shots")]
    assert found("*.m*") == [("a", "a.mp4"), ("b", "b.mov")]
    assert found("davis") == [("bear", "davis/bear"), ("dog", "davis/dog")] == found("davis/*")
    assert found("shots/*.png") == [("shots", "shots/*.png")]
    for word in ("*.xyz", "more/nothing*"):
        with pytest.raises(SegmentError, match="expected"):
            found(word)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(SegmentError, match="no picture and no video"):
        found("hollow")


def test_a_long_video_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(num: int) -> int:
        task = make_task(write_clip(tmp_path / f"{num}.mp4", num), tmp_path / "out", formats=("rle",))
        tracemalloc.start()
        assert run_task(task).num_pictures == num
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(8)
    assert peak(32) < peak(12) + 150_000, "a picture has 32256 bytes"
