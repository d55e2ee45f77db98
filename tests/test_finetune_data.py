"""What fine-tuning learns from: every layout gives the same pictures and masks; augmentation keeps them together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from stripes import HEIGHT, WIDTH, draw_clip, write_davis

from stream import wire
from stream.cli import main
from stream.evaluate import Material
from stream.finetune import AUGMENTATIONS, FinetuneError, default_settings, divide, find_clips
from stream.finetune.album import Album
from stream.finetune.augment import augmented, pasted
from stream.finetune.samples import Samples, batches
from stream.frame import ObjectState
from stream.masksets import RleLine, RleObject, RleWriter, rle_of
from stream.movie import MovieWriter
from stream.recording import Record, RecordingWriter
from stream.sequence import LabelledFrame, MaskFileError, Picture

NUM = 9
SIZE = 64
FRAMES, MASKS = draw_clip(3, NUM)


def write_video(path: Path) -> Path:
    with MovieWriter(path) as movie:
        for index, frame in enumerate(FRAMES):
            movie.put(frame, index * 40_000_000)
    return path


def write_lines(path: Path) -> None:
    with RleWriter(path) as writer:
        for index, mask in enumerate(MASKS):
            item = RleObject(id=1, label="", rle=rle_of(mask))
            writer.put(RleLine(index=index, time_s=None, height=HEIGHT, width=WIDTH, objects=(item,)))


def write_recording(path: Path, camera: str = "front") -> None:
    encoder = wire.MaskEncoder("bits")
    times: dict[str, Any] = {
        f"{moment}{zone}_ns": 1 for moment in ("arrival", "decoded", "inferred", "published") for zone in ("", "_utc")
    }
    with RecordingWriter(path) as writer:
        for seq, mask in enumerate(MASKS):
            ys, xs = np.nonzero(mask)
            edges = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            item = wire.ObjectMask(
                id=1, label="", state=ObjectState.TRACKED, score=1.0, predicted_iou=0.9, box=edges, area=len(ys),
                centroid=(1.0, 1.0), patch=encoder.encode(np.packbits(mask, axis=1), edges, width=WIDTH),
            )  # fmt: skip
            message = wire.MasksMessage(
                run=1, camera=camera, epoch=0, seq=seq, frame_id="", width=WIDTH, height=HEIGHT, pts_ns=None,
                clock_source="arrival", clock_id="", num_dropped=0, model="m", backend="eager", objects=(item,),
                **times,
            )  # fmt: skip
            writer.put(Record(seq, seq, wire.encode(message)))


def write_sav(path: Path) -> None:
    masklet = [[{"size": [HEIGHT, WIDTH], "counts": rle_of(MASKS[index]).counts}] for index in range(0, NUM, 4)]
    path.write_text(
        json.dumps(
            {"video_id": "sav_7", "video_frame_count": float(NUM), "video_height": HEIGHT, "video_width": WIDTH,
             "masklet_id": [1], "masklet": masklet}
        )
    )  # fmt: skip


def davis(root: Path) -> list[str]:
    return [str(write_davis(root / "davis", range(3, 4), NUM))]


def sav(root: Path) -> list[str]:
    write_video(root / "sav_7.mp4")
    write_sav(root / "sav_7_manual.json")
    return [str(root)]


def lines(root: Path) -> list[str]:
    write_video(root / "clip.mp4")
    write_lines(root / "clip.jsonl")
    return [str(root)]


def recording(root: Path) -> list[str]:
    write_video(root / "night.mp4")
    write_recording(root / "night.masks")
    return [str(root / "night.masks")]


def recording_of_camera(root: Path) -> list[str]:
    write_video(root / "front.mp4")
    write_recording(root / "night.masks")
    return [str(root)]


def album_of(clips: list[Material], folder: Path, size: int = SIZE) -> Album:
    album = Album(folder, size)
    for _ in album.make(clips):
        continue
    return album


@pytest.mark.parametrize("layout", [davis, sav, lines, recording, recording_of_camera])
def test_every_layout_gives_each_annotated_picture_with_its_own_mask(
    tmp_path: Path, layout: Callable[[Path], list[str]]
) -> None:
    clips = find_clips(layout(tmp_path))
    album = album_of(clips, tmp_path / "pictures")
    (page,) = album.pages
    assert [leaf.place for leaf in page.leaves] == list(range(0, NUM, 4 if layout is sav else 1))
    images, masks = album.read(0, range(len(page.leaves)))
    for leaf, image, mask in zip(page.leaves, images, masks[1], strict=True):
        truth = cv2.resize(MASKS[leaf.place].astype(np.uint8) * 255, (SIZE, SIZE), interpolation=cv2.INTER_AREA) >= 128
        assert np.array_equal(mask, truth)
        picture = cv2.resize(FRAMES[leaf.place], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - picture).mean() < 12  # the videos and the album are compressed


def test_a_video_can_be_named_for_masks_that_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    write_lines(tmp_path / "masks" / "clip.jsonl")
    video = write_video(tmp_path / "film.mp4")
    (clip,) = find_clips([str(tmp_path / "masks" / "clip.jsonl")], [video])
    assert len(list(clip.open_footage().pictures())) == NUM


def test_what_cannot_be_learned_from_is_told_in_one_line(tmp_path: Path) -> None:
    write_lines(tmp_path / "clip.jsonl")
    path = str(tmp_path / "clip.jsonl")
    with pytest.raises(MaskFileError, match=r"no pictures beside it; expected clip\.mp4"):
        find_clips([path])
    with pytest.raises(FinetuneError, match=r"--video is given 2 times; expected once for each of 1 mask files"):
        find_clips([path], [tmp_path / "a.mp4", tmp_path / "b.mp4"])
    with pytest.raises(MaskFileError, match="does not exist"):
        find_clips([str(tmp_path / "nowhere")])
    write_davis(tmp_path / "short", range(1), 1)
    with pytest.raises(FinetuneError, match="no clip has 2 annotated pictures"):
        find_clips([str(tmp_path / "short")])


def test_whole_clips_are_held_out_and_none_teaches_and_judges(tmp_path: Path) -> None:
    clips = find_clips([str(write_davis(tmp_path, range(5), 3))])
    division = divide(clips, (), default_settings("nano", hold_out=0.4))
    learned, held_out = ({clip.name for clip in part} for part in (division.learned, division.held_out))
    assert (len(learned), len(held_out), learned & held_out) == (3, 2, set())
    assert not divide(clips, (), default_settings("nano", hold_out=0.0)).held_out


def test_of_a_single_clip_the_end_is_held_out_and_its_masks_stay_with_its_pictures(tmp_path: Path) -> None:
    clips = find_clips([str(write_davis(tmp_path, range(3, 4), NUM))])
    division = divide(clips, (), default_settings("nano", hold_out=0.4))
    (head,), (tail,) = division.learned, division.held_out
    assert division.is_one_video
    assert (head.truth.num_frames, tail.truth.num_frames) == (NUM - 4, 4)
    for first, part in ((0, head), (NUM - 4, tail)):
        for picture in part.open_footage().pictures():
            assert np.array_equal(part.truth.frame(picture.index).masks[1], MASKS[first + picture.index])
            assert np.abs(picture.image_hwc.astype(int) - FRAMES[first + picture.index]).mean() < 8
    with pytest.raises(FinetuneError, match="4 annotated pictures are too few to hold some out"):
        divide(find_clips([str(write_davis(tmp_path / "b", range(1), 4))]), (), default_settings("nano"))


def test_a_held_out_clip_is_not_judged_for_longer_than_asked(tmp_path: Path) -> None:
    clips = find_clips([str(write_davis(tmp_path, range(2), NUM))])
    (short,) = divide(clips, clips[:1], default_settings("nano", validation_pictures=4)).held_out
    assert (short.truth.num_frames, list(short.truth.annotated)) == (4, [0, 1, 2, 3])
    assert len(list(short.open_footage().pictures())) == 4


def test_two_held_out_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    clips = find_clips([str(write_davis(tmp_path, range(1), 3))])
    with pytest.raises(FinetuneError, match="two held-out clips are named stripes-0; expected different names"):
        divide(clips, clips * 2, default_settings("nano"))


class Gone:
    """A video that must not be opened."""

    def __call__(self) -> Any:
        raise AssertionError("the pictures are there already")


def test_pictures_are_decoded_once_even_after_an_interruption(tmp_path: Path) -> None:
    clips = find_clips([str(write_davis(tmp_path / "data", range(2), 4))])
    making = Album(tmp_path / "pictures", SIZE).make(clips)
    assert [next(making) for _ in range(6)] == [1, 2, 3, 4, 5, 6]  # killed in the second clip
    making.close()
    album = album_of([replace(clips[0], open_footage=Gone()), clips[1]], tmp_path / "pictures")
    assert [len(page.leaves) for page in album.pages] == [4, 4]
    album_of([replace(clip, open_footage=Gone()) for clip in clips], tmp_path / "pictures")


def test_pictures_that_went_missing_or_bad_are_named(tmp_path: Path) -> None:
    album = album_of(find_clips([str(write_davis(tmp_path / "data", range(1), 4))]), tmp_path / "pictures")
    (tmp_path / "pictures" / "00000" / "000001.bits").write_bytes(b"no masks")
    with pytest.raises(FinetuneError, match=r"000001\.bits cannot be read"):
        album.read(0, [1])
    (tmp_path / "pictures" / "00000" / "000002.jpg").unlink()
    with pytest.raises(FinetuneError, match=r"000002\.jpg is not there any more"):
        album.read(0, [2])


def disc(count: int, x: int) -> np.ndarray:
    mask = np.zeros((count, SIZE, SIZE), np.uint8)
    for time in range(count):
        cv2.circle(mask[time], (x + 2 * time, 30), 12, 1, -1)
    return mask.astype(bool)


@pytest.mark.parametrize("wanted", [(), *((name,) for name in AUGMENTATIONS), AUGMENTATIONS])
def test_masks_stay_on_what_they_mask(wanted: tuple[str, ...]) -> None:
    masks = np.stack([disc(5, 20), np.zeros((5, SIZE, SIZE), bool)])
    images = np.where(masks[0][..., None], 220, 40).astype(np.uint8).repeat(3, -1)
    before = images.copy(), masks.copy()
    for seed in range(12):
        found, moved = augmented(np.random.default_rng(seed), images, masks, wanted=wanted)
        assert (found.shape, found.dtype, moved.shape, moved.dtype) == (images.shape, np.uint8, masks.shape, np.bool_)
        level = (found[moved[0]].mean() + found[~moved[0]].mean()) / 2
        bright = cv2.medianBlur(found.mean(-1).max(0).astype(np.uint8), 3) > level
        agree = (bright & moved[0].any(0)).sum() / (bright | moved[0].any(0)).sum()
        assert agree > 0.85, f"{wanted} moves mask and picture apart"
        assert not moved[1].any()
    assert np.array_equal(images, before[0]) and np.array_equal(masks, before[1])


def test_what_is_pasted_hides_what_is_behind_it() -> None:
    images, masks = np.full((4, SIZE, SIZE, 3), 40, np.uint8), disc(4, 20)[None]
    thing = np.full((SIZE, SIZE, 3), 250, np.uint8), disc(1, 30)[0]
    frame = np.pad(np.ones((SIZE - 4, SIZE - 4), bool), 2)
    for seed in range(20):
        found, seen, own = pasted(np.random.default_rng(seed), images, masks, thing=thing)
        assert not (seen[0] & own).any()
        assert np.array_equal(seen[0] | (masks[0] & own), masks[0])
        inside = np.stack([cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) for mask in own]) > 0
        assert (found[inside & frame] > 240).all()
        beside = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) for mask in own]) == 0
        assert (found[beside] == 40).all()


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    folder = tmp_path_factory.mktemp("album")
    return album_of(find_clips([str(write_davis(folder / "data", range(3), NUM))]), folder / "pictures")


def test_a_batch_is_what_meta_s_model_reads(album: Album) -> None:
    settings = default_settings("nano", batch=3, frames=4, objects=2)
    batch = Samples(album, settings)[5]
    num_objects = batch.masks.shape[1]
    assert batch.flat_img_batch.shape == (12, 3, SIZE, SIZE)
    assert (batch.num_frames, batch.masks.dtype, num_objects >= 3) == (4, torch.bool, True)
    assert (batch.flat_obj_to_img_idx % 4 == torch.arange(4)[:, None]).all()  # clip after clip, time by time
    assert batch.flat_obj_to_img_idx[0].div(4, rounding_mode="floor").unique().tolist() == [0, 1, 2]
    assert batch.masks[0].flatten(1).any(1).all(), "an object must be seen where it is prompted"


def test_a_batch_depends_on_its_number_and_the_seed_alone(album: Album) -> None:
    settings = default_settings("nano", batch=2, frames=3)
    one, other = (Samples(album, settings)[7] for _ in range(2))
    assert torch.equal(one.flat_img_batch, other.flat_img_batch) and torch.equal(one.masks, other.masks)
    samples = Samples(album, settings)
    (third, *_) = batches(samples, range(7, 9), num_workers=0)
    assert torch.equal(third.masks, one.masks)
    assert not torch.equal(samples[8].flat_img_batch, one.flat_img_batch)
    reseeded = Samples(album, default_settings("nano", batch=2, frames=3, seed=1))[7]
    assert not torch.equal(reseeded.flat_img_batch, one.flat_img_batch)


def test_a_clip_shorter_than_asked_goes_to_and_fro(album: Album) -> None:
    settings = default_settings("nano", batch=1, frames=2 * NUM, augment=())
    images = Samples(album, settings)[0].flat_img_batch
    assert len(images) == 2 * NUM
    steps = (images[1:] - images[:-1]).abs().mean((1, 2, 3))
    assert (steps > 0).all()


@pytest.mark.slow
def test_worker_processes_prepare_the_same_batches(album: Album) -> None:
    samples = Samples(album, default_settings("nano", batch=1, frames=3))
    mine, theirs = (list(batches(samples, range(4), num_workers=count)) for count in (0, 2))
    assert all(torch.equal(a.flat_img_batch, b.flat_img_batch) for a, b in zip(mine, theirs, strict=True))


class Empty:
    """Truth of a clip in which nothing is ever seen."""

    name, size, num_frames, annotated, labels = "empty", (8, 8), 3, (0, 1, 2), {}

    def frame(self, index: int) -> LabelledFrame:
        return LabelledFrame(index, {1: np.zeros((8, 8), bool)})

    def pictures(self, start: int = 0) -> list[Picture]:
        return [Picture(index, 0, np.zeros((8, 8, 3), np.uint8)) for index in range(start, 3)]


def test_clips_in_which_nothing_is_seen_are_refused(tmp_path: Path) -> None:
    empty: Any = Empty()
    with pytest.raises(FinetuneError, match="no clip shows an object on two pictures"):
        album_of([Material("empty", lambda: empty, empty)], tmp_path)


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--steps", "0", "--steps is 0; expected at least 1"),
        ("--rate", "-1", "--rate is -1.0; expected a number of at least 0"),
        ("--clicks", "2", "--clicks is 2.0; expected 0 to 1"),
        ("--augment", "flip,shrink", "--augment has 'shrink'; expected all, none or some of flip,"),
        ("--prompt", "word", "--prompt = 'word': expected mask, click, box"),
        ("--model", "sam9", "no such model"),
        ("--checkpoint", "nowhere.pt", "nowhere.pt"),
        ("--device", "tpu", "device is 'tpu'; expected auto, cpu"),
        ("--video", "nowhere.mp4", "--video is given 1 times"),
        ("--validation", "nowhere", "nowhere does not exist"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, option: str, value: str, words: str
) -> None:
    root = write_davis(tmp_path / "data", range(1), 6)
    assert main(["finetune", str(root), "-o", str(tmp_path / "out"), option, value]) in (1, 2)
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
