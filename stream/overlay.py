"""Draws what the tracker knows on a picture: masks, contours, labels, scores, and a status line.

Owns: the colours and sizes of everything drawn. Pure functions on BGR uint8 arrays; any thread may call them.
Never: changes the picture that it was given, imports torch, or keeps anything between two pictures.

A colour belongs to an object id and never changes with the other objects. An object that is not seen has no mask; the
status line lists it instead.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.frame import Masks, ObjectState

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Crop = tuple[NDArray[np.uint8], tuple[int, int]]

FILL_OPACITY = 0.42
GOLDEN_ANGLE = 0.6180339887  # of a turn of the hue: ids that follow one another lie far apart
WHITE: Colour = (255, 255, 255)
DARK: Colour = (24, 24, 24)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FRACTION_BITS = 4  # of the coordinates of a line


class Plate(NamedTuple):
    """A rectangle for a line of text; the text stands on `base`, counted from `top`."""

    left: int
    top: int
    width: int
    height: int
    base: int


def colour_of(object_id: int) -> Colour:
    """The steady BGR colour of an object id; every eighth turn of the hue is a little paler."""
    hue = (0.58 + (object_id - 1) * GOLDEN_ANGLE) % 1.0
    saturation = 0.92 - 0.14 * ((object_id // 8) % 3)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_overlay(
    image_hwc: Picture,
    masks: Masks,
    *,
    labels: Mapping[int, str] | None = None,
    status: str = "",
    selected: int | None = None,
) -> Picture:
    """A copy of the picture with all objects and, if there is one, a status line at the lower edge.

    The selected object has a white rim.
    """
    assert image_hwc.shape[:2] == (masks.height, masks.width), f"{image_hwc.shape} is not the size of the masks"
    names, drawn = labels or {}, image_hwc.copy()
    rows = range(len(masks.object_ids))
    seen = [row for row in rows if masks.areas[row] > 0]
    crops = {row: _crop(masks, row) for row in seen}
    for row in seen:
        _fill(drawn, crops[row], colour_of(masks.object_ids[row]))
    for row in seen:
        _outline(drawn, crops[row], colour_of(masks.object_ids[row]), is_selected=masks.object_ids[row] == selected)
    taken: list[Plate] = []
    for row in seen:
        object_id, corner = masks.object_ids[row], masks.boxes_n4[row, :2].tolist()
        text = caption(object_id, names.get(object_id, ""), score=float(masks.scores[row]))
        plate = _plate(drawn, text, (corner[0], corner[1]), taken=taken)
        taken.append(plate)
        _tag(drawn, text, plate, colour=colour_of(object_id), rim=WHITE if object_id == selected else None)
    line = "   ".join(part for part in (status, *(caption_hidden(masks, row, names) for row in rows)) if part)
    return _status(drawn, line) if line else drawn


def scaled(masks: Masks, height: int, width: int) -> Masks:
    """The same objects on a picture of another size. What becomes smaller than a pixel keeps one."""
    if (masks.height, masks.width) == (height, width):
        return masks
    num_objects, factor_y, factor_x = len(masks.object_ids), height / masks.height, width / masks.width
    packed_nhb = np.zeros((num_objects, height, (width + 7) // 8), np.uint8)
    boxes_n4, areas = np.zeros((num_objects, 4), np.int32), np.zeros(num_objects, np.int64)
    for row in np.flatnonzero(masks.areas):
        crop_hw, _ = _crop(masks, int(row))
        x0, y0, x1, y1 = masks.boxes_n4[row].tolist()
        left, top = min(width - 1, int(x0 * factor_x)), min(height - 1, int(y0 * factor_y))
        right = min(width, max(left + 1, math.ceil(x1 * factor_x)))
        bottom = min(height, max(top + 1, math.ceil(y1 * factor_y)))
        how = cv2.INTER_AREA if factor_x < 1 else cv2.INTER_LINEAR
        grey_hw = cv2.resize(crop_hw * np.uint8(255), (right - left, bottom - top), interpolation=how)
        bits_hw = grey_hw >= min(128, int(grey_hw.max()))
        aligned_hw = np.pad(bits_hw, ((0, 0), (left % 8, 0)))
        packed_hb = np.packbits(aligned_hw, axis=1)
        packed_nhb[row, top:bottom, left // 8 : left // 8 + packed_hb.shape[1]] = packed_hb
        boxes_n4[row], areas[row] = (left, top, right, bottom), bits_hw.sum()
    centroids_n2 = masks.centroids_n2 * np.array([factor_x, factor_y], np.float32)
    return replace(
        masks, height=height, width=width, packed_nhb=packed_nhb, boxes_n4=boxes_n4, areas=areas,
        centroids_n2=centroids_n2,
    )  # fmt: skip


def caption(object_id: int, label: str, *, score: float) -> str:
    """What stands beside an object; the score is shown as a probability."""
    probability = 1.0 / (1.0 + np.exp(-np.clip(score, -30.0, 30.0)))
    return f"{object_id} {label} {probability:.2f}".replace("  ", " ")


def caption_hidden(masks: Masks, row: int, labels: Mapping[int, str]) -> str:
    """What the status line says of an object that is not seen; nothing for one that is."""
    state, object_id = masks.states[row], masks.object_ids[row]
    if state in (ObjectState.TRACKED, ObjectState.REACQUIRED):
        return ""
    return f"{object_id} {labels.get(object_id, '')} {state.value}".replace("  ", " ")


def draw_status(image_hwc: Picture, text: str) -> Picture:
    """A copy of the picture with a dark, translucent bar and a line of text at its lower edge, cut to the width."""
    return _status(image_hwc.copy(), text)


def contact_sheet(pictures: Sequence[Picture], *, num_columns: int = 4, width: int = 1280) -> Picture:
    """Pictures of one size as a grid with thin dark lines between, `width` pixels wide."""
    assert pictures, "a contact sheet needs a picture"
    num_columns = min(num_columns, len(pictures))
    cell_width = (width - 4 * (num_columns + 1)) // num_columns
    cell_height = max(1, round(cell_width * pictures[0].shape[0] / pictures[0].shape[1]))
    num_rows = -(-len(pictures) // num_columns)
    sheet = np.full((num_rows * (cell_height + 4) + 4, width, 3), DARK, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, num_columns)
        top, left = 4 + row * (cell_height + 4), 4 + column * (cell_width + 4)
        cell = cv2.resize(picture, (cell_width, cell_height), interpolation=cv2.INTER_AREA)
        sheet[top : top + cell_height, left : left + cell_width] = cell
    return sheet


def _scale(height: int) -> float:
    return float(np.clip(height / 1100.0, 0.36, 1.6))


def _writable(text: str) -> str:
    """Before version 5, OpenCV's built-in letters are ASCII only."""
    return text if hasattr(cv2, "FontFace") else text.encode("ascii", "replace").decode("ascii")


