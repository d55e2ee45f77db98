"""Hard clips: as deterministic and truthful as the easy ones, whatever light and optics do; and textures by clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.synthetic.bank import Entry, write_index
from engines.synthetic.body import Body, Limb, Patch
from engines.synthetic.casting import KINDS, draw_body
from engines.synthetic.figures import draw_animal, draw_person
from engines.synthetic.hard import MIN_VISIBLE_SHARE, HardClip, HardSpec
from engines.synthetic.optics import Optics, cast_shadow, draw_optics, smear
from engines.synthetic.shape import Swing, draw_thing
from engines.synthetic.texture import Image
from engines.training.shelf import Shelf

SMALL = HardSpec(seed=5, num_frames=20, height=72, width=96, num_objects=2)


def cutout() -> Image:
    picture = np.zeros((40, 60, 4), np.uint8)
    cv2.ellipse(picture, (30, 20), (25, 15), 0, 0, 360, (0, 0, 255, 255), cv2.FILLED)
    picture[..., :3] = (0, 0, 255)
    return picture


def test_equal_specs_give_equal_pixels_in_any_order() -> None:
    forward, backward = HardClip(SMALL, (cutout(),)), HardClip(SMALL, (cutout(),))
    shown = {t: forward.show(t) for t in range(4)}
    for t in reversed(range(4)):
        np.testing.assert_array_equal(backward.frame(t), shown[t][0])
        np.testing.assert_array_equal(backward.masks(t), shown[t][1])


@pytest.mark.parametrize("seed", range(10))
def test_every_object_is_visible_at_first_and_masks_do_not_overlap(seed: int) -> None:
    clip = HardClip(replace(SMALL, seed=seed), (cutout(),))
    assert clip.masks(0).mean((1, 2)).min() >= MIN_VISIBLE_SHARE
    for t in (0, 9):
        picture, masks = clip.show(t)
        assert picture.shape == (72, 96, 3) and picture.dtype == np.uint8
        assert masks.shape == (2, 72, 96) and masks.sum(0).max() <= 1


def test_the_mask_is_where_the_picture_shows_the_object() -> None:
    for seed in range(6):
        clip, bare = (HardClip(replace(SMALL, seed=seed, noise=0.0)) for _ in range(2))
        for one in (clip, bare):
            one._optics = Optics()
        bare._order = [number for number in bare._order if number != 0]
        changed = np.abs(clip.frame(3).astype(int) - bare.frame(3)).max(2) > 12
        mask = clip.masks(3)[0]
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert not (changed & ~near).any()
        assert (changed & mask).sum() >= 0.5 * mask.sum()


def test_bodies_of_every_kind_are_drawn() -> None:
    rng = np.random.default_rng(0)
    bodies = [draw_body(rng, speed=1.0, leaves=False, textures=(cutout(),)) for _ in range(240)]
    jointed = [body for body in bodies if body.limbs and all(limb.texture is None for limb in body.limbs)]
    coloured = [body for body in bodies if any(limb.texture is not None for limb in body.limbs)]
    cuts = [body for body in bodies if body.cutout is not None]
    assert jointed and cuts and len(coloured) > len(bodies) * (KINDS["person"] + KINDS["many-coloured"]) / 2
    patches = [body.patch(0, 128, 128) for body in bodies]
    thinness = [_elongation(patch) for patch in patches if patch is not None]
    assert max(thinness) > 4 and min(thinness) < 1.5


def test_parts_of_other_colours_belong_to_the_whole() -> None:
    texture = np.full((128, 128, 3), 250, np.uint8)
    body = draw_body(np.random.default_rng(3), speed=1.0, leaves=False)
    still = Swing(0.0, (0, 0), (0, 0), (0, 0))
    thing = replace(body.thing, texture=texture // 5, outline=np.ones(64), wobble=(), radius=replace(still, centre=0.2))
    whole = Body(
        replace(thing, x=replace(still, centre=0.5), y=replace(still, centre=0.5)),
        (Limb((0.9, 0.0), 0.5, 0.3, still, texture),),
    ).patch(0, 100, 100)
    assert whole is not None
    bright, dark = whole.surface[..., 0] > 200, whole.surface[..., 0] < 60
    covered = whole.cover > 127
    assert (bright & covered).sum() > 100 and (dark & covered).sum() > 500


@pytest.mark.parametrize("seed", range(8))
def test_people_and_animals_are_one_piece_of_several_colours(seed: int) -> None:
    rng, still = np.random.default_rng(seed), Swing(0.0, (0, 0), (0, 0), (0, 0))
    middle = replace(still, centre=0.5)
    thing = replace(draw_thing(rng, speed=1.0, leaves=False), x=middle, y=middle, radius=replace(still, centre=0.1))
    for body in (draw_person(rng, thing, [], speed=1.0), draw_animal(rng, thing, speed=1.0)):
        for t in (0, 11):
            patch = body.patch(t, 200, 200)
            assert patch is not None
            covered = (patch.cover > 127).astype(np.uint8)
            areas = cv2.connectedComponentsWithStats(covered)[2][1:, cv2.CC_STAT_AREA]
            assert areas.max() > 0.98 * areas.sum()
            assert patch.surface[covered > 0].std(axis=0).max() > 5


def test_a_limb_hangs_on_the_end_of_another() -> None:
    still = Swing(0.0, (0, 0), (0, 0), (0, 0))
    upper = Limb((1.0, 2.0), 3.0, 0.1, replace(still, centre=np.pi / 2))
    fore = Limb((0.0, 0.0), 2.0, 0.1, replace(still, centre=-np.pi / 2), hangs_on=upper)
    assert upper.tip(0) == pytest.approx((1, 5)) and fore.root(0) == upper.tip(0)
    assert fore.tip(0) == pytest.approx((3, 5))
    assert fore.polygon(0).mean(0) == pytest.approx((2, 5), abs=0.1)


def _elongation(patch: Patch) -> float:
    rows, columns = np.nonzero(patch.cover > 127)
    if len(rows) < 20:
        return 1.0
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    return float(np.sqrt(spread[1] / max(spread[0], 1e-3)))


def test_a_cut_out_keeps_its_outline_and_colour() -> None:
    body: Body = next(
        body
        for seed in range(50)
        if (body := draw_body(np.random.default_rng(seed), speed=1.0, leaves=False, textures=(cutout(),))).cutout
        is not None
    )
    patch = body.patch(0, 200, 200)
    assert patch is not None
    inside = patch.cover > 200
    assert inside.any() and not (patch.cover[:2] > 0).any()
    assert (patch.surface[inside][:, 2] > 200).all() and (patch.surface[inside][:, :2] < 60).all()


def test_a_shadow_darkens_beside_the_body_and_nothing_else() -> None:
    picture = np.full((60, 60, 3), 200, np.uint8)
    patch = Patch(20, 20, np.zeros((10, 10, 3), np.uint8), np.full((10, 10), 255, np.uint8))
    cast_shadow(picture, patch, Optics(shadow=(0.2, 0.0), darkness=0.5))
    assert picture[25, 35].max() < 130 and (picture[:, :25] == 200).all() and (picture[45:] == 200).all()


def test_a_fast_body_smears_about_its_middle() -> None:
    cover = np.zeros((21, 61), np.uint8)
    cover[8:13, 28:33] = 255
    smeared = smear(Patch(0, 0, np.zeros((21, 61, 3), np.uint8), cover), (15.0, 0.0)).cover
    rows, columns = np.nonzero(smeared)
    assert np.ptp(columns) > 12 and np.ptp(rows) <= 5 and abs(columns.mean() - 30) < 0.6


def test_some_clips_are_plain_and_some_are_not() -> None:
    drawn = [draw_optics(np.random.default_rng(seed)) for seed in range(40)]
    for name in ("darkness", "glint", "shutter", "softness", "depth"):
        values = [getattr(optics, name) for optics in drawn]
        assert min(values) == 0 and max(values) > 0, name
    assert {optics.quality == 100 for optics in drawn} == {True, False}


def test_nothing_of_a_clip_that_is_left_out_is_drawn(tmp_path: Path) -> None:
    entries = []
    for clip, level in (("one", 50), ("other", 200)):
        (tmp_path / clip).mkdir()
        cv2.imwrite(str(tmp_path / clip / "cut.png"), np.full((20, 20, 4), level, np.uint8))
        cv2.imwrite(str(tmp_path / clip / "picture.png"), np.full((30, 40, 3), level, np.uint8))
        entries.append(Entry(f"{clip}/cut.png", clip, 0, "region", 0.1, 40.0))
        entries.append(Entry(f"{clip}/picture.png", clip, 0, "picture", 1.0, 0.0))
    write_index(tmp_path, entries)
    rng = np.random.default_rng(0)
    assert {int(texture.max()) for texture in Shelf(tmp_path).draw(rng)} == {50, 200}
    shelf = Shelf(tmp_path, leave_out=("other",))
    assert {int(texture.max()) for _ in range(5) for texture in shelf.draw(rng)} == {50}
    with pytest.raises(ValueError, match="0 cut-outs"):
        Shelf(tmp_path, leave_out=("one", "other"))
