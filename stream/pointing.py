"""`decode`: what a prompt points at.

Owns: the choice of program for a prompt. Called in the worker's thread. Never: reads or writes memory.
"""

from __future__ import annotations

from engines.spec import Engine, Segmentation
from stream.history import Sight
from stream.prompt import Prompt, mask_in_model, points_in_model


def decode(engine: Engine, sight: Sight, prompt: Prompt) -> Segmentation:
    """What the prompt says of its object on that picture."""
    size = engine.spec.image_size
    if prompt.mask_hw is not None:
        return engine.prompt_mask(sight.frame, mask_in_model(prompt.mask_hw, size).to(engine.device))
    points = points_in_model(prompt, sight.size, image_size=size, logits_bhw=sight.logits_1hw)
    coords, labels = points.coords_bs2.to(engine.device), points.labels_bs.to(engine.device)
    points = points._replace(coords_bs2=coords, labels_bs=labels)
    return engine.prompt_points(sight.frame, points, sight.conditioned_1chw)
