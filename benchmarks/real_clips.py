"""Does the tracker follow real things? From one click each, or a mask: the IoU with masks that were drawn by hand.

The clips and their clicks are those of `../shared/clips`, the masks `benchmarks/key_masks/*.txt` (`benchmarks.drawn`):
five pictures of each clip, also after the hard moments. The click is on picture 0; a mask is the first drawn one, and
the other four are scored, so that it does not matter which part of a thing a click means. Where an object is absent,
any mask scores 0 and none scores 1. An object is followed when it scores at least half at every drawn picture, a clip
when all its objects are. With `--prompt each`, a matter of seconds, nothing is followed: every drawn picture is
segmented by itself, from one click where the object is deepest. The last line is one JSON object. Never: writes a
picture of the clips into the repository.

    python benchmarks/real_clips.py [--checkpoint FILE] [--image-size 256] [--prompt mask] [--sheets DIR]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.drawn import Bits, DrawnClip, read_drawn
from benchmarks.machine import ROOT, conclude, machine_facts
from benchmarks.nano_quality import ZOO, iou, load
from engines.build import BACKENDS, EngineRequest, open_engine
from engines.synthetic import deepest_point
from stream.footage import open_footage
from stream.frame import Masks
from stream.tracker import Tracker, TrackerOptions, load_engine

Image = NDArray[np.uint8]
Found = dict[int, tuple[Image, dict[str, Bits]]]  # pictures by number, and the tracker's masks by object

KEYS = ROOT / "benchmarks" / "key_masks"
CLIPS = ROOT.parent / "shared" / "clips"
FOLLOWED = 0.5
TILE = 480  # width of a picture on a contact sheet
_TRUTH, _FOUND = (60, 230, 60), (255, 60, 255)  # BGR


def follow(tracker: Tracker, drawn: DrawnClip, video: Path, *, prompt: str) -> Found:
    """Picture 0, or the first drawn one, and every later drawn one, with the tracker's masks where none was given."""
    start = drawn.frames[0] if prompt == "mask" else 0
    wanted, found = {start, *drawn.frames}, {}
    tracker.reset()
    for object_id, (name, (x, y)) in enumerate(drawn.clicks.items(), 1):
        if prompt == "mask":
            tracker.add(object_id, mask=drawn.mask(start, name))
        else:
            tracker.add(object_id, points=[(x, y, 1)])
    for picture in open_footage(video).pictures(start):
        height, width = picture.image_hwc.shape[:2]
        if (width, height) != drawn.size:
            raise ValueError(f"{video} has pictures of {width}x{height}; its masks were drawn on {drawn.size}")
        masks = tracker.step(picture.image_hwc, time_ns=picture.time_ns)
        if picture.index in wanted:
            named = {} if prompt == "mask" and picture.index == start else _named(drawn, masks)
            found[picture.index] = (picture.image_hwc.copy(), named)
        if picture.index >= max(wanted):
            break
    missing = wanted - found.keys()
    if missing:
        raise ValueError(f"{video} has no picture {min(missing)}; {drawn.num_frames} were expected")
    return found


def glance(tracker: Tracker, drawn: DrawnClip, video: Path) -> Found:
    """Every drawn picture by itself, from a click on each object that is there."""
    found: Found = {}
    for picture in open_footage(video).pictures():
        if picture.index not in drawn.frames:
            continue
        there = {name: drawn.mask(picture.index, name) for name in drawn.clicks}
        tracker.reset()
        for object_id, mask in enumerate(there.values(), 1):
            if mask.any():
                tracker.add(object_id, points=[(*deepest_point(mask), 1)])
        masks = tracker.step(picture.image_hwc, time_ns=picture.time_ns)
        found[picture.index] = (picture.image_hwc.copy(), _named(drawn, masks))
    return found


def _named(drawn: DrawnClip, masks: Masks) -> dict[str, Bits]:
    names = list(drawn.clicks)
    return {names[number - 1]: mask for number, mask in zip(masks.object_ids, masks.masks_nhw, strict=True)}


def scores(drawn: DrawnClip, found: Found) -> dict[str, dict[int, float]]:
    """IoU of every object at every drawn picture where the tracker says something of it."""
    return {
        name: {
            frame: round(iou(masks[name], drawn.mask(frame, name)), 4)
            for frame, (_, masks) in sorted(found.items())
            if frame in drawn.frames and name in masks
        }
        for name in drawn.clicks
    }


