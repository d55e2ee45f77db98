"""Batches of generated clips for training, made in background processes.

Owns the sampling of scenes (sizes, aspect ratios, how many frames and how far apart). Runs in the main thread of the
data workers, or of the training process. Never touches a model; never draws a held-out seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from engines.synthetic import TRAINING_SEEDS, ClipSpec, SyntheticClip

CUT_PROBABILITY = 0.25
"""So many clips are interrupted by another scene: rare in nature, but it teaches when nothing is there."""
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips of equal length; every object of every clip is one row to be tracked."""

    frames_btchw: torch.Tensor
    """Normalised RGB, float32."""
    masks_bnthw: torch.Tensor
    """Visible part of each object, float32 0 or 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a batch is made of."""

    image_size: int
    num_clips: int
    num_frames: int
    num_objects: int = 3
    max_stride: int = 3
    """Frames of a clip are drawn this far apart at most; 1 is full speed."""


def normalise(frames_hwc: NDArray[np.uint8]) -> torch.Tensor:
    """BGR uint8 (..., H, W, 3) -> normalised RGB (..., 3, H, W)."""
    rgb = torch.from_numpy(np.ascontiguousarray(frames_hwc[..., ::-1])).movedim(-1, -3).float() / 255
    return (rgb - _MEAN) / _STD


def _sample_clip(rng: np.random.Generator, recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    size = recipe.image_size
    stride = int(rng.integers(1, recipe.max_stride + 1))
    aspect = float(rng.choice([1.0, 1.0, 0.75, 0.5625]))
    height = round(size * aspect / 4) * 4
    spec = ClipSpec(
        seed=int(rng.integers(len(TRAINING_SEEDS))),
        num_frames=recipe.num_frames * stride,
        height=height,
        width=size,
        num_objects=recipe.num_objects,
        num_distractors=int(rng.integers(0, 3)),
        speed=float(rng.uniform(0.5, 1.3)),
        leave_probability=0.35,
        noise=float(rng.uniform(0, 6)),
    )
    clip = SyntheticClip(spec)
    times = range(0, spec.num_frames, stride)
    frames = np.stack([_squash(clip.frame(t), size, cv2.INTER_LINEAR) for t in times])
    masks = np.stack(
        [_squash(clip.masks(t).astype(np.uint8).transpose(1, 2, 0), size, cv2.INTER_NEAREST) for t in times]
    )
    masks_nthw = masks.transpose(3, 0, 1, 2).astype(np.bool_)
    if rng.random() < 0.5:
        frames, masks_nthw = frames[:, :, ::-1], masks_nthw[..., ::-1]
    return frames, masks_nthw


def _squash(picture: NDArray[np.uint8], size: int, interpolation: int) -> NDArray[np.uint8]:
    """To a square, whatever its sides were, as the model sees it; always (H, W, channels)."""
    scaled = np.asarray(cv2.resize(picture, (size, size), interpolation=interpolation), np.uint8)
    return scaled.reshape(size, size, -1)


def _cut_away(rng: np.random.Generator, frames_bthwc: NDArray[np.uint8], masks_bnthw: NDArray[np.bool_]) -> None:
    """In place: some clips show another scene for a few frames, where none of their objects is, and come back."""
    original, num_frames = frames_bthwc.copy(), frames_bthwc.shape[1]
    for clip in range(len(original)):
        if rng.random() >= CUT_PROBABILITY:
            continue
        start = 1 if rng.random() < 0.5 else int(rng.integers(1, num_frames))
        stop = start + int(rng.integers(1, 5))
        frames_bthwc[clip, start:stop] = original[(clip + 1) % len(original), start:stop]
        masks_bnthw[clip, :, start:stop] = False


def draw_batch(rng: np.random.Generator, recipe: Recipe) -> Batch:
    """One batch. Still pictures come two to a scene, far apart in time, which halves their cost."""
    scene = recipe
    if recipe.num_frames == 1:
        scene = replace(recipe, num_clips=recipe.num_clips // 2, num_frames=2, max_stride=30)
    parts = [_sample_clip(rng, scene) for _ in range(scene.num_clips)]
    frames, masks = (np.stack(part) for part in zip(*parts, strict=True))
    if recipe.num_frames > 1:
        _cut_away(rng, frames, masks)
    batch = Batch(normalise(frames), torch.from_numpy(masks.astype(np.float32)))
    if recipe.num_frames > 1:
        return batch
    masks_bnthw = batch.masks_bnthw.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return Batch(batch.frames_btchw.flatten(0, 1)[:, None], masks_bnthw)


class ClipStream(IterableDataset[Batch]):
    """An endless stream of batches; each worker process draws its own seeds."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe = recipe
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self._seed, info.id if info else 0))
        while True:
            yield draw_batch(rng, self._recipe)


def batches(recipe: Recipe, seed: int, *, num_workers: int = 1) -> Iterator[Batch]:
    """Endless batches, prefetched by `num_workers` processes (0: made in this thread)."""
    loader = DataLoader(
        ClipStream(recipe, seed), batch_size=None, num_workers=num_workers, prefetch_factor=4 if num_workers else None
    )
    return iter(loader)
