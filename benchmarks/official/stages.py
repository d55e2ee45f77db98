"""How long the stages of a frame take: `encode`, `attend`, `decode`, `remember`, and whatever else.

Owns: the clocks put around the official predictor's methods and our modules. One thread. Never: changes a result.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.machine import synchronize
from engines.graphs import Track

NAMES = ("encode", "attend", "decode", "remember")
_OF_TRACK = ("attend", "decode", "remember")


class Stages:
    """Milliseconds of each stage of each frame of each way. Off until `on` is set: waiting for a GPU at every stage
    costs time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self._frames: dict[str, list[dict[str, float]]] = {}
        self._frame: dict[str, float] = {}

    def begin(self, way: str) -> None:
        """A new frame of this way."""
        self._frame = {}
        if self.on:
            self._frames.setdefault(way, []).append(self._frame)

    def end(self, total_ms: float) -> None:
        """The frame is done; what no stage claims is `other`."""
        self._frame["other"] = total_ms - sum(self._frame.values())

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Time every call of a method of this one object."""
        setattr(owner, method, self._timed(getattr(owner, method), stage))

    def medians(self, way: str) -> dict[str, float]:
        frames = self._frames.get(way, [])
        names = dict.fromkeys(name for frame in frames for name in frame)
        return {name: round(statistics.median(frame.get(name, 0.0) for frame in frames), 2) for name in names}

    def forget(self) -> None:
        """Another scene begins."""
        self._frames.clear()

    def _timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return call(*args, **kwargs)
            synchronize(self.device)
            start = time.perf_counter()
            result = call(*args, **kwargs)
            synchronize(self.device)
            self._frame[stage] = self._frame.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
            return result

        return timed


def watch_official(stages: Stages, predictor: Any) -> None:
    for owner, method, stage in (
        (predictor, "forward_image", "encode"),
        (predictor.memory_attention, "forward", "attend"),
        (predictor, "_forward_sam_heads", "decode"),
        (predictor, "_encode_new_memory", "remember"),
    ):
        stages.watch(owner, method, stage)


def watch_ours(stages: Stages, engine: Any) -> None:
    """An engine whose modules run as such shows all four stages; captured and built programs only `encode` and
    `track`.
    """
    stages.watch(engine, "encode", "encode")
    tracks = {id(module): module for module in _modules(engine) if isinstance(module, Track)}
    if not tracks or getattr(engine, "installed", ()):
        stages.watch(engine, "track", "track")
        return
    for track in tracks.values():
        for stage in _OF_TRACK:
            stages.watch(getattr(track, stage), "forward", stage)


def _modules(engine: Any) -> Iterator[nn.Module]:
    """The modules of an engine, and of the engine inside it."""
    for value in vars(engine).values():
        if isinstance(value, nn.Module):
            yield from value.modules()
        elif hasattr(value, "encode") and hasattr(value, "track"):
            yield from _modules(value)
