"""All ways over one clip, in turns: the networks and engines, the scenes, the clocks, the figures.

One thread. Never: prints or saves.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import matmul_peak, synchronize
from benchmarks.official.given import NUM_FRAMES, NUM_PICTURES, found_objects, picture_of
from benchmarks.official.network import FULLY_COMPILED, PREDICTOR, official_network, operations
from benchmarks.official.plans import planned_engine
from benchmarks.official.stages import Stages, watch_official, watch_ours
from benchmarks.official.ways import Camera, Masks, Official, Ours, Picture, Scene, Way
from engines.compiled import compiled_engine
from engines.eager import EagerEngine
from engines.spec import BackendMissing
from engines.synthetic import ClipSpec, SyntheticClip
from engines.tensorrt import LibraryName
from stream.device import resolve_device, resolve_dtype

SEED = 3_200_000_000
FP32, BF16, VOS = "official fp32", "official bf16", "official vos_optimized bf16"
CAMERA, EAGER_FP32, EAGER, COMPILED = "official camera fp32", "eager fp32", "eager", "compiled"
CPU_WAYS = (FP32, BF16, CAMERA, EAGER_FP32, EAGER, COMPILED)
PLANNED: tuple[LibraryName, ...] = ("tensorrt", "tensorrt-rtx")
CUDA_WAYS = (FP32, BF16, VOS, EAGER, COMPILED, *PLANNED)
WAYS = tuple(dict.fromkeys((*CPU_WAYS, *CUDA_WAYS)))
_NUM_STAGED = 5  # frames on CUDA that are not timed as a whole, since waiting at every stage costs time


@dataclass(slots=True)
class Record:
    """What one way did."""

    times_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    masks: list[Masks] = field(default_factory=list)


class Bench:
    """The networks and engines of all ways; scenes with different numbers of objects run on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, resolve_device(options.device)
        self.ways: Sequence[str] = options.ways or (CPU_WAYS if self.device.type == "cpu" else CUDA_WAYS)
        self.default = resolve_dtype("auto", self.device)
        self.stages = Stages(self.device)
        self.network = self._network(PREDICTOR)
        self.operations = operations(options.model, image_size=options.image_size)
        self.maker = self._eager(torch.float32)
        self.engines: dict[str, Any] = {EAGER_FP32: self.maker}
        if EAGER in self.ways:
            self.engines[EAGER] = self._eager(self.default)
        if COMPILED in self.ways:
            arguments = {"name": options.model, "device": self.device, "dtype": self.default}
            self.engines[COMPILED] = compiled_engine(self.network, **arguments)
        self.missing: dict[str, str] = {}
        for name in PLANNED:
            if name in self.ways:
                self._plan(name)
        self.network = self.network.to(self.device)
        self.optimized = self._network(FULLY_COMPILED).to(self.device) if VOS in self.ways else None
        self.peaks = dict.fromkeys(map(self.dtype_of, self.ways), 0.0)
        for engine in self.engines.values():
            watch_ours(self.stages, engine)
        for network in filter(None, (self.network, self.optimized)):
            watch_official(self.stages, network)

    def _network(self, target: str) -> Any:
        options = self.options
        size, seed = options.image_size, options.random_weights
        return official_network(options.model, image_size=size, random_seed=seed, target=target)

    def _eager(self, dtype: torch.dtype) -> EagerEngine:
        return EagerEngine(self.network, name=self.options.model, device=self.device, dtype=dtype)

    def _plan(self, name: LibraryName) -> None:
        """Ours through TensorRT, or a word on why not."""
        inner = self.engines.get(COMPILED) or self.engines.get(EAGER) or self.maker
        try:
            self.engines[name] = planned_engine(name, self.network, inner, self.options.objects)
        except BackendMissing as error:
            self.missing[name] = str(error)
            self.ways = [way for way in self.ways if way != name]

    def dtype_of(self, way: str) -> torch.dtype:
        if way in self.engines:
            return self.engines[way].dtype
        return torch.bfloat16 if "bf16" in way else torch.float32

    def start(self, way: str, scene: Scene) -> Way:
        if way in self.engines:
            return Ours(self.engines[way], scene)
        if way == CAMERA:
            return Camera(self.network, scene)
        autocast = torch.bfloat16 if "bf16" in way else None
        return Official(self.optimized if way == VOS else self.network, scene, autocast=autocast)

    def run(self, num_objects: int) -> dict[str, Any]:
        """Every way's figures for so many objects."""
        self.stages.forget()
        with tempfile.TemporaryDirectory() as name:
            scene, pictures = self._scene(Path(name), num_objects)
            ways = {way: self.start(way, scene) for way in self.ways}
        first = NUM_FRAMES if self.options.fill == "given" else 0
        measured_from = NUM_FRAMES + self.options.settle
        measured_to = measured_from + self.options.frames
        records = {way: Record() for way in ways}
        order = deque(ways)
        for number in range(first, len(pictures)):
            self.stages.on = number >= (measured_to if self.device.type == "cuda" else measured_from)
            for way in order:
                step = partial(ways[way].step, number, pictures[number])
                record = records[way] if measured_from <= number < measured_to else Record()
                self._timed(way, step, record)
            order.rotate(1)
        for dtype, peak in self.peaks.items():  # the best of all times: others may be at work on this machine
            self.peaks[dtype] = max(peak, matmul_peak(dtype, self.device))
        return {way: self._figures(way, num_objects, records) for way in ways}

    def _timed(self, way: str, step: Callable[[], Masks], record: Record) -> None:
        self.stages.begin(way)
        synchronize(self.device)
        start, cpu_start = time.perf_counter(), time.process_time()
        masks = step()
        record.times_ms.append((time.perf_counter() - start) * 1e3)
        record.cpu_ms.append((time.process_time() - cpu_start) * 1e3)
        record.masks.append(masks)
        self.stages.end(record.times_ms[-1])

    def _scene(self, folder: Path, num_objects: int) -> tuple[Scene, list[Picture]]:
        """The clip as files for the official loader, and its pictures as Pillow reads them (decoders differ a bit)."""
        size, options = self.network.image_size, self.options
        count = NUM_FRAMES + options.settle + options.frames + (_NUM_STAGED if self.device.type == "cuda" else 0)
        is_given = options.fill == "given"
        spec = ClipSpec(seed=SEED, num_frames=count, height=size, width=size, num_objects=num_objects)
        clip = SyntheticClip(spec)
        pictures = []
        for frame in range(count):
            path = folder / f"{frame:05d}.jpg"
            cv2.imwrite(str(path), clip.frame(picture_of(frame) if is_given else frame))
            with Image.open(path) as image:
                pictures.append(np.ascontiguousarray(np.array(image.convert("RGB"))[..., ::-1]))
        given = found_objects(self.maker, clip, pictures[:NUM_PICTURES]) if is_given else None
        return Scene(folder, clip, given, self.maker), pictures

    def _figures(self, way: str, num_objects: int, records: dict[str, Record]) -> dict[str, Any]:
        """Masks are compared with those of the official fp32 run, times with the official ones as shipped."""
        own, times = records[way], records[way].times_ms
        judge = records[next((name for name in (FP32, BF16, VOS) if name in records), way)]
        rival = records[next((name for name in (VOS, FP32, BF16) if name in records), way)]
        ious = [
            iou(*pair)
            for one, other in zip(own.masks, judge.masks, strict=True)
            for pair in zip(one, other, strict=True)
        ]
        median = statistics.median(times)
        ceiling = self._ceiling_ms(self.dtype_of(way), num_objects)
        return {
            "dtype": str(self.dtype_of(way)).removeprefix("torch."),
            "median_ms": round(median, 2),
            "median_cpu_ms": round(statistics.median(own.cpu_ms), 2),
            "p99_ms": round(float(np.percentile(times, 99)), 2),
            "times_as_fast": round(statistics.median(rival.times_ms) / median, 2),
            "ceiling_ms": round(ceiling, 2),
            "share_of_ceiling": round(ceiling / median, 3),
            "mean_iou_with_official": round(statistics.mean(ious), 4),
            "worst_iou_with_official": round(min(ious), 4),
            "stages_ms": self.stages.medians(way),
        }

    def _ceiling_ms(self, dtype: torch.dtype, num_objects: int) -> float:
        """Of a frame's operations at the rate of the best matrix product."""
        each = sum(value for stage, value in self.operations.items() if stage != "encode")
        return 1e3 * (self.operations["encode"] + num_objects * each) / self.peaks[dtype]


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = (a | b).sum()
    return 1.0 if union == 0 else float((a & b).sum() / union)