def sheet(drawn: DrawnClip, found: Found) -> Image:
    """Three pictures a row: what was drawn is outlined in green, what the tracker says in magenta."""
    tiles = []
    for frame, (picture, masks) in sorted(found.items()):
        canvas, scale = picture.copy(), TILE / picture.shape[1]
        for name, mask in masks.items():
            _outline(canvas, mask, _FOUND)
            if frame in drawn.frames:
                _outline(canvas, drawn.mask(frame, name), _TRUTH)
            else:
                cv2.drawMarker(canvas, tuple(map(round, drawn.clicks[name])), _TRUTH, markerSize=40, thickness=4)
        tile = cv2.resize(canvas, (TILE, round(picture.shape[0] * scale)), interpolation=cv2.INTER_AREA)
        for colour, thickness in ((0, 0, 0), 5), ((255, 255, 255), 2):
            cv2.putText(tile, str(frame), (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, thickness, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    return np.vstack([np.hstack(tiles[start : start + 3]) for start in range(0, len(tiles), 3)])


def _outline(canvas: Image, mask: Bits, colour: tuple[int, int, int]) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, max(2, canvas.shape[1] // 320))


def summary(clips: dict[str, dict[str, dict[int, float]]]) -> dict[str, Any]:
    """The figures of the JSON object."""
    objects = {
        f"{clip}/{name}": list(by_frame.values()) for clip, named in clips.items() for name, by_frame in named.items()
    }
    followed = [name for name, values in objects.items() if min(values) >= FOLLOWED]
    per_clip = {
        clip: float(np.mean([v for row in named.values() for v in row.values()])) for clip, named in clips.items()
    }
    return {
        "mean_iou": round(float(np.mean([value for values in objects.values() for value in values])), 4),
        "clips_followed": sum(all(f"{clip}/{name}" in followed for name in named) for clip, named in clips.items()),
        "num_clips": len(clips),
        "objects_followed": len(followed),
        "num_objects": len(objects),
        "followed": followed,
        "clip_mean_iou": {clip: round(value, 4) for clip, value in per_clip.items()},
        "keys_above_half": sum(value >= FOLLOWED for values in objects.values() for value in values),
        "num_keys": sum(map(len, objects.values())),
        "iou": clips,
    }


def open_tracker(options: argparse.Namespace) -> Tracker:
    """nano with any weights and picture size, or another model as it is."""
    choice = TrackerOptions(memory_policy=options.memory_policy)
    if options.model != "nano":
        return Tracker(load_engine(options.model, options.checkpoint, backend=options.backend), choice)
    checkpoint = options.checkpoint or ZOO / "nano.pt"
    request = EngineRequest("nano", checkpoint, torch.device("cpu"), torch.float32, options.backend)
    return Tracker(open_engine(request, network=load(checkpoint, options.image_size)), choice)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS)
    parser.add_argument("--only", nargs="+", metavar="CLIP", help="these clips, by name")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--backend", choices=BACKENDS, default="eager")
    parser.add_argument("--prompt", choices=("click", "mask", "each"), default="click")
    parser.add_argument("--memory-policy", choices=("sam2", "motion"), default="sam2")
    parser.add_argument("--trained-on", nargs="*", default=[], metavar="CLIP", help="clips whose textures it knows")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets, outside the repository")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args(given)
    options.drawn = [read_drawn(path) for path in sorted(KEYS.glob("*.txt"))]
    options.drawn = [drawn for drawn in options.drawn if options.only is None or drawn.name in options.only]
    if not options.drawn:
        parser.error(f"--only {' '.join(options.only)}: no such clip in {KEYS.relative_to(ROOT)}")
    for drawn in options.drawn:
        if not (options.clips / drawn.file).is_file():
            parser.error(f"{options.clips} has no {drawn.file}; expected the clips of facebookresearch/sam2's demo")
    if options.sheets is not None and options.sheets.resolve().is_relative_to(ROOT):
        parser.error(f"--sheets {options.sheets}: pictures of the clips stay outside the repository")
    return options


def main() -> None:
    """Measure, draw, save."""
    options = arguments()
    torch.set_num_threads(options.threads)
    tracker, clips, seconds, num_pictures = open_tracker(options), {}, 0.0, 0
    for drawn in options.drawn:
        start = time.monotonic()
        video = options.clips / drawn.file
        is_still = options.prompt == "each"
        found = glance(tracker, drawn, video) if is_still else follow(tracker, drawn, video, prompt=options.prompt)
        seconds, num_pictures = seconds + time.monotonic() - start, num_pictures + max(found) + 1 - min(found)
        clips[drawn.name] = scores(drawn, found)
        if options.sheets is not None:
            options.sheets.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(options.sheets / f"{drawn.name}.png"), sheet(drawn, found))
        told = "; ".join(
            f"{name} {' '.join(f'{v:.2f}' for v in row.values())}" for name, row in clips[drawn.name].items()
        )
        print(f"{drawn.name}: {told}", flush=True)
    result = {
        "benchmark": "real_clips",
        "model": options.model,
        "checkpoint": "embedded" if options.checkpoint is None else options.checkpoint.name,
        "trained_on": options.trained_on,
        "prompt": options.prompt,
        "image_size": tracker.image_size,
        "backend": options.backend,
        "memory_policy": options.memory_policy,
        **summary(clips),
        "fps_with_decoding": round(num_pictures / seconds, 1),
        **machine_facts(),
    }
    conclude(result, options.save)


if __name__ == "__main__":
    main()
