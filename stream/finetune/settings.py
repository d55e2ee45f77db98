"""`Settings`: all that a fine-tuning depends on but its data.

Owns: the defaults, which differ between nano and Meta's models, and what values make sense. Any thread. Never: reads a
file.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from engines.weights import NANO
from stream.evaluate import PromptKind

AUGMENTATIONS = ("flip", "affine", "colour", "blur", "motion-blur", "skip", "reverse", "copy-paste")


class FinetuneError(ValueError):
    """It cannot be done so; the text is one line for the user."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Equal settings, data and weights give equal results on one CPU thread."""

    model: str
    weights: str = ""  # the checkpoint's SHA-256, see `engines.weights.checkpoint_name`
    steps: int = 400  # of the optimiser
    batch: int = 1  # clips at a time
    accumulate: int = 1  # batches a step
    frames: int = 8  # of a clip
    objects: int = 3  # of a clip, at most
    rate: float = 1e-5  # peak learning rate ...
    encoder_rate: float = 6e-6  # ... of the image encoder
    layer_decay: float = 0.9  # of the rate, from each block of the encoder to the one before it
    weight_decay: float = 0.1
    freeze_encoder: bool = False
    amp: bool = True
    checkpointing: bool = False
    average: float = 0.99  # of the weights, from step to step; the average is what is judged and kept
    augment: tuple[str, ...] = AUGMENTATIONS
    clicks: float = 0.5  # share of the batches that are prompted by points, the rest by masks
    boxes: float = 0.5  # share of those points that are a box
    corrections: int = 7  # clicks on what was wrong, on each picture that is corrected
    validate_every: int = 100  # steps
    patience: int = 4  # validations without a gain after which it ends
    validation_pictures: int = 100  # of a held-out clip, at most
    validation_clips: int = 16
    prompt: PromptKind = "mask"  # of validation
    hold_out: float = 0.2  # share of the clips, where no validation data are given
    seed: int = 0


_NANO: dict[str, Any] = {"rate": 4e-4, "encoder_rate": 4e-4, "layer_decay": 1.0, "weight_decay": 0.05, "batch": 4}
_LEAST = {"steps": 1, "batch": 1, "accumulate": 1, "frames": 1, "objects": 1, "corrections": 1, "validate_every": 1,
          "patience": 1, "validation_pictures": 2, "validation_clips": 1, "seed": 0}  # fmt: skip
_SHARES = {"average", "clicks", "boxes", "layer_decay", "hold_out"}


def default_settings(model: str, **chosen: Any) -> Settings:
    """The model's defaults with what is chosen laid over them; None is not chosen. Raises `FinetuneError`."""
    given = {name: value for name, value in chosen.items() if value is not None}
    defaults = _NANO if model == NANO else {}
    if "rate" in given and "encoder_rate" not in given:
        share = defaults.get("encoder_rate", 6e-6) / defaults.get("rate", 1e-5)
        given["encoder_rate"] = given["rate"] * share
    settings = Settings(model=model, **(defaults | given))
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raises `FinetuneError` naming the first value that makes no sense."""
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            raise FinetuneError(f"{_flag(name)} is {getattr(settings, name)}; expected at least {least}")
    for name in sorted(_SHARES):
        if not 0 <= getattr(settings, name) <= 1:
            raise FinetuneError(f"{_flag(name)} is {getattr(settings, name)}; expected 0 to 1")
    for name in ("rate", "encoder_rate", "weight_decay"):
        if not (math.isfinite(getattr(settings, name)) and getattr(settings, name) >= 0):
            raise FinetuneError(f"{_flag(name)} is {getattr(settings, name)}; expected a number of at least 0")
    for name in settings.augment:
        if name not in AUGMENTATIONS:
            raise FinetuneError(f"--augment has {name!r}; expected all, none or some of {','.join(AUGMENTATIONS)}")


def read_augmentations(text: str) -> tuple[str, ...]:
    """`all`, `none`, or names with commas between them; `check` looks whether they are known."""
    if text in ("all", "none"):
        return AUGMENTATIONS if text == "all" else ()
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
