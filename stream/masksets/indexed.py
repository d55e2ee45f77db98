"""Indexed PNG as DAVIS has them: a pixel's value is the object's id.

Owns: reading and writing one such picture, and the palette. Any thread. Never: keeps a picture, or leaves half a file
behind.

0 is the background and 255 void, which counts as background (as in the semi-supervised task of DAVIS). A grey picture
that holds 0 and 255 only is a mask of one object, 1, as DAVIS 2016 and SA-V have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from engines.whole_file import moved_in
from stream.sequence import Bits, MaskFileError

VOID = 255
MAX_ID = 254  # of an object in an indexed PNG
MODES = ("P", "L", "1", "I;16", "I")


def _palette() -> bytes:
    """The colours of PASCAL VOC and DAVIS: the bits of the id, in turn, are the high bits of red, green and blue."""
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (np.arange(256) >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours.tobytes()


PALETTE = _palette()


def size_of(path: Path) -> tuple[int, int]:
    """Height and width, from the file's head."""
    try:
        with Pictures.open(path) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError) as exc:
        raise MaskFileError(f"{path} is not a picture, expected an indexed PNG ({exc})") from exc


def read_ids(path: Path) -> NDArray[np.integer]:
    """The id of each pixel; 0 where there is no object."""
    mode, ids_hw = _load(path)
    present = ids_present(ids_hw)
    if mode == "L" and present == (VOID,):
        return (ids_hw > 0).astype(np.uint8)
    return np.where(ids_hw == VOID, 0, ids_hw) if VOID in present else ids_hw


def read_binary(path: Path) -> Bits:
    """The mask of one object that has the picture for itself: all that is not 0."""
    return np.asarray(_load(path)[1] != 0)


def _load(path: Path) -> tuple[str, NDArray[np.integer]]:
    try:
        with Pictures.open(path) as picture:
            mode, ids_hw = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as exc:
        raise MaskFileError(f"{path} cannot be read, expected an indexed PNG ({exc})") from exc
    if mode not in MODES:
        raise MaskFileError(f"{path} has colours ({mode}), expected an indexed PNG: a pixel's value is the object's id")
    return mode, ids_hw.astype(np.int32) if mode in ("1", "I", "I;16") else ids_hw


def ids_present(ids_hw: NDArray[np.integer]) -> tuple[int, ...]:
    """All ids but 0."""
    if ids_hw.dtype == np.uint8:  # twenty times as fast as sorting
        counts = Pictures.fromarray(ids_hw).histogram()
        return tuple(object_id for object_id, count in enumerate(counts) if count and object_id)
    return tuple(int(value) for value in np.unique(ids_hw) if value)


def read_indexed(path: Path) -> dict[int, Bits]:
    """Object id to mask of shape (height, width), for the ids that are there."""
    ids_hw = read_ids(path)
    return {object_id: ids_hw == object_id for object_id in ids_present(ids_hw)}


def indexed_of(masks: Mapping[int, Bits], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The ids of the pixels; where objects overlap, the one with the lowest id is there (as SAM 2's tools write it)."""
    ids_hw = np.zeros(size, np.uint8)
    for object_id in sorted(masks, reverse=True):
        if not 1 <= object_id <= MAX_ID:
            raise MaskFileError(f"object id {object_id} does not fit an indexed PNG, expected 1 to {MAX_ID}")
        ids_hw[masks[object_id]] = object_id
    return ids_hw


def write_indexed(path: Path, ids_hw: NDArray[np.uint8]) -> None:
    """The whole file or none: it is written beside its place, then moved there."""
    picture = Pictures.fromarray(ids_hw)
    picture.putpalette(PALETTE)
    with moved_in(path) as beside:
        picture.save(beside, format="PNG")
