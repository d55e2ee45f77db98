"""Do masks of real things get better when their edges are drawn to the picture's, and how coarse must they be for that?

The masks are those that were drawn by hand on the clips of `../shared/clips` (`benchmarks/key_masks`), made as coarse
as a model's: 48 (nano), 64 and 256 (SAM 2) pixels a side, blurred by 0.7 of them. So only the edges are wrong, and no
model takes part. Time is of the thread on one core, for one object. The last line is one JSON object. Never: writes a
picture of the clips.

    python benchmarks/edges.py [--save FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.drawn import DrawnClip, read_drawn
from benchmarks.machine import ROOT, conclude, machine_facts
from stream.footage import open_footage
from stream.quality import Scene, SequenceScorer
from stream.readout import read_out
from stream.refine import GuidedEdges
from stream.sequence import LabelledFrame

KEYS, CLIPS = ROOT / "benchmarks" / "key_masks", ROOT.parent / "shared" / "clips"
LOW_RES = (48, 64, 256)
SHARPNESS, BLUR = 10.0, 0.7  # logits of a sure pixel; of the coarse masks' own pixels

Bits = NDArray[np.bool_]
Image = NDArray[np.uint8]


def drawn_masks(drawn: DrawnClip) -> Iterator[tuple[Image, Bits]]:
    """Every drawn picture with each of its objects."""
    for picture in open_footage(CLIPS / drawn.file).pictures():
        if picture.index in drawn.frames:
            masks = [drawn.mask(picture.index, name) for name in drawn.clicks]
            yield from ((picture.image_hwc, mask) for mask in masks if mask.any())
        if picture.index >= max(drawn.frames):
            return


def coarse(mask: Bits, size: int) -> torch.Tensor:
    """As a model's logits."""
    small = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(2 * SHARPNESS * (cv2.GaussianBlur(small, (0, 0), BLUR) - 0.5))[None]


def enlarged(logits: torch.Tensor, picture: Image, *, is_guided: bool) -> Bits:
    size = picture.shape[0], picture.shape[1]
    guides = [GuidedEdges(picture)] if is_guided else []
    (block,) = read_out([(logits, torch.zeros(1), torch.zeros(1))], [size], [guides])
    return np.unpackbits(block.packed_nhb[0], axis=1, count=size[1]).astype(np.bool_)


def score(truth: Bits, found: Bits) -> tuple[float, float]:
    """J and F."""
    scorer = SequenceScorer(Scene("", (truth.shape[0], truth.shape[1])), skip_ends=False)
    scorer.put(LabelledFrame(0, {1: truth}), LabelledFrame(0, {1: found}))
    (item,) = scorer.score().objects
    return item.j[0], item.f[0]


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    clips = [read_drawn(path) for path in sorted(KEYS.glob("*.txt"))]
    missing = [drawn.file for drawn in clips if not (CLIPS / drawn.file).is_file()]
    if missing:
        parser.error(f"{CLIPS} has no {missing[0]}; expected the clips of facebookresearch/sam2's demo")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found: dict[tuple[int, bool, str], list[tuple[float, ...]]] = {}
    for drawn in clips:
        for picture, truth in drawn_masks(drawn):
            for size, is_guided in ((size, way) for size in LOW_RES for way in (False, True)):
                start = time.thread_time()
                mask = enlarged(coarse(truth, size), picture, is_guided=is_guided)
                taken_ms = (time.thread_time() - start) * 1e3
                found.setdefault((size, is_guided, drawn.name), []).append((*score(truth, mask), taken_ms))
    rows: list[dict[str, Any]] = []
    for size, is_guided in ((size, way) for size in LOW_RES for way in (False, True)):
        by_clip = {name: values for (s, way, name), values in found.items() if (s, way) == (size, is_guided)}
        j, f, ms = np.mean([value for values in by_clip.values() for value in values], axis=0)
        row = {"mask_pixels": size, "upsample": "guided" if is_guided else "bilinear", "j": round(j, 4)}
        row |= {"f": round(f, 4), "ms": round(ms, 1)}
        rows.append(row | {"j_by_clip": {k: round(float(np.mean(v, axis=0)[0]), 4) for k, v in by_clip.items()}})
        print(rows[-1], flush=True)
    num_masks = sum(len(values) for (size, way, _), values in found.items() if (size, way) == (LOW_RES[0], False))
    result = {"benchmark": "edges", **machine_facts(), "masks": num_masks, "rows": rows}
    conclude(result, options.save)


if __name__ == "__main__":
    main()
