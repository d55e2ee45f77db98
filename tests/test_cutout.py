"""Cut-outs of real textures for training, on a generated video."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.synthetic import cutout, joined
from engines.synthetic.bank import Entry, read_index, read_texture, write_index
from engines.synthetic.cutout import Moment, Region, best_cuts, cut, even_regions, moving_regions, with_alpha
from engines.synthetic.joined import join

HEIGHT, WIDTH = 180, 320
CENTRE, RADIUS = (150, 90), 40


def scene(shift: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red disk on grey noise, and where it is."""
    noise = np.random.default_rng(5).integers(110, 140, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    picture = np.repeat(noise, 3, axis=2)
    disk = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(disk, (CENTRE[0] + shift, CENTRE[1]), RADIUS, 1, cv2.FILLED)
    texture = np.random.default_rng(6).integers((10, 10, 190), (50, 50, 230), (HEIGHT, WIDTH, 3), dtype=np.uint8)
    moved = np.roll(texture, shift, axis=1)
    picture[disk > 0] = moved[disk > 0]
    return picture, disk > 0


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_an_even_object_is_cut_out_along_its_outline() -> None:
    picture, truth = scene()
    cuts = best_cuts(picture, even_regions(picture))
    assert max(iou(cut.mask_hw, truth) for cut in cuts) > 0.95


def test_what_moves_is_found_without_a_colour_of_its_own() -> None:
    after, truth = scene(shift=12)
    regions = list(moving_regions(Moment(8, after, scene(shift=6)[0], scene()[0])))
    assert max(iou(region.mask_hw, truth) for region in regions) > 0.6
    assert not list(moving_regions(Moment(8, after, after, after)))


def test_still_surroundings_are_no_part_of_what_moves() -> None:
    picture, disk = scene()
    wide = cv2.dilate(disk.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
    loose, tight = cut(picture, Region(wide, "moving")), cut(picture, Region(wide, "moving", ~disk))
    assert tight is not None
    assert iou(tight.mask_hw, disk) > 0.95
    assert loose is None or iou(loose.mask_hw, disk) <= iou(tight.mask_hw, disk)


def test_a_picture_of_noise_gives_nothing() -> None:
    noise = np.random.default_rng(7).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert best_cuts(noise, even_regions(noise)) == []


def test_no_colour_of_the_background_is_in_a_cut_out() -> None:
    picture, truth = scene()
    cut = with_alpha(picture, truth)
    assert cut.shape == (2 * RADIUS + 1 + 4, 2 * RADIUS + 1 + 4, 4)
    assert (cut[..., 2] > 180).all(), "red everywhere, also where alpha is 0"
    assert cut[cut.shape[0] // 2, cut.shape[1] // 2, 3] == 255
    assert cut[0, 0, 3] == 0


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, of two videos of one scene."""
    videos, folder, size = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("bank"), (2 * WIDTH, 2 * HEIGHT)
    for name in ("disk", "again"):
        video = cv2.VideoWriter(str(videos / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
        for number in range(8):
            video.write(cv2.resize(scene(3 * number)[0], size))
        video.release()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["cutout.py", str(videos), str(folder), "--frames", "1"])
        cutout.main()
    return folder


def test_a_folder_without_videos_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cutout.py", str(tmp_path), str(tmp_path / "bank")])
    with pytest.raises(SystemExit):
        cutout.main()
    assert f"{tmp_path} has no video" in capsys.readouterr().err
    assert not (tmp_path / "bank").exists()


def test_a_bank_is_read_as_it_was_written(bank: Path) -> None:
    entries = read_index(bank)
    assert {entry.clip for entry in entries} == {"disk", "again"}
    for entry in entries:
        texture = read_texture(bank, entry)
        assert texture.shape[2] == (3 if entry.kind == "picture" else 4)
    assert any(entry.kind != "picture" for entry in entries)


def test_a_clip_that_is_left_out_gives_nothing(bank: Path) -> None:
    assert {entry.clip for entry in read_index(bank, leave_out=["disk"])} == {"again"}
    with pytest.raises(ValueError, match="nothing of dsk"):
        read_index(bank, leave_out=["dsk"])


def test_what_is_no_bank_is_named(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no bank of cut-outs"):
        read_index(tmp_path)
    (tmp_path / "gone.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"gone\.png"):
        read_texture(tmp_path, Entry("gone.png", "disk", 0, "region", 0.1, 20.0))


def test_a_thing_of_several_parts_shows_them_all_and_hangs_together() -> None:
    parts = []
    for channel in range(3):
        part = np.zeros((60, 40, 4), np.uint8)
        part[..., channel], part[5:-5, 5:-5, 3] = 255, 255
        parts.append(part)
    for seed in range(8):
        thing = join(np.random.default_rng(seed), parts)
        solid = thing[..., 3] > 127
        count, _ = cv2.connectedComponents(solid.astype(np.uint8))
        assert count == 2, "the surroundings, and one thing"
        shown = [(solid & (thing[..., channel] > 200)).sum() > 50 for channel in range(3)]
        assert sum(shown) >= 2, f"seed {seed}: {shown}"


def test_joined_things_belong_to_one_clip_and_are_replaced_by_the_next_run(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bank"
    shutil.copytree(bank, folder)
    for clip in ("disk", "again"):
        found = next(entry for entry in read_index(folder) if entry.clip == clip and entry.kind != "picture")
        write_index(folder, [*read_index(folder), found, found])
    for count in ("5", "3"):
        monkeypatch.setattr("sys.argv", ["joined.py", str(folder), "--count", count])
        joined.main()
    things = [entry for entry in read_index(folder, leave_out=["again"]) if entry.kind == "joined"]
    assert len(things) == 3
    assert all(entry.file.startswith("disk/") and read_texture(folder, entry).shape[2] == 4 for entry in things)
