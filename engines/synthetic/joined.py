"""Joins cut-outs into things of several parts: real things have a head, a shirt and trousers, and move as one.

Owns: how parts are put together, and the command that adds such things to a bank (`engines.synthetic.bank`). Any
thread. Never: mixes clips, so that a clip can still be left out; looks at a video.

    python -m engines.synthetic.joined BANK [--count 80]

The same bank gives the same things; a second run replaces those of the first.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np

from engines.synthetic.bank import MARGIN, Entry, Image, read_index, read_texture, write_index

SIDE = 360
"""Of the canvas that a thing is put together on; its first part covers about a sixth of that."""
NUM_PARTS = (2, 5)
SHARES = (0.35, 1.2)
"""A further part's size, as a share of the first one's."""
_KIND = "joined"


def join(rng: np.random.Generator, parts: list[Image]) -> Image:
    """One BGRA cut-out of several; each part but the first starts on the outline of what is there already."""
    canvas = np.zeros((SIDE, SIDE, 4), np.uint8)
    for number, part in enumerate(parts):
        reach = SIDE * 0.4 * (1.0 if number == 0 else rng.uniform(*SHARES))
        x, y = (SIDE / 2, SIDE / 2) if number == 0 else _on_the_outline(rng, canvas)
        layer = _placed(part, reach=reach, turn=rng.uniform(-0.6, 0.6), centre=(x, y))
        below, above = (canvas, layer) if number == 0 or rng.random() < 0.5 else (layer, canvas)
        canvas = _over(below, above)
    x, y, wide, high = cv2.boundingRect((canvas[..., 3] > 127).astype(np.uint8))
    rows = slice(max(y - MARGIN, 0), y + high + MARGIN)
    return np.ascontiguousarray(canvas[rows, max(x - MARGIN, 0) : x + wide + MARGIN])


def joined_things(bank: Path, entries: list[Entry], clip: str, *, count: int) -> list[Entry]:
    """Write `count` things of a clip's parts into the bank; their entries."""
    parts = [entry for entry in entries if entry.clip == clip and entry.kind in ("region", "moving")]
    found: list[Entry] = []
    for number in range(count if len(parts) >= NUM_PARTS[0] else 0):
        rng = np.random.default_rng((sum(clip.encode()), number))
        chosen = rng.choice(len(parts), min(int(rng.integers(*NUM_PARTS)), len(parts)), replace=False)
        image = join(rng, [read_texture(bank, parts[place]) for place in chosen])
        file = f"{clip}/{_KIND}-{number:04d}.png"
        cv2.imwrite(str(bank / file), image)
        quality = min(parts[place].quality for place in chosen)
        frame = parts[int(chosen[0])].frame
        found.append(Entry(file, clip, frame, _KIND, round(float((image[..., 3] > 127).mean()), 4), quality))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--count", type=int, default=80, help="things for each clip")
    options = parser.parse_args()
    try:
        entries = [entry for entry in read_index(options.bank) if entry.kind != _KIND]
    except ValueError as error:
        parser.error(str(error))
    for clip in sorted({entry.clip for entry in entries}):
        entries += joined_things(options.bank, entries, clip, count=options.count)
    write_index(options.bank, entries)
    print(f"{sum(entry.kind == _KIND for entry in entries)} things of several parts")


def _on_the_outline(rng: np.random.Generator, canvas: Image) -> tuple[float, float]:
    """A place on the outline of what is there, but not far out."""
    solid = (canvas[..., 3] > 127).astype(np.uint8)
    edge = (solid > 0) & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    edge[: SIDE // 6], edge[-SIDE // 6 :], edge[:, : SIDE // 6], edge[:, -SIDE // 6 :] = False, False, False, False
    rows, columns = np.nonzero(edge)
    if rows.size == 0:
        return SIDE / 2, SIDE / 2
    place = int(rng.integers(rows.size))
    return float(columns[place]), float(rows[place])


def _placed(part: Image, *, reach: float, turn: float, centre: tuple[float, float]) -> Image:
    """The part on an empty canvas: `reach` is the square root of its box's area."""
    high, wide = part.shape[:2]
    scale = reach / math.sqrt(high * wide)
    matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), math.degrees(turn), scale)
    matrix[:, 2] += (centre[0] - wide / 2, centre[1] - high / 2)
    flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    colours = cv2.warpAffine(part[..., :3], matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(part[..., 3], matrix, (SIDE, SIDE), flags=flags, borderValue=0)
    return np.dstack([colours, alpha])


def _over(below: Image, above: Image) -> Image:
    """Straight alpha: where neither covers, the colours of the layer above stay."""
    top, rest = above[..., 3:] / 255.0, below[..., 3:] / 255.0
    alpha = top + rest * (1 - top)
    mixed = (above[..., :3] * top + below[..., :3] * rest * (1 - top)) / np.maximum(alpha, 1e-6)
    colours = np.where(alpha > 0, mixed, above[..., :3])
    return np.dstack([np.round(colours), np.round(255 * alpha)]).astype(np.uint8)


if __name__ == "__main__":
    main()
