"""Masks as COCO's run-length encoding, as JSON has it.

Owns: `Rle`, and its way from and to booleans. Pure; any thread. Never: opens a file, or reserves memory for a size
that is declared before it has been checked.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from stream.mask_codec import MAX_SIDE, WireError, decode_coco_rle, encode_coco_rle
from stream.sequence import Bits, MaskFileError


class Rle(msgspec.Struct, frozen=True):
    """`size` is (height, width); `counts` the run-length string, or the runs themselves as COCO's crowds have them."""

    size: tuple[int, int]
    counts: str | list[int]


def rle_of(mask_hw: Bits) -> Rle:
    """Compressed, letter for letter as pycocotools writes it."""
    height, width = mask_hw.shape
    rows, columns = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
    left, right = (int(columns[0]) // 8 * 8, int(columns[-1]) + 1) if columns.size else (0, 0)
    crop_hb = np.packbits(mask_hw[top:bottom, left:right], axis=1)
    counts = encode_coco_rle(crop_hb, offset_xy=(left, top), height=height, width=width)
    return Rle((height, width), counts.decode("ascii"))


def bits_of(rle: Rle, where: str) -> Bits:
    """Booleans of shape (height, width); `where` begins the line that says what is wrong."""
    height, width = rle.size
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise MaskFileError(f"{where}: a mask of {height} x {width} pixels, expected 1 to {MAX_SIDE} each")
    if isinstance(rle.counts, list):
        return _bits_of_runs(rle.counts, (height, width), where)
    try:
        return decode_coco_rle(rle.counts.encode("ascii"), height=height, width=width)
    except (WireError, UnicodeEncodeError) as exc:
        raise MaskFileError(f"{where}: {exc}") from exc


def _bits_of_runs(counts: list[int], size: tuple[int, int], where: str) -> Bits:
    num_pixels = math.prod(size)
    if any(count < 0 for count in counts) or sum(counts) != num_pixels:
        raise MaskFileError(f"{where}: runs that cover {sum(counts)} pixels, expected {size[0]} x {size[1]}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T
