"""Batches of the user's clips, drawn and augmented.

Owns: what is drawn, and `VideoBatch`, which has what Meta's `SAM2Train` reads. A batch is a function of the seed and
its number alone, so that a run that goes on sees what it would have seen. Runs in the main thread or in the loader's
processes. Never: touches a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stream.finetune.album import Album
from stream.finetune.augment import augmented, pasted
from stream.finetune.settings import FinetuneError, Settings
from stream.sequence import Bits, Image

MIN_SHARE = 0.0004
"""An object is prompted only where it covers at least this share of the picture: 26 pixels at 256 x 256."""
MAX_SKIP = 4  # pictures from one to the next
REVERSE = 0.3  # probabilities
PASTE = 0.25
LEARN_PASTED = 0.5  # of the pasted ones; the others only hide
NUM_DRAWS = 100
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class VideoBatch:
    """Clips of equal length. The names are those of Meta's `BatchedVideoDatapoint`."""

    flat_img_batch: Tensor  # (clips x frames, 3, h, w), RGB, normalised
    masks: Tensor  # (frames, objects of all clips, h, w) bool
    flat_obj_to_img_idx: Tensor  # (frames, objects): which of the pictures an object is on

    @property
    def num_frames(self) -> int:
        return len(self.masks)

    def to(self, device: torch.device) -> VideoBatch:
        parts = (self.flat_img_batch, self.masks, self.flat_obj_to_img_idx)
        return VideoBatch(*(part.to(device, non_blocking=True) for part in parts))


def normalised(images_thwc: Image) -> Tensor:
    """BGR uint8 to RGB (t, 3, h, w) as the image encoder takes it."""
    rgb = torch.from_numpy(np.ascontiguousarray(images_thwc[..., ::-1])).movedim(-1, 1).float() / 255
    return (rgb - _MEAN) / _STD


def collate(clips: Sequence[tuple[Image, Bits]]) -> VideoBatch:
    """Pictures (t, h, w, 3) and masks (o, t, h, w) of each clip."""
    num_frames = len(clips[0][0])
    images = torch.cat([normalised(images) for images, _ in clips])
    masks = torch.from_numpy(np.concatenate([masks for _, masks in clips])).transpose(0, 1)
    clip_o = torch.repeat_interleave(torch.arange(len(clips)), torch.tensor([len(masks) for _, masks in clips]))
    return VideoBatch(images, masks.contiguous(), clip_o * num_frames + torch.arange(num_frames)[:, None])


class Samples(Dataset[VideoBatch]):
    """Batch by number. Immutable; each worker process has a copy."""

    def __init__(self, album: Album, settings: Settings) -> None:
        self._album, self._settings = album, settings
        lengths = np.array([len(page.leaves) if _has_objects(album, n) else 0 for n, page in enumerate(album.pages)])
        self._odds = lengths / lengths.sum()

    def __getitem__(self, number: int) -> VideoBatch:
        rng = np.random.default_rng((self._settings.seed, number))
        return collate([self._clip(rng) for _ in range(self._settings.batch)])

    def _clip(self, rng: Rng) -> tuple[Image, Bits]:
        for _ in range(NUM_DRAWS):
            images, masks = self._draw(rng)
            found_images, found_masks = augmented(rng, images, masks, wanted=self._settings.augment)
            visible = found_masks[:, 0].mean((1, 2)) >= MIN_SHARE
            if not visible.any():
                continue
            found_masks = found_masks[visible]
            if "copy-paste" in self._settings.augment and rng.random() < PASTE:
                found_images, found_masks = self._paste(rng, found_images, found_masks)
            return found_images, found_masks
        raise FinetuneError(f"{self._album.folder}: in {NUM_DRAWS} draws no object was seen; expected larger objects")

    def _draw(self, rng: Rng) -> tuple[Image, Bits]:
        """Consecutive leaves of one clip, perhaps with some left out or backwards, and some of its objects."""
        settings, number = self._settings, int(rng.choice(len(self._odds), p=self._odds))
        leaves = self._album.pages[number].leaves
        places = _places(rng, len(leaves), settings)
        images, masks = self._album.read(number, places)
        first = leaves[places[0]]
        able = [i for i, share in zip(first.ids, first.shares, strict=True) if share >= MIN_SHARE]
        chosen = rng.permutation(able)[: settings.objects].tolist()
        empty = np.zeros((0, *images.shape[:3]), np.bool_)
        return images, np.stack([masks[i] for i in chosen]) if chosen else empty

    def _paste(self, rng: Rng, images: Image, masks: Bits) -> tuple[Image, Bits]:
        """Something of another place flies by; unchanged where it would hide all that is to be followed."""
        thing = self._thing(rng)
        if thing is None:
            return images, masks
        found, seen, own = pasted(rng, images, masks, thing=thing)
        if (seen[:, 0].mean((1, 2)) < MIN_SHARE).any():
            return images, masks
        if len(seen) < self._settings.objects and own[0].mean() >= MIN_SHARE and rng.random() < LEARN_PASTED:
            seen = np.concatenate([seen, own[None]])
        return found, seen

    def _thing(self, rng: Rng) -> tuple[Image, Bits] | None:
        number = int(rng.choice(len(self._odds), p=self._odds))
        place = int(rng.integers(len(self._album.pages[number].leaves)))
        images, masks = self._album.read(number, [place])
        whole = [mask[0] for mask in masks.values() if mask[0].mean() >= MIN_SHARE and not _is_cut(mask[0])]
        return (images[0], whole[int(rng.integers(len(whole)))]) if whole else None


def _has_objects(album: Album, number: int) -> bool:
    return any(share >= MIN_SHARE for leaf in album.pages[number].leaves for share in leaf.shares)


def _places(rng: Rng, length: int, settings: Settings) -> list[int]:
    """Which leaves; a clip that is too short goes to and fro."""
    count = settings.frames
    widest = max(1, min(MAX_SKIP, (length - 1) // max(count - 1, 1)))
    step = int(rng.integers(1, widest + 1)) if "skip" in settings.augment else 1
    span = step * (count - 1) + 1
    start = int(rng.integers(max(1, length - span + 1)))
    period = max(1, 2 * (length - 1))
    places = [abs((start + step * time + length - 1) % period - (length - 1)) for time in range(count)]
    return places[::-1] if "reverse" in settings.augment and rng.random() < REVERSE else places


def _is_cut(mask_hw: NDArray[np.bool_]) -> bool:
    """Whether it reaches the picture's edge."""
    return bool(mask_hw[0].any() or mask_hw[-1].any() or mask_hw[:, 0].any() or mask_hw[:, -1].any())


def batches(samples: Samples, numbers: range, *, num_workers: int) -> Iterator[VideoBatch]:
    """These batches in their order, prepared by so many processes (0: in this thread)."""
    loader: DataLoader[VideoBatch] = DataLoader(
        samples, batch_size=None, sampler=numbers, num_workers=num_workers, worker_init_fn=_calm,
        prefetch_factor=4 if num_workers else None, multiprocessing_context="spawn" if num_workers else None,
    )  # fmt: skip
    return iter(loader)


def _calm(_: int) -> None:
    """One thread a process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
