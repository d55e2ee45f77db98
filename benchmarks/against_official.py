"""How long does a frame take, the official predictor's way and ours, on the same weights and frames in one run?

All ways take turns frame by frame (so that a drifting machine hits all alike), with full memories. On a CPU the
official predictor runs as shipped (fp32, eager, objects one after the other), under bf16 autocast (the yardstick for
what bf16 may do to masks), and as a camera would drive it: one picture at a time, resized on arrival, never told the
future. On CUDA it runs in fp32, under bf16 autocast, and `vos_optimized=True` under bf16 autocast (that path has never
run: no GPU was at hand; give it `--settle 10`). Ours: eager in fp32, eager in the machine's default precision,
compiled, and on CUDA through TensorRT; all objects as a batch. Our times and the camera's include resizing the picture;
all include up-sampling the masks.

`--fill tracked`: everyone clicks on frame 0 and tracks 18 frames before any is measured. `--fill given`: everyone gets
the same full memory, made from the clip's true masks (`official/given.py`), which spares minutes at 1024 pixels.
Ceiling: the operations of a frame at the rate of this machine's best matrix product in the same precision. The last
line is one JSON object. Never downloads weights.

    python benchmarks/against_official.py [--model nano] [--image-size N] [--objects 1 2 4 8] [--frames 60] [--settle 1]
    [--fill tracked|given] [--ways "official fp32" compiled ...] [--random-weights SEED] [--device auto] [--save FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import conclude, machine_facts
from benchmarks.official.bench import WAYS, Bench


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", default=None)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--settle", type=int, default=1, help="frames with full memory before the first that counts")
    parser.add_argument("--fill", choices=("tracked", "given"), default="tracked")
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", default=None, help="of: " + ", ".join(WAYS))
    parser.add_argument("--random-weights", type=int, metavar="SEED", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.simplefilter("ignore")
    bench = Bench(options)
    seed = options.random_weights
    report = {
        "benchmark": "against_official",
        "model": options.model,
        "image_size": bench.network.image_size,
        "weights": ("embedded" if options.model == "nano" else "trained") if seed is None else f"random, seed {seed}",
        "memory": options.fill,
        "frames": options.frames,
        "gflop": {stage: round(value, 2) for stage, value in bench.operations.items()},
        **({"missing": bench.missing} if bench.missing else {}),
        **machine_facts(),
        "objects": {},
    }
    for count in options.objects:
        report["objects"][str(count)] = figures = bench.run(count)
        for way, values in figures.items():
            print(f"{count} objects  {way:28}", *(f"{key}={value}" for key, value in values.items()), flush=True)
    report["matmul_gflop_per_s"] = {
        str(dtype).removeprefix("torch."): round(peak) for dtype, peak in bench.peaks.items()
    }
    conclude(report, options.save, indent=1)


if __name__ == "__main__":
    main()
