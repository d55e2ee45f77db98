"""Cuts objects out of real videos, without a model: GrabCut around even regions and around what moves.

Owns: how regions are found, cut and judged, and the command that fills a bank (`engines.synthetic.bank`). Any thread.
Never: looks at hand-drawn masks or clicks, so that a bank knows nothing of what is scored later; writes outside OUT.

    python -m engines.synthetic.cutout CLIPS OUT [--frames 30]

CLIPS is a folder of videos. The same videos give the same bank (OpenCV's random generator is seeded per picture).
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic.bank import MARGIN, PICTURE_SIDE, Entry, Image, spread, write_index

Bits = NDArray[np.bool_]

ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
SHARES = (0.004, 0.3)
"""An object covers at least and at most so much of the picture."""
MIN_STEP = 18.0
"""The colour changes by so many grey levels across the outline, in the mean over it."""
MIN_SOLIDITY = 0.55
MAX_EDGE_SHARE = 0.12
"""At most so much of the outline lies on the picture's edge: what is cut off there has no outline."""
SAME = 0.6
"""Two regions of a picture with this IoU are one."""
MAX_A_PICTURE = 14
GAP = 4
"""Pictures between those that motion is seen in."""
MAX_STILL_LEVELS = 7
"""What changes by no more is still."""
_LEVELS = ((8, 14), (14, 26))
"""(radius in space, radius in colour) of the mean shift that makes regions even."""
_NEAR = (5, 5, 5)
"""Neighbours of one region differ by at most so much, after the mean shift."""
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture of PICTURE_SIDE, and how it looked GAP and 2 * GAP pictures before."""

    number: int
    picture: Image
    before: Image
    long_before: Image

    def still(self) -> Bits:
        """Where nothing has changed; an even surface may have moved all the same."""
        now, *then = (cv2.blur(image, (3, 3)) for image in (self.picture, self.before, self.long_before))
        changes = [cv2.absdiff(now, earlier).max(axis=2) for earlier in then]
        return np.asarray(np.maximum(*changes) <= MAX_STILL_LEVELS, np.bool_)


@dataclass(frozen=True, slots=True)
class Region:
    """Where an object may be, and where it cannot."""

    mask_hw: Bits
    kind: str
    outside_hw: Bits | None = None  # as far as it reaches in from the surroundings


@dataclass(frozen=True, slots=True)
class Cut:
    """An object with its outline."""

    mask_hw: Bits
    kind: str
    step: float


def even_regions(picture: Image) -> Iterator[Region]:
    """Connected parts of one colour, at two scales."""
    starts = [(x, y) for y in range(4, picture.shape[0], 8) for x in range(4, picture.shape[1], 8)]
    total = picture.shape[0] * picture.shape[1]
    for space, colour in _LEVELS:
        flat = np.asarray(cv2.pyrMeanShiftFiltering(picture, space, colour), np.uint8)
        seen = np.zeros((picture.shape[0] + 2, picture.shape[1] + 2), np.uint8)
        for x, y in starts:
            if seen[y + 1, x + 1]:
                continue
            before = seen.copy()
            area = cv2.floodFill(flat, seen, (x, y), 0, _NEAR, _NEAR, 4 | cv2.FLOODFILL_MASK_ONLY)[0]
            if SHARES[0] * total <= area <= SHARES[1] * total:
                yield Region((seen != before)[1:-1, 1:-1], "region")


def moving_regions(moment: Moment) -> Iterator[Region]:
    """Connected parts that move against the picture's median motion, without the still surroundings."""
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (moment.picture, moment.before)]
    none = np.zeros((*greys[0].shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(greys[0], greys[1], none)
    speed = np.linalg.norm(flow - np.median(flow, (0, 1)), axis=2)
    total, still = speed.size, moment.still()
    for threshold in (1.5, 4.0):
        fast = cv2.morphologyEx((speed > threshold).astype(np.uint8), cv2.MORPH_CLOSE, _disk(7))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(fast, connectivity=4)
        for number in range(1, count):
            if SHARES[0] * total <= stats[number, cv2.CC_STAT_AREA] <= SHARES[1] * total:
                yield Region(labels == number, "moving", still)


def cut(picture: Image, region: Region) -> Cut | None:
    """The object that the region is a part of, or None if it has no good outline."""
    height, width = region.mask_hw.shape
    x, y, w, h = cv2.boundingRect(region.mask_hw.astype(np.uint8))
    grow = round(0.25 * max(w, h)) + 8
    left, top = max(x - grow, 0), max(y - grow, 0)
    right, bottom = min(x + w + grow, width), min(y + h + grow, height)
    box = (slice(top, bottom), slice(left, right))
    outside = np.zeros((bottom - top, right - left), np.bool_)
    if region.outside_hw is not None:
        outside = _from_the_rim(region.outside_hw[box])
    found = _grab(picture[box], region.mask_hw[box] & ~outside, outside)
    mask = np.zeros((height, width), np.bool_)
    mask[box] = found
    if not SHARES[0] <= mask.mean() <= SHARES[1] or _edge_share(mask) > MAX_EDGE_SHARE:
        return None
    step, solidity = _step(picture, mask), _solidity(mask)
    return Cut(mask, region.kind, step) if step >= MIN_STEP and solidity >= MIN_SOLIDITY else None


def best_cuts(picture: Image, regions: Iterator[Region]) -> list[Cut]:
    """Different objects of a picture, those with the clearest outline first."""
    kept: list[Cut] = []
    tried: list[Bits] = []
    for region in regions:
        if any(_iou(region.mask_hw, other) > SAME for other in tried):
            continue
        tried.append(region.mask_hw)
        found = cut(picture, region)
        if found is not None and all(_iou(found.mask_hw, other.mask_hw) < SAME for other in kept):
            kept.append(found)
    return sorted(kept, key=lambda item: -item.step)[:MAX_A_PICTURE]


def with_alpha(picture: Image, mask_hw: Bits) -> Image:
    """The object as BGRA, cropped; what lies outside takes the colours of the rim, so that nothing bleeds in."""
    x, y, w, h = cv2.boundingRect(mask_hw.astype(np.uint8))
    rows = slice(max(y - MARGIN, 0), y + h + MARGIN)
    columns = slice(max(x - MARGIN, 0), x + w + MARGIN)
    inner = cv2.erode(mask_hw.astype(np.uint8), _disk(3))[rows, columns]
    colours = picture[rows, columns]
    if inner.any():
        colours = spread(colours, inner > 0)
    alpha = cv2.GaussianBlur(mask_hw.astype(np.float32), (0, 0), 0.8)[rows, columns]
    return np.dstack([colours, np.round(255 * alpha).astype(np.uint8)])


def moments(path: Path, count: int) -> Iterator[Moment]:
    """Spread over the video, scaled to PICTURE_SIDE."""
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    first = max(min(2 * GAP, total - 1), 0)
    wanted = {round(first + (total - 1 - first) * (k + 0.5) / count) for k in range(count)}
    last: deque[Image] = deque(maxlen=2 * GAP + 1)
    for number in range(max(wanted) + 1):
        there, frame = video.read()
        if not there:
            break
        scale = PICTURE_SIDE / max(frame.shape[:2])
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        last.append(np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8))
        if number in wanted:
            yield Moment(number, last[-1], last[len(last) // 2], last[0])
    video.release()


def fill(path: Path, out: Path, count: int) -> list[Entry]:
    """Cut out what one video shows; the entries of its files. Still regions of every third picture are enough."""
    clip, entries = path.stem, []
    (out / clip).mkdir(parents=True, exist_ok=True)
    for place, moment in enumerate(moments(path, count)):
        cv2.setRNGSeed(moment.number + 1)
        regions = list(moving_regions(moment))
        if place % 3 == 0:
            entries.append(Entry(f"{clip}/picture-{moment.number:04d}.png", clip, moment.number, "picture", 1.0, 0.0))
            cv2.imwrite(str(out / entries[-1].file), moment.picture)
            regions += even_regions(moment.picture)
        for rank, item in enumerate(best_cuts(moment.picture, iter(regions))):
            file = f"{clip}/{item.kind}-{moment.number:04d}-{rank:02d}.png"
            cv2.imwrite(str(out / file), with_alpha(moment.picture, item.mask_hw))
            share, step = round(float(item.mask_hw.mean()), 4), round(item.step, 1)
            entries.append(Entry(file, clip, moment.number, item.kind, share, step))
    return entries


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=30, help="pictures of each video")
    options = parser.parse_args()
    videos = sorted(path for path in options.clips.glob("*") if path.suffix.lower() in ENDINGS)
    if not videos:
        parser.error(f"{options.clips} has no video; expected {', '.join(ENDINGS)}")
    entries: list[Entry] = []
    for path in videos:
        entries += fill(path, options.out, options.frames)
        num_cuts = sum(entry.clip == path.stem and entry.kind != "picture" for entry in entries)
        print(f"{path.stem}: {num_cuts} cut-outs", flush=True)
    write_index(options.out, entries)


def _from_the_rim(still: Bits) -> Bits:
    """The parts that reach the edge of the crop."""
    _, labels = cv2.connectedComponents(still.astype(np.uint8), connectivity=4)
    reached = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.asarray(np.isin(labels, reached[reached > 0]), np.bool_)


def _grab(part: Image, inside: Bits, outside: Bits) -> Bits:
    """GrabCut: the region's core is the object for sure, the crop's rim and what is `outside` are not."""
    marks = np.full(inside.shape, cv2.GC_PR_BGD, np.uint8)
    marks[inside] = cv2.GC_PR_FGD
    radius = max(1, round(math.sqrt(inside.sum()) / 10))
    marks[cv2.erode(inside.astype(np.uint8), _disk(2 * radius + 1)) > 0] = cv2.GC_FGD
    rim = np.ones(inside.shape, np.bool_)
    rim[3:-3, 3:-3] = False
    marks[(rim & ~inside) | outside] = cv2.GC_BGD
    if not (marks == cv2.GC_BGD).any() or not inside.any():
        return inside
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(part, marks, (0, 0, 0, 0), *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(cv2.morphologyEx(found, cv2.MORPH_OPEN, _disk(5)), cv2.MORPH_CLOSE, _disk(5))
    outlines, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = np.zeros_like(found)
    if outlines:
        cv2.drawContours(solid, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return solid > 0


def _step(picture: Image, mask: Bits) -> float:
    """Mean distance in Lab between the two sides of the outline, each averaged over 7 pixels."""
    lab = cv2.cvtColor(picture, cv2.COLOR_BGR2LAB).astype(np.float32)
    sides = [_local_mean(lab, side) for side in (mask, ~mask)]
    outline = (cv2.dilate(mask.astype(np.uint8), _disk(3)) > 0) & ~mask
    return float(np.linalg.norm(sides[0] - sides[1], axis=2)[outline].mean()) if outline.any() else 0.0


def _local_mean(values: NDArray[np.float32], where: Bits) -> NDArray[np.float32]:
    weight = cv2.blur(where.astype(np.float32), (7, 7))
    return np.asarray(cv2.blur(values * where[..., None], (7, 7)) / np.maximum(weight, 1e-3)[..., None], np.float32)


def _solidity(mask: Bits) -> float:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(outline))
    return cv2.contourArea(outline) / hull if hull else 0.0


def _edge_share(mask: Bits) -> float:
    on_edge = int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return on_edge / max(1, sum(len(outline) for outline in outlines))


def _iou(one: Bits, other: Bits) -> float:
    union = int((one | other).sum())
    return float((one & other).sum()) / union if union else 1.0


def _disk(size: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


if __name__ == "__main__":
    main()
