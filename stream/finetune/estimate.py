"""`estimate`: what a fine-tuning would take, without doing it.

Owns: the one step that is measured, on random pictures. Runs in the main thread. Never: reads a video or writes a file.

Memory: weights, gradients, two moments of AdamW and the moving average are counted; what the forward pass keeps for the
backward pass is measured, by its tensors; and so is the most that was in use during the step.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stream.finetune.loop import Trainer
from stream.finetune.material import Division
from stream.finetune.network import count_parameters, losses_of, tracking_engine
from stream.finetune.samples import VideoBatch, collate
from stream.finetune.settings import FinetuneError, Settings
from stream.tracker import Tracker

FLOAT = 4
NUM_TRACKED = 3  # pictures, to time validation
JPEG_BYTES_PER_PIXEL = 0.25  # of the album, with the masks


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes and seconds."""

    num_parameters: int
    num_learning: int
    bytes_weights: int  # with gradients, the optimiser's moments and the average
    bytes_activations: int  # of one batch
    bytes_peak: int  # in that step: what CUDA counted; on a CPU all of the process, libraries included
    seconds_step: float
    seconds_picture: float  # of validation
    seconds_all: float
    bytes_album: int


def estimate(settings: Settings, weights: dict[str, Tensor], device: torch.device, *, division: Division) -> Estimate:
    """Raises `FinetuneError` where a step does not fit into the GPU's memory."""
    trainer = Trainer(settings, weights, device)
    size = trainer.network.image_size
    num_all, num_learning = count_parameters(trainer.network)
    activations, seconds_step = _try_step(trainer, _noise(settings, size).to(device))
    seconds_picture = _tracking(settings.model, weights, device) if division.held_out else 0.0
    num_judged = sum(clip.truth.num_frames for clip in division.held_out)
    num_judged *= 1 + -(-settings.steps // settings.validate_every)
    num_learned = sum(len(clip.truth.annotated) for clip in division.learned)
    return Estimate(
        num_parameters=num_all, num_learning=num_learning,
        bytes_weights=FLOAT * (2 * num_all + 3 * num_learning), bytes_activations=activations,
        bytes_peak=_peak(device),
        seconds_step=seconds_step, seconds_picture=seconds_picture,
        seconds_all=seconds_step * settings.steps + seconds_picture * num_judged,
        bytes_album=round(num_learned * size * size * JPEG_BYTES_PER_PIXEL),
    )  # fmt: skip


def _try_step(trainer: Trainer, batch: VideoBatch) -> tuple[int, float]:
    """Bytes that are kept for the backward pass, and seconds of a step."""
    settings = trainer.settings
    try:
        activations = _activations(trainer, batch)
        start = time.perf_counter()
        trainer.learn(iter([batch] * settings.accumulate))
        return activations, time.perf_counter() - start
    except torch.OutOfMemoryError as exc:
        raise FinetuneError(
            f"{settings.batch} clips of {settings.frames} pictures at a time do not fit into the memory of "
            f"{trainer.device}; expected --checkpointing, fewer --frames, or --freeze-encoder"
        ) from exc


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _noise(settings: Settings, size: int) -> VideoBatch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (settings.frames, size, size, 3), np.uint8)
    masks = np.zeros((settings.objects, settings.frames, size, size), np.bool_)
    masks[..., size // 4 : size // 2, size // 4 : size // 2] = True
    return collate([(images, masks)] * settings.batch)


def _activations(trainer: Trainer, batch: VideoBatch) -> int:
    """Bytes that a forward pass keeps, parameters left out; each storage counts once."""
    own = {p.untyped_storage().data_ptr() for p in trainer.network.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors are held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept.setdefault(place, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = losses_of(trainer.network, trainer.loss, batch, amp=trainer.amp)
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del losses
    return num_bytes


def _tracking(model: str, weights: dict[str, Tensor], device: torch.device) -> float:
    """Seconds a picture and object, of validation."""
    tracker = Tracker(tracking_engine(model, weights, device))
    size = tracker.image_size
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    mask = np.zeros((size, size), np.bool_)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    tracker.add(1, mask=mask)
    tracker.step(picture)
    start = time.perf_counter()
    for _ in range(NUM_TRACKED):
        tracker.step(picture)
    return (time.perf_counter() - start) / NUM_TRACKED
