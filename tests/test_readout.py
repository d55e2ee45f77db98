"""Reading masks out: bits, box, area and centroid against numpy, and the up-sampling against the official one."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from stream.readout import MaskBlock, _measure, _pack, read_out
from stream.verdict import PendingMasks, Visibility

SIZES = [(1, 1), (1, 9), (3, 8), (7, 13), (16, 16), (33, 70), (54, 97), (120, 161)]


def read_masks(masks_nhw: np.ndarray) -> MaskBlock:
    """Masks as logits of the picture's own size, so that up-sampling changes nothing."""
    count = len(masks_nhw)
    logits = torch.from_numpy(np.where(masks_nhw, 3.0, -3.0).astype(np.float32))
    scores, ious = torch.arange(count) - 2.0, torch.arange(count) / 8
    (block,) = read_out([(logits, scores, ious)], [masks_nhw.shape[1:]])
    return block


def random_masks(height: int, width: int) -> np.ndarray:
    """Dense, sparse, one pixel in a corner, a line, empty and full ones."""
    random = np.random.default_rng([height, width])
    masks = random.random((8, height, width)) < np.array([0.5, 0.9, 0.05, 0.01, 0, 0, 0, 1])[:, None, None]
    masks[4, -1, -1] = True
    masks[5, :, width // 2] = True
    return masks


@pytest.mark.parametrize("size", SIZES)
def test_bits_and_figures_are_those_of_numpy(size: tuple[int, int]) -> None:
    masks = random_masks(*size)
    stats, packed = read_masks(masks).wait()
    assert packed.shape == (8, size[0], -(-size[1] // 8))
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=2))
    for mask, row in zip(masks, stats, strict=True):
        ys, xs = np.nonzero(mask)
        if mask.any():
            assert row[:4].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_allclose(row[5:7], [xs.mean(), ys.mean()], atol=1e-4)
        else:
            assert row[:4].tolist() == [0, 0, 0, 0] and np.isnan(row[5:7]).all()
        assert row[4] == mask.sum()
    np.testing.assert_array_equal(stats[:, 7], np.arange(8) - 2.0)
    np.testing.assert_array_equal(stats[:, 8], np.arange(8) / 8)


@pytest.mark.parametrize("size", SIZES)
def test_packing_on_a_device_is_packbits(size: tuple[int, int]) -> None:
    masks = random_masks(*size)
    np.testing.assert_array_equal(_pack(torch.from_numpy(masks)).numpy(), np.packbits(masks, axis=2))


@pytest.mark.parametrize("size", [(1, 1), (30, 41), (47, 200), (48, 48), (333, 500)])
@pytest.mark.parametrize("shift", [0.0, -2.5, -9.0])
def test_a_device_and_a_cpu_find_the_same_bits_and_figures(size: tuple[int, int], shift: float) -> None:
    """Dense, sparse and empty masks; the CPU looks only where the object is."""
    logits = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(size[1])) + shift
    scores, ious = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.1, 0.5, 0.9])
    (found,) = read_out([(logits, scores, ious)], [size])
    stats, packed = _measure((logits, scores, ious), size)
    np.testing.assert_array_equal(found.packed_nhb, packed.numpy())
    np.testing.assert_allclose(found.stats_ns, stats.numpy(), rtol=1e-5, atol=1e-3)


def test_a_large_picture_has_an_exact_area_and_a_centroid_within_a_hundredth_of_a_pixel() -> None:
    masks = np.zeros((2, 2160, 3840), np.bool_)
    masks[0] = True
    masks[1, 100:2107, 1711:3839] = True
    stats, _ = read_masks(masks).wait()
    assert stats[:, 4].tolist() == [2160 * 3840, 2007 * 2128]
    wanted = [[(3840 - 1) / 2, (2160 - 1) / 2], [(1711 + 3838) / 2, (100 + 2106) / 2]]
    np.testing.assert_allclose(stats[:, 5:7], wanted, atol=0.01)


def official_masks(logits_nhw: Tensor, size: tuple[int, int]) -> np.ndarray:
    predictor = SimpleNamespace(non_overlap_masks=False)
    state = {"device": torch.device("cpu"), "video_height": size[0], "video_width": size[1]}
    resized = SAM2VideoPredictor._get_orig_video_res_output(predictor, state, logits_nhw[:, None])[1]
    return np.asarray((resized > 0)[:, 0])


@pytest.mark.parametrize("size", [(48, 48), (360, 640), (101, 77), (20, 31), (1080, 1920)])
def test_masks_are_upsampled_as_officially(size: tuple[int, int]) -> None:
    logits = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(1))
    (block,) = read_out([(logits, torch.zeros(3), torch.zeros(3))], [size])
    bits = np.unpackbits(block.wait()[1], axis=2, count=size[1]).astype(np.bool_)
    np.testing.assert_array_equal(bits, official_masks(logits, size))


def test_each_camera_gets_its_own_part() -> None:
    random = torch.Generator().manual_seed(2)
    parts = [(torch.randn(n, 12, 12, generator=random), torch.randn(n), torch.rand(n)) for n in (2, 1, 3)]
    sizes = [(30, 41), (24, 16), (9, 100)]
    for part, size, block in zip(parts, sizes, read_out(parts, sizes), strict=True):
        (alone,) = read_out([part], [size])
        np.testing.assert_array_equal(block.stats_ns, alone.stats_ns)
        np.testing.assert_array_equal(block.packed_nhb, alone.packed_nhb)
    assert read_out([], []) == []


class PassedEvent:
    """Stands for the CUDA event of a block whose copy has arrived."""

    def synchronize(self) -> None:
        """It is here already."""


def test_the_result_is_typed_and_outlives_the_block_that_a_device_writes_again() -> None:
    masks = random_masks(33, 70)
    block = dataclasses.replace(read_masks(masks), event=PassedEvent())  # type: ignore[arg-type]
    result = PendingMasks(33, 70, tuple(range(8)), tuple(Visibility() for _ in range(8)), 0, block).resolve()
    figures = (result.boxes_n4, result.areas, result.centroids_n2, result.scores, result.ious)
    before = [array.copy() for array in figures]
    block.stats_ns.fill(-7)
    block.packed_nhb.fill(0)  # as if the pinned block was used again
    np.testing.assert_array_equal(result.masks_nhw, masks)
    for array, copied in zip(figures, before, strict=True):
        np.testing.assert_array_equal(array, copied)
    assert result.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    assert [x.dtype for x in (*figures, result.packed_nhb)] == [
        np.int32,
        np.int64,
        np.float32,
        np.float32,
        np.float32,
        np.uint8,
    ]
