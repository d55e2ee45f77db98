"""The contact sheet: pictures of a run as a grid, each with its figures under it, below a line that says what it shows.

Owns: the sheet's layout. Pure functions; the demo's main thread calls them. Never: draws a mask itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.demo.plan import DemoError
from stream.demo.review import Cell, describe
from stream.overlay import colour_of, contact_sheet

NUM_COLUMNS = 3
WIDTH = 1600
CELL_WIDTH = 528
TITLE_HEIGHT, CAPTION_HEIGHT = 56, 40
BACKGROUND, INK = (24, 24, 24), (235, 235, 235)
FONT, TITLE_SCALE, CAPTION_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.86, 0.66

Image = NDArray[np.uint8]


def write_sheet(path: Path, title: str, cells: Sequence[Cell]) -> None:
    """Write it as PNG; raises DemoError."""
    bar_hwc = np.full((TITLE_HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    width = cv2.getTextSize(title, FONT, TITLE_SCALE, 1)[0][0]
    scale = min(TITLE_SCALE, TITLE_SCALE * (WIDTH - 24) / width)
    cv2.putText(bar_hwc, title, (12, 37), FONT, scale, INK, 1, cv2.LINE_AA)
    grid_hwc = contact_sheet([_captioned(cell) for cell in cells], num_columns=NUM_COLUMNS, width=WIDTH)
    is_encoded, data = cv2.imencode(".png", np.vstack([bar_hwc, grid_hwc]))
    assert is_encoded, "OpenCV encodes every uint8 picture as PNG"
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}, expected a path where a picture can be written") from error


def _captioned(cell: Cell) -> Image:
    """The picture at the cell's width with a caption under it, each object in its own colour."""
    height, width = cell.image_hwc.shape[:2]
    size = (CELL_WIDTH, max(1, round(CELL_WIDTH * height / width)))
    picture_hwc = np.asarray(cv2.resize(cell.image_hwc, size, interpolation=cv2.INTER_AREA), np.uint8)
    caption_hwc = np.full((CAPTION_HEIGHT, CELL_WIDTH, 3), BACKGROUND, np.uint8)
    words = [(f"picture {cell.sample.masks.seq}", INK)]
    objects = cell.sample.masks.objects
    words += [(text, colour_of(item.id)) for text, item in zip(describe(cell.sample, cell.ious), objects, strict=True)]
    left = 8
    for text, colour in words:
        cv2.putText(caption_hwc, text, (left, 27), FONT, CAPTION_SCALE, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, FONT, CAPTION_SCALE, 1)[0][0] + 22
    return np.vstack([picture_hwc, caption_hwc])
