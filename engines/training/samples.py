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
from engines.synthetic.hard import HardClip, HardSpec
from engines.training.shelf import Shelf

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
    hard_share: float = 0.0
    """So many scenes are hard ones."""
    shelf: Shelf | None = None
    """Real textures for the hard scenes; None: generated ones only."""


def normalise(frames_hwc: NDArray[np.uint8]) -> torch.Tensor:
    """BGR uint8 (..., H, W, 3) -> normalised RGB (..., 3, H, W)."""
    rgb = torch.from_numpy(np.ascontiguousarray(frames_hwc[..., ::-1])).movedim(-1, -3).float() / 255
    return (rgb - _MEAN) / _STD


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip as one row of a batch sees it."""

    clip: SyntheticClip | HardClip
    size: int
    stride: int
    mirrored: bool

    def at(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Picture (H, W, 3) and masks (objects, H, W) of the `step`-th frame shown."""
        t = step * self.stride
        picture, visible = _shown(self.clip, t)
        frame = _squash(picture, self.size, cv2.INTER_LINEAR)
        stacked = visible.astype(np.uint8).transpose(1, 2, 0)
        masks = _squash(stacked, self.size, cv2.INTER_NEAREST).transpose(2, 0, 1).astype(np.bool_)
        return (frame[:, ::-1], masks[..., ::-1]) if self.mirrored else (frame, masks)


def _shown(clip: SyntheticClip | HardClip, t: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return clip.show(t) if isinstance(clip, HardClip) else (clip.frame(t), clip.masks(t))


def _draw_scene(rng: np.random.Generator, recipe: Recipe) -> Scene:
    size = recipe.image_size
    stride = int(rng.integers(1, recipe.max_stride + 1))
    aspect = float(rng.choice([1.0, 1.0, 0.75, 0.5625]))
    if recipe.hard_share and rng.random() < recipe.hard_share:
        return Scene(_draw_hard(rng, recipe, round(size * aspect / 4) * 4), size, stride, bool(rng.random() < 0.5))
    spec = ClipSpec(
        seed=int(rng.integers(len(TRAINING_SEEDS))),
        num_frames=recipe.num_frames * stride,
        height=round(size * aspect / 4) * 4,
        width=size,
        num_objects=recipe.num_objects,
        num_distractors=int(rng.integers(0, 3)),
        speed=float(rng.uniform(0.5, 1.3)),
        leave_probability=0.35,
        noise=float(rng.uniform(0, 6)),
    )
    return Scene(SyntheticClip(spec), size, stride, mirrored=bool(rng.random() < 0.5))


def _draw_hard(rng: np.random.Generator, recipe: Recipe, height: int) -> HardClip:
    spec = HardSpec(
        seed=int(rng.integers(len(TRAINING_SEEDS))),
        num_frames=recipe.num_frames * recipe.max_stride,
        height=height,
        width=recipe.image_size,
        num_objects=recipe.num_objects,
        speed=float(rng.uniform(0.4, 1.5)),
        noise=float(rng.uniform(0, 8)),
    )
    return HardClip(spec, recipe.shelf.draw(rng) if recipe.shelf and rng.random() < 0.8 else ())


def _show(scenes: list[Scene], steps: range) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pictures (B, T, H, W, 3) and masks (B, N, T, H, W)."""
    shown = [[scene.at(step) for step in steps] for scene in scenes]
    frames = np.stack([np.stack([frame for frame, _ in row]) for row in shown])
    masks = np.stack([np.stack([masks for _, masks in row], 1) for row in shown])
    return frames, masks


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
    frames, masks = _show([_draw_scene(rng, scene) for _ in range(scene.num_clips)], range(scene.num_frames))
    if recipe.num_frames > 1:
        _cut_away(rng, frames, masks)
    batch = Batch(normalise(frames), torch.from_numpy(masks.astype(np.float32)))
    if recipe.num_frames > 1:
        return batch
    masks_bnthw = batch.masks_bnthw.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return Batch(batch.frames_btchw.flatten(0, 1)[:, None], masks_bnthw)


class LiveClips:
    """Clips of equal length that are shown a few frames at a time; written by the thread that shows them."""

    def __init__(self, rng: np.random.Generator, recipe: Recipe) -> None:
        self._scenes = [_draw_scene(rng, recipe) for _ in range(recipe.num_clips)]
        self._num_frames = recipe.num_frames
        self._cuts = [_draw_cut(rng, recipe.num_frames) for _ in self._scenes]
        self.shown = 0

    @property
    def is_over(self) -> bool:
        """No frame is left."""
        return self.shown >= self._num_frames

    def take(self, num_frames: int) -> Batch:
        """The next frames of every clip."""
        steps = range(self.shown, min(self.shown + num_frames, self._num_frames))
        frames, masks = _show(self._scenes, steps)
        original = frames.copy()
        for row, cut in enumerate(self._cuts):
            for place, step in enumerate(steps):
                if step in cut:
                    frames[row, place] = original[(row + 1) % len(original), place]
                    masks[row, :, place] = False
        self.shown = steps.stop
        return Batch(normalise(frames), torch.from_numpy(masks.astype(np.float32)))


def _draw_cut(rng: np.random.Generator, num_frames: int) -> range:
    """The frames at which a clip shows another scene; for most clips none."""
    if num_frames < 2 or rng.random() >= CUT_PROBABILITY:
        return range(0)
    start = 1 if rng.random() < 0.3 else int(rng.integers(1, num_frames))
    return range(start, start + int(rng.integers(1, 5)))


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
