"""Drawings and cut-out photographs of whole things, added to a bank of real textures (`engines.synthetic.bank`).

Owns: which pictures with transparency show one solid thing of several colours, and the command that adds them. Any
thread. Never: changes a source, or takes what is no thing: outlines, silhouettes, frames, scattered signs.

    python -m engines.synthetic.artwork BANK [FOLDER ...] [--font FILE] [--skip NAME ...]

A folder is searched for PNG files below it; of a font every single character with colours is drawn. Things that people
draw are many-coloured and whole: they teach that a head, a shirt and trousers are one. The same sources give the same
things; a second run replaces those of the first with the same name.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from engines.synthetic.bank import MARGIN, PICTURE_SIDE, Entry, Image, read_index, spread, write_index

KIND = "artwork"
QUALITY = 255.0
"""Its outline is exact."""
MIN_SIDE = 48
SOLID_SHARES = (0.2, 0.93)
"""Of its box: thin things and full rectangles are left out."""
MIN_OPAQUE = 0.85
"""Of what is visible at all; the rest is shadow and glow."""
MIN_LARGEST = 0.92
"""Of its pixels in one piece."""
MIN_COLOURS = 14.0
"""Standard deviation of its colours, in grey levels."""
FONT_SIZE = 109
"""The one size that bitmap fonts of emoji have."""
CHARACTERS = (range(0x2600, 0x27C0), range(0x1F300, 0x1FB00))


def as_thing(picture: cv2.typing.MatLike | None) -> Image | None:
    """BGRA, cropped, at most PICTURE_SIDE long; None for what is not one solid thing of several colours."""
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        return None
    image_hwc = np.asarray(picture, np.uint8)
    scale = min(1.0, PICTURE_SIDE / max(image_hwc.shape[:2]))
    if scale < 1:
        image_hwc = np.asarray(cv2.resize(image_hwc, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    alpha = image_hwc[..., 3]
    solid = alpha > 127
    x, y, wide, high = cv2.boundingRect(solid.astype(np.uint8))
    if min(wide, high) < MIN_SIDE or not SOLID_SHARES[0] <= solid.sum() / (wide * high) <= SOLID_SHARES[1]:
        return None
    pieces = cv2.connectedComponentsWithStats(solid.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    is_whole = pieces.max() >= MIN_LARGEST * solid.sum() and (alpha > 230).sum() >= MIN_OPAQUE * (alpha > 25).sum()
    if not is_whole or float(image_hwc[..., :3][solid].std(axis=0).mean()) < MIN_COLOURS:
        return None
    thing = np.dstack([spread(image_hwc[..., :3], alpha > 230), alpha])
    padded = cv2.copyMakeBorder(thing[y : y + high, x : x + wide], *4 * (MARGIN,), cv2.BORDER_REPLICATE)
    padded[:MARGIN, :, 3] = padded[-MARGIN:, :, 3] = padded[:, :MARGIN, 3] = padded[:, -MARGIN:, 3] = 0
    return np.asarray(padded, np.uint8)


def of_folder(folder: Path, *, skip: Collection[str] = ()) -> Iterator[Image]:
    """Things among the PNG files below a folder, those in folders named in `skip` left out."""
    for path in sorted(folder.rglob("*.png")):
        if skip and set(path.relative_to(folder).parts) & set(skip):
            continue
        thing = as_thing(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        if thing is not None:
            yield thing


def of_font(font: Path) -> Iterator[Image]:
    """Things among the characters of a font with colours. Raises OSError for what is no such font."""
    face = ImageFont.truetype(str(font), FONT_SIZE)
    for code in (code for part in CHARACTERS for code in part):
        canvas = Pillow.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((8, 8), chr(code), font=face, embedded_color=True)
        thing = as_thing(cv2.cvtColor(np.asarray(canvas, np.uint8), cv2.COLOR_RGBA2BGRA))
        if thing is not None:
            yield thing


def add(bank: Path, name: str, things: Iterator[Image]) -> list[Entry]:
    """Write things under a name that is the bank's "clip"; a thing that comes twice is written once."""
    folder, found, known = bank / name, list[Entry](), set[str]()
    folder.mkdir(parents=True, exist_ok=True)
    for thing in things:
        digest = hashlib.sha256(cv2.resize(thing, (16, 16), interpolation=cv2.INTER_AREA).tobytes()).hexdigest()
        if digest in known:
            continue
        known.add(digest)
        file = f"{name}/{KIND}-{len(found):05d}.png"
        cv2.imwrite(str(bank / file), thing)
        share = round(float((thing[..., 3] > 127).mean()), 4)
        found.append(Entry(file, name, 0, KIND, share, QUALITY))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--font", type=Path)
    parser.add_argument("--skip", nargs="*", default=[], help="names of folders to leave out")
    options = parser.parse_args()
    sources = {folder.resolve().name: of_folder(folder, skip=options.skip) for folder in options.folders}
    if options.font is not None:
        sources[options.font.stem] = of_font(options.font)
    try:
        entries = [entry for entry in read_index(options.bank) if entry.clip not in sources]
    except ValueError as error:
        parser.error(str(error))
    for name, things in sources.items():
        found = add(options.bank, name, things)
        print(f"{name}: {len(found)} things")
        entries += found
    write_index(options.bank, entries)


if __name__ == "__main__":
    main()
