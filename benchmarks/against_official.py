"""How long does a frame take, the official predictor's way and ours, on the same weights and frames in one run?

Both run eagerly on the CPU, frame by frame in turn (so that a drifting machine hits both alike), after their memories
are full. The official predictor runs as shipped (fp32, objects one after the other); ours in fp32 and in its default
precision, all objects as a batch. Times include the up-sampling of the masks to the frame. The last line is one JSON
object. Never downloads weights.

    python benchmarks/against_official.py [--model nano] [--objects 1 2 4] [--frames 60] [--random-weights SEED]
    [--save FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from engines.eager import EagerEngine
from engines.synthetic import ClipSpec, SyntheticClip
from engines.weights import build_model, model_config
from stream.device import resolve_dtype
from stream.tracker import Tracker

SEED = 3_200_000_000
WARM_UP = 18  # frames until 7 memories and 16 pointers are there
CPU = torch.device("cpu")


class Official:
    """`SAM2VideoPredictor` over a folder of pictures, one frame a call."""

    def __init__(self, model: str, network: SAM2Base, folder: Path, clip: SyntheticClip) -> None:
        config = model_config(model)
        config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
        self._predictor: Any = instantiate(config, _recursive_=True).eval()
        self._predictor.load_state_dict(network.state_dict())
        self._state = self._predictor.init_state(str(folder))
        for index in range(clip.spec.num_objects):
            self._predictor.add_new_points_or_box(self._state, 0, index, points=[clip.click(index)], labels=[1])

    def step(self, number: int, _: NDArray[np.uint8]) -> NDArray[np.bool_]:
        frames = self._predictor.propagate_in_video(self._state, start_frame_idx=number, max_frame_num_to_track=0)
        return np.asarray(next(iter(frames))[2][:, 0].numpy() > 0)


class Ours:
    """`Tracker`, one frame a call."""

    def __init__(self, model: str, network: SAM2Base, dtype: torch.dtype, clip: SyntheticClip) -> None:
        self._tracker = Tracker(EagerEngine(network, name=model, device=CPU, dtype=dtype))
        for index in range(clip.spec.num_objects):
            self._tracker.add(index, points=[(*clip.click(index), 1)])

    def step(self, _: int, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return self._tracker.step(frame).masks_nhw


def timed(step: Callable[[], NDArray[np.bool_]]) -> tuple[float, NDArray[np.bool_]]:
    start = time.perf_counter()
    masks = step()
    return (time.perf_counter() - start) * 1e3, masks


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = (a | b).sum()
    return 1.0 if union == 0 else float((a & b).sum() / union)


def run(options: argparse.Namespace, network: SAM2Base, num_objects: int) -> dict[str, Any]:
    size, count = network.image_size, WARM_UP + options.frames
    clip = SyntheticClip(ClipSpec(seed=SEED, num_frames=count, height=size, width=size, num_objects=num_objects))
    default = resolve_dtype("auto", CPU)
    with tempfile.TemporaryDirectory() as name:
        frames = []
        for number in range(count):
            cv2.imwrite(f"{name}/{number:05d}.jpg", clip.frame(number))
            frames.append(cv2.imread(f"{name}/{number:05d}.jpg"))
        ways: dict[str, Official | Ours] = {
            "official fp32": Official(options.model, network, Path(name), clip),
            "ours fp32": Ours(options.model, network, torch.float32, clip),
            f"ours default ({default})": Ours(options.model, network, default, clip),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        agreement: dict[str, list[float]] = {way: [] for way in ways}
        for number, frame in enumerate(frames):
            found = {way: timed(partial(it.step, number, frame)) for way, it in ways.items()}
            for way, (ms, masks) in found.items():
                if number >= WARM_UP:
                    times[way].append(ms)
                    agreement[way].append(iou(masks, found["official fp32"][1]))
    base = statistics.median(times["official fp32"])
    return {
        way: {
            "median_ms": round(statistics.median(values), 2),
            "p99_ms": round(float(np.percentile(values, 99)), 2),
            "times_as_fast": round(base / statistics.median(values), 2),
            "mean_iou_with_official": round(statistics.mean(agreement[way]), 4),
        }
        for way, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--random-weights", type=int, metavar="SEED", default=None)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    network = build_model(options.model, random_seed=options.random_weights)
    results = {str(count): run(options, network, count) for count in options.objects}
    for count, ways in results.items():
        for way, figures in ways.items():
            print(f"{count} objects  {way:32}", *(f"{key}={value}" for key, value in figures.items()))
    report = {
        "benchmark": "against_official",
        "model": options.model,
        "weights": "embedded" if options.random_weights is None else f"random, seed {options.random_weights}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "objects": results,
    }
    if options.save is not None:
        options.save.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
