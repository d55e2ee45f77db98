"""The benchmark on real clips, on a generated clip whose masks are known."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import real_clips
from benchmarks.drawn import DrawnClip, read_drawn
from engines.synthetic import EVALUATION_SEEDS, ClipSpec, SyntheticClip
from stream.tracker import Tracker

ROOT = Path(__file__).resolve().parents[1]
SPEC = ClipSpec(EVALUATION_SEEDS[0], num_frames=9, num_objects=1, num_distractors=0, noise=0.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[DrawnClip, Path]:
    """A video of one shape, and the key masks of it and of something that is never there."""
    folder, clip = tmp_path_factory.mktemp("clips"), SyntheticClip(SPEC)
    video = cv2.VideoWriter(str(folder / "shape.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SPEC.width, SPEC.height))
    for number in range(SPEC.num_frames):
        video.write(clip.frame(number))
    video.release()
    x, y = clip.click(0)
    lines = [f"clip shape.avi {SPEC.width}x{SPEC.height} {SPEC.num_frames}", f"click shape {x},{y}"]
    for number in (4, 8):
        points = clip._things[0].polygon(number, SPEC.width, SPEC.height).clip(0, SPEC.width) + 0.5
        lines.append(f"{number} shape + {' '.join(f'{x:.2f},{y:.2f}' for x, y in points)}")
    (folder / "shape.txt").write_text("\n".join(lines), encoding="utf-8")
    return read_drawn(folder / "shape.txt"), folder / "shape.avi"


def test_a_generated_clip_is_followed_scored_and_drawn(
    drawn: tuple[DrawnClip, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    video = drawn[1]
    monkeypatch.setattr(real_clips, "KEYS", video.parent)
    given = [
        "--clips",
        str(video.parent),
        "--sheets",
        str(tmp_path / "sheets"),
        "--save",
        str(tmp_path / "result.json"),
    ]
    monkeypatch.setattr("sys.argv", ["real_clips.py", *given, "--threads", str(torch.get_num_threads())])
    real_clips.main()
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert min(result["iou"]["shape"]["shape"].values()) > 0.75
    assert (result["clips_followed"], result["objects_followed"], result["num_keys"]) == (1, 1, 2)
    sheet = cv2.imread(str(tmp_path / "sheets" / "shape.png"))
    assert sheet.shape == (real_clips.TILE, 3 * real_clips.TILE, 3), "picture 0 and the two that were drawn"


def test_a_clip_counts_only_when_all_its_objects_are_followed_to_the_end() -> None:
    figures = real_clips.summary({"one": {"a": {4: 0.9, 8: 0.5}, "b": {8: 0.4}}, "two": {"a": {4: 1.0}}})
    assert figures["clips_followed"] == 1
    assert figures["followed"] == ["one/a", "two/a"]
    assert (figures["keys_above_half"], figures["num_keys"]) == (3, 4)
    assert figures["clip_mean_iou"] == {"one": 0.6, "two": 1.0}


def test_a_mask_for_what_is_absent_is_wrong_and_none_is_right(drawn: tuple[DrawnClip, Path]) -> None:
    clip, _ = drawn
    absent = replace(clip, polygons={(4, "shape"): []})
    nothing, something = np.zeros((2, SPEC.height, SPEC.width), np.bool_)
    something[3, 5] = True
    picture = np.zeros((SPEC.height, SPEC.width, 3), np.uint8)
    at_start = (picture, {"shape": something})
    assert real_clips.scores(absent, {0: at_start, 4: (picture, {"shape": nothing})}) == {"shape": {4: 1.0}}
    assert real_clips.scores(absent, {0: at_start, 4: (picture, {"shape": something})}) == {"shape": {4: 0.0}}


def test_a_mask_starts_at_the_first_drawn_picture_which_is_not_scored(drawn: tuple[DrawnClip, Path]) -> None:
    clip, video = drawn
    found = real_clips.follow(Tracker.load("nano"), clip, video, prompt="mask")
    assert sorted(found) == [4, 8]
    assert list(real_clips.scores(clip, found)["shape"]) == [8]
    assert real_clips.scores(clip, found)["shape"][8] > 0.75


def test_pictures_by_themselves_are_segmented_from_a_click_where_something_is(drawn: tuple[DrawnClip, Path]) -> None:
    clip, video = drawn
    gone = replace(clip, polygons={**clip.polygons, (6, "shape"): []})
    found = real_clips.glance(Tracker.load("nano"), gone, video)
    assert sorted(found) == [4, 6, 8]
    figures = real_clips.scores(gone, found)["shape"]
    assert list(figures) == [4, 8]
    assert min(figures.values()) > 0.75


def test_another_video_than_the_masks_were_drawn_on_is_refused(drawn: tuple[DrawnClip, Path]) -> None:
    clip, video = drawn
    tracker = Tracker.load("nano")
    with pytest.raises(ValueError, match=r"pictures of 256x256; its masks were drawn on \(640, 480\)"):
        real_clips.follow(tracker, replace(clip, size=(640, 480)), video, prompt="click")
    longer = replace(clip, polygons={**clip.polygons, (20, "shape"): []})
    with pytest.raises(ValueError, match="has no picture 20; 9 were expected"):
        real_clips.follow(tracker, longer, video, prompt="click")


def test_sheets_are_not_written_into_the_repository(
    drawn: tuple[DrawnClip, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_clips, "KEYS", drawn[1].parent)
    with pytest.raises(SystemExit):
        real_clips.arguments(["--clips", str(drawn[1].parent), "--sheets", str(ROOT / "sheets")])
    assert "outside the repository" in capsys.readouterr().err


def test_clips_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        real_clips.arguments(["--clips", str(tmp_path)])
    assert "has no bedroom.mp4" in capsys.readouterr().err
