"""Does the nano model follow objects better when dark or grainy pictures are enhanced for it?

Generated clips (evaluation seeds) of 640x480 are made dark (6 % of the light) or grainy (noise as coarse as two
pixels), and followed from one click each, as they are and enhanced. J over all pictures but the first; time is of the
thread on one core, for one picture. The last line is one JSON object.

    python benchmarks/enhance.py [--clips 6] [--frames 20] [--save FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import conclude, machine_facts
from benchmarks.nano_quality import iou
from engines.synthetic import EVALUATION_SEEDS, ClipSpec, SyntheticClip
from stream.config import EnhanceOptions
from stream.enhance import enhanced
from stream.tracker import Tracker

Image = NDArray[np.uint8]


def as_it_is(picture: Image, random: np.random.Generator) -> Image:
    """A sensor's usual noise is in the clip already."""
    return picture


def dark(picture: Image, random: np.random.Generator) -> Image:
    """6 % of the light, and a noise of 3 levels that does not get less."""
    return np.clip(picture * 0.06 + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def grainy(picture: Image, random: np.random.Generator) -> Image:
    """Noise of 60 levels, as coarse as two pixels."""
    grain = cv2.GaussianBlur(random.standard_normal(picture.shape, np.float32), (0, 0), 2.0)
    return np.clip(picture + grain * (60 / float(grain.std())), 0, 255).astype(np.uint8)


OFF, LIGHT = EnhanceOptions(), EnhanceOptions(low_light=1.0)
HALF, WHOLE = EnhanceOptions(denoise=0.5), EnhanceOptions(denoise=1.0)
CASES: tuple[tuple[Callable[[Image, np.random.Generator], Image], EnhanceOptions], ...] = (
    (as_it_is, OFF), (as_it_is, LIGHT), (as_it_is, HALF), (dark, OFF), (dark, LIGHT), (grainy, OFF), (grainy, HALF),
    (grainy, WHOLE),
)  # fmt: skip


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tracker = Tracker.load("nano", device="cpu", dtype="fp32")
    scores: list[list[float]] = [[] for _ in CASES]
    times_s: list[list[float]] = [[] for _ in CASES]
    for seed in EVALUATION_SEEDS[: given.clips]:
        clip = SyntheticClip(ClipSpec(seed=seed, num_frames=given.frames, height=480, width=640))
        frames = [(clip.frame(index), clip.masks(index)) for index in range(given.frames)]
        for number, (spoil, options) in enumerate(CASES):
            random = np.random.default_rng(seed)
            tracker.reset()
            for thing in range(clip.spec.num_objects):
                tracker.add(thing, points=[(*clip.click(thing), 1)])
            for index, (frame, truth) in enumerate(frames):
                picture = spoil(frame, random)
                start = time.thread_time()
                seen = enhanced(picture, options)
                times_s[number].append(time.thread_time() - start)
                masks = tracker.step(seen).masks_nhw
                scores[number] += [iou(*pair) for pair in zip(masks, truth, strict=True)] if index else []
    rows = [
        {"pictures": spoil.__name__, "denoise": options.denoise, "low_light": options.low_light,
         "j": round(float(np.mean(score)), 4), "ms": round(float(np.mean(times)) * 1e3, 1)}
        for (spoil, options), score, times in zip(CASES, scores, times_s, strict=True)
    ]  # fmt: skip
    print(*rows, sep="\n")
    size = {"clips": given.clips, "frames": given.frames, "height": 480, "width": 640, "objects": 2}
    result = {"benchmark": "enhance", **machine_facts(), "model": "nano", **size, "rows": rows}
    conclude(result, given.save)


if __name__ == "__main__":
    main()
