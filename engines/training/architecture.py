"""Models to train: from their official configuration, at any picture size, with starting values that learn.

Owns nothing that lives: functions only, run by the training process's one thread. Never loads weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from engines.weights import model_config


def untrained(model: str, image_size: int | None = None) -> Any:
    """A SAM2Base in training mode; `image_size` overrides the configuration's (weights fit every size)."""
    config = model_config(model)
    if image_size is not None:
        config.image_size = image_size
    network = instantiate(config, _recursive_=True).train()
    _wake(network)
    for block in network.memory_encoder.fuser.layers:  # a depth-wise kernel's backward pass takes half the time so
        block.dwconv.register_forward_pre_hook(_channels_last)
    return network


def _channels_last(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.contiguous(memory_format=torch.channels_last) for value in inputs)


@torch.no_grad()
def _wake(network: Any) -> None:
    """Starting values for learning from scratch: the gate open, the memory's residual blocks awake."""
    torch.nn.init.trunc_normal_(network.image_encoder.trunk.pos_embed, std=0.02)
    torch.nn.init.trunc_normal_(network.image_encoder.trunk.pos_embed_window, std=0.02)
    for block in network.memory_encoder.fuser.layers:
        block.gamma.fill_(0.3)
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(2.0)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, dropout_p: float = 0.0) -> torch.Tensor:
    assert dropout_p == 0.0, "the plain attention has no dropout"
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1) @ v


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by two products: on a CPU the fused kernel's backward pass is slow, the whole step a third slower."""
    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused
