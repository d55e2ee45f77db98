"""Masks drawn by hand: the format, and that those of the benchmark are whole."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drawn import DrawnClip, fill, read_drawn

KEYS = Path(__file__).resolve().parents[1] / "benchmarks" / "key_masks"
FILES = sorted(KEYS.glob("*.txt"))
CLIP = "clip test.mp4 20x10 30\nclick thing 4,5\n"


def parsed(tmp_path: Path, text: str) -> DrawnClip:
    path = tmp_path / "test.txt"
    path.write_text(CLIP + text, encoding="utf-8")
    return read_drawn(path)


def test_six_clips_have_five_key_masks_of_two_objects() -> None:
    clips = [read_drawn(path) for path in FILES]
    assert len(clips) == 6
    assert [len(clip.frames) for clip in clips] == [5] * 6
    assert [len(clip.clicks) for clip in clips] == [2] * 6
    assert all(clip.name == path.stem for clip, path in zip(clips, FILES, strict=True))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_key_masks_lie_in_their_picture_and_spread_over_the_clip(path: Path) -> None:
    clip = read_drawn(path)
    for parts in clip.polygons.values():
        for _, points_n2 in parts:
            assert (points_n2 >= 0).all()
            assert (points_n2 <= clip.size).all()
    assert clip.frames[-1] - clip.frames[0] > clip.num_frames / 2
    assert 0 < clip.frames[0] < clip.frames[-1] < clip.num_frames
    for x, y in clip.clicks.values():
        assert 0 < x < clip.size[0]
        assert 0 < y < clip.size[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_two_objects_share_hardly_a_pixel(path: Path) -> None:
    clip = read_drawn(path)
    for frame in clip.frames:
        one, other = (clip.mask(frame, name) for name in clip.clicks)
        if one.any() and other.any():
            assert (one & other).sum() < 0.05 * min(one.sum(), other.sum()), f"picture {frame}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_object_that_is_there_has_a_mask_of_a_sensible_size(path: Path) -> None:
    clip = read_drawn(path)
    for (frame, name), parts in clip.polygons.items():
        share = clip.mask(frame, name).mean()
        assert (0.001 < share < 0.4) if parts else share == 0, f"{name} in picture {frame}"


def test_what_left_the_picture_is_said_to_be_absent() -> None:
    absent = {
        f"{clip.name} {frame} {name}"
        for clip in map(read_drawn, FILES)
        for (frame, name), parts in clip.polygons.items()
        if not parts
    }
    assert absent == {"blocks 285 hand", "cups 72 ball", "cups 150 ball", "cups 220 ball", "dog 90 dog"}


def test_a_pixel_belongs_to_the_polygon_that_covers_its_centre() -> None:
    square = fill(np.array([[2.0, 1.0], [5.0, 1.0], [5.0, 4.0], [2.0, 4.0]]), 8, 6)
    expected = np.zeros((6, 8), np.bool_)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(square, expected)
    disk = 100 + 60 * np.stack([np.cos(np.linspace(0, 6.27, 90)), np.sin(np.linspace(0, 6.27, 90))], 1)
    assert fill(disk, 200, 200).sum() == pytest.approx(np.pi * 60**2, rel=0.005)


def test_a_polygon_beyond_the_edge_is_cut_there() -> None:
    part = fill(np.array([[-5.0, -5.0], [3.0, -5.0], [3.0, 99.0], [-5.0, 99.0]]), 8, 6)
    assert part[:, :3].all()
    assert not part[:, 3:].any()


def test_lines_add_and_take_away_in_their_order(tmp_path: Path) -> None:
    whole, hole, middle = "0,0 10,0 10,10 0,10", "2,2 8,2 8,8 2,8", "4,4 6,4 6,6 4,6"
    clip = parsed(tmp_path, f"7 thing + {whole}\n7 thing - {hole}  # a hole\n7 thing + {middle}\n9 thing absent\n")
    assert clip.mask(7, "thing").sum() == 100 - 36 + 4
    assert not clip.mask(9, "thing").any()
    assert clip.frames == (7, 9)


@pytest.mark.parametrize(
    "line",
    [
        "7 thing + 0,0 1,1",
        "7 thing * 0,0 1,1 2,0",
        "7 thing + 0,0 1;1 2,0",
        "7 other + 0,0 1,1 2,0",
        "seven thing absent",
        "7",
        "7 thing + 0,0 9,0 9,9\n7 thing absent",
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=rf"test\.txt:{3 + line.count(chr(10))}: "):
        parsed(tmp_path, line)


def test_an_object_that_a_picture_says_nothing_of_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing is said of 9 thing"):
        parsed(tmp_path, "click other 1,1\n7 thing absent\n7 other absent\n9 other absent")
