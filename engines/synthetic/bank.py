"""A bank of real textures on disk: cut-outs with alpha and plain pictures, sorted by the clip that they come from.

Owns: the layout of the folder, its index `bank.json`, and reading both. Any thread. Never: makes a cut-out
(`engines.synthetic.cutout`, `joined` and `artwork` do), changes the folder, or gives anything of a clip that is to be
left out.

    BANK/bank.json                   the index, `Entry` by entry
    BANK/<clip>/<object>.png         a cut-out: BGRA, straight alpha, cropped to the object and a rim of MARGIN pixels
    BANK/<clip>/picture-<frame>.png  a whole picture of the clip, BGR, longest side PICTURE_SIDE
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

INDEX = "bank.json"
MARGIN = 2
PICTURE_SIDE = 480


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the bank."""

    file: str  # below the bank, with "/"
    clip: str  # the video's name without its ending
    frame: int
    kind: str  # "region", "moving", "joined", "artwork" or "picture"
    share: float  # of the video's picture that the object covers; 1 for a picture
    quality: float  # mean colour step across the outline, in grey levels; 0 for a picture


def read_index(bank: Path, *, leave_out: Collection[str] = ()) -> list[Entry]:
    """The bank's entries without those of the clips in `leave_out`. Raises ValueError for what is no bank."""
    try:
        rows = json.loads((bank / INDEX).read_text(encoding="utf-8"))
        entries = [Entry(**row) for row in rows]
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{bank} is no bank of cut-outs ({error}); expected a folder with {INDEX}") from None
    unknown = set(leave_out) - {entry.clip for entry in entries}
    if unknown:
        raise ValueError(f"{bank} has nothing of {', '.join(sorted(unknown))} to leave out")
    return [entry for entry in entries if entry.clip not in leave_out]


def write_index(bank: Path, entries: list[Entry]) -> None:
    """Replace the bank's index."""
    rows = [{name: getattr(entry, name) for name in Entry.__slots__} for entry in entries]
    text = ",\n".join(json.dumps(row) for row in rows)
    (bank / INDEX).write_text(f"[\n{text}\n]\n", encoding="utf-8")


def read_texture(bank: Path, entry: Entry) -> Image:
    """(height, width, 4) BGRA of a cut-out, (height, width, 3) BGR of a picture. Raises ValueError."""
    image = cv2.imread(str(bank / entry.file), cv2.IMREAD_UNCHANGED)
    channels = 3 if entry.kind == "picture" else 4
    if image is None or image.ndim != 3 or image.shape[2] != channels:
        raise ValueError(f"{bank / entry.file} is not a picture of {channels} channels as {INDEX} says")
    return np.asarray(image, np.uint8)


def spread(colours: Image, known: NDArray[np.bool_]) -> Image:
    """Fill what is not known with the nearest known colour, so that warping bleeds nothing in."""
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    table[labels[known]] = colours[known]
    return np.asarray(table[labels], np.uint8)