def _status(drawn: Picture, text: str) -> Picture:
    height, width = drawn.shape[:2]
    text, scale = _writable(text), _scale(height) * 0.9
    thickness = max(1, round(scale * 1.6))
    while len(text) > 1 and cv2.getTextSize(text, FONT, scale, thickness)[0][0] > width - 12:
        text = text[:-1]
    (_, text_height), baseline = cv2.getTextSize(text, FONT, scale, thickness)
    bar = drawn[max(0, height - text_height - baseline - 10) :]
    cv2.convertScaleAbs(bar, bar, alpha=0.35)
    cv2.putText(drawn, text, (6, height - baseline - 4), FONT, scale, WHITE, thickness, cv2.LINE_AA)
    return drawn


def _crop(masks: Masks, row: int) -> Crop:
    """The mask inside its box, as 0 and 1, and the box's upper left corner."""
    x0, y0, x1, y1 = masks.boxes_n4[row].tolist()
    first = x0 // 8
    bits_hw = np.unpackbits(masks.packed_nhb[row, y0:y1, first : (x1 + 7) // 8], axis=1)
    return np.ascontiguousarray(bits_hw[:, x0 - first * 8 : x1 - first * 8]), (x0, y0)


def _fill(drawn: Picture, crop: Crop, colour: Colour) -> None:
    mask_hw, (x0, y0) = crop
    part = drawn[y0 : y0 + mask_hw.shape[0], x0 : x0 + mask_hw.shape[1]]
    tint = np.array([*(FILL_OPACITY * value for value in colour), 0.0]).round()  # OpenCV takes it for one pixel
    cv2.copyTo(cv2.add(cv2.convertScaleAbs(part, alpha=1.0 - FILL_OPACITY), tint), mask_hw, part)


def _outline(drawn: Picture, crop: Crop, colour: Colour, *, is_selected: bool) -> None:
    contours, _ = cv2.findContours(crop[0], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=crop[1])
    lines = [_smoothed(np.asarray(contour, np.int32)) for contour in contours]
    thickness = max(1, round(drawn.shape[0] / 360))
    if (
        thickness > 1 or is_selected
    ):  # a dark rim sets the line off; on a small picture it would hide more than it shows
        rim = WHITE if is_selected else DARK
        cv2.polylines(drawn, lines, True, rim, thickness + 2 + 2 * is_selected, cv2.LINE_AA, FRACTION_BITS)
    cv2.polylines(drawn, lines, True, colour, thickness, cv2.LINE_AA, FRACTION_BITS)


def _smoothed(contour_n12: NDArray[np.int32]) -> NDArray[np.int32]:
    """The line without the stairs of its pixels: each point is the mean of its neighbourhood along the line."""
    points_n2 = contour_n12[:, 0, :].astype(np.float32)
    if len(points_n2) < 16:
        return (contour_n12 << FRACTION_BITS).astype(np.int32)
    padded_n2 = np.concatenate([points_n2[-3:], points_n2, points_n2[:3]])
    sums_n2 = np.cumsum(np.concatenate([np.zeros((1, 2), np.float32), padded_n2]), axis=0, dtype=np.float64)
    means_n2 = (sums_n2[7:] - sums_n2[:-7])[::2] / 7  # half of them draw the same line in half the time
    return np.round(means_n2 * (1 << FRACTION_BITS)).astype(np.int32)[:, None, :]


def _plate(drawn: Picture, text: str, corner: tuple[int, int], *, taken: Sequence[Plate]) -> Plate:
    """Where a small plate for the text lies: above its box, moved inside where the picture ends, below other plates."""
    scale = _scale(drawn.shape[0])
    (text_width, text_height), baseline = cv2.getTextSize(_writable(text), FONT, scale, max(1, round(scale * 1.6)))
    width, height = text_width + 8, text_height + baseline + 6
    left = max(0, min(corner[0], drawn.shape[1] - width))
    top = max(0, min(corner[1] - height - 3, drawn.shape[0] - height))
    for other in sorted(taken, key=lambda plate: plate.top):
        is_beside = left + width < other.left or other.left + other.width < left
        if not is_beside and other.top - height <= top <= other.top + other.height:
            top = min(other.top + other.height + 1, drawn.shape[0] - height)
    return Plate(left, max(0, top), width, height, base=text_height + 3)


def _tag(drawn: Picture, text: str, plate: Plate, *, colour: Colour, rim: Colour | None) -> None:
    scale = _scale(drawn.shape[0])
    corners = (plate.left, plate.top), (plate.left + plate.width, plate.top + plate.height)
    cv2.rectangle(drawn, *corners, colour, cv2.FILLED)
    if rim is not None:
        cv2.rectangle(drawn, *corners, rim, 1)
    is_bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140
    place, ink = (plate.left + 4, plate.top + plate.base), DARK if is_bright else WHITE
    cv2.putText(drawn, _writable(text), place, FONT, scale, ink, max(1, round(scale * 1.6)), cv2.LINE_AA)
