"""The model to train: Meta's `SAM2Train` around the weights of a checkpoint, and what of it learns how fast.

Owns: how training differs from the official configuration, gradient checkpointing, and the groups of parameters. Runs
in the training thread. Never: steps an optimiser, or changes a name in the state dictionary, so that the result loads
wherever the original does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from training.loss_fns import CORE_LOSS_KEY, MultiStepMultiMasksAndIous
from training.model.sam2 import SAM2Train

from engines.eager import EagerEngine
from engines.training.architecture import plain_attention
from engines.weights import build_model, model_config
from stream.finetune.samples import VideoBatch
from stream.finetune.settings import Settings

# As in Meta's sam2.1_hiera_b+_MOSE_finetune.yaml.
LOSS_WEIGHTS = {"loss_mask": 20.0, "loss_dice": 1.0, "loss_iou": 1.0, "loss_class": 1.0}
SAMPLE_FROM_TRUTH = 0.1
MAX_PROMPTED = 2  # pictures of a clip with prompts at first, and with corrections


def training_network(settings: Settings, weights: dict[str, Tensor]) -> SAM2Train:
    """In training mode on the CPU, fp32."""
    config = model_config(settings.model)
    config._target_ = "training.model.sam2.SAM2Train"
    prompted = min(MAX_PROMPTED, max(1, settings.frames - 1))  # given masks teach nothing: one picture is left
    config.update(
        prob_to_use_pt_input_for_train=settings.clicks,
        prob_to_use_box_input_for_train=settings.boxes,
        num_init_cond_frames_for_train=prompted,
        rand_init_cond_frames_for_train=True,
        num_frames_to_correct_for_train=prompted,
        rand_frames_to_correct_for_train=True,
        add_all_frames_to_correct_as_cond=True,
        num_correction_pt_per_frame=settings.corrections,
        prob_to_sample_from_gt_for_train=SAMPLE_FROM_TRUTH,
        use_act_ckpt_iterative_pt_sampling=settings.checkpointing,
        freeze_image_encoder=settings.freeze_encoder,
    )
    with torch.random.fork_rng(devices=[]):
        network = instantiate(config, _recursive_=True)
    assert isinstance(network, SAM2Train), "the configuration was told to name this class"
    network.load_state_dict(weights)
    if settings.checkpointing:
        _recompute([*network.image_encoder.trunk.blocks, *network.memory_attention.layers])
    return network.float().train()


def original_weights(model: str, checkpoint: Path | None) -> dict[str, Tensor]:
    """The state dictionary to start from. Raises `WeightsError`."""
    state: dict[str, Tensor] = build_model(model, checkpoint).state_dict()
    return state


def tracking_engine(model: str, weights: dict[str, Tensor], device: torch.device) -> EagerEngine:
    """The programs of the daemon with these weights, to judge them."""
    config = model_config(model)
    with torch.random.fork_rng(devices=[]):
        network = instantiate(config, _recursive_=True)
    assert isinstance(network, SAM2Base), "official configurations name this class"
    network.load_state_dict(weights)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return EagerEngine(network.float().eval().requires_grad_(False), name=model, device=device, dtype=dtype)


def groups(network: SAM2Train, settings: Settings) -> list[dict[str, Any]]:
    """What learns, by rate: the encoder's own, smaller from block to block towards the picture; biases, norms and
    embeddings without weight decay.
    """
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = settings.rate if not name.startswith("image_encoder.") else _encoder_rate(network, name, settings)
            decay = settings.weight_decay if parameter.ndim > 1 and "embed" not in name else 0.0
            found.setdefault((rate, decay), []).append(parameter)
    return [{"params": found[key], "lr": key[0], "peak": key[0], "weight_decay": key[1]} for key in sorted(found)]


def _encoder_rate(network: SAM2Train, name: str, settings: Settings) -> float:
    trunk = network.image_encoder.trunk
    if not name.startswith("image_encoder.trunk.") or "pos_embed" in name:
        return settings.encoder_rate
    depth = trunk.get_num_layers() + 1
    place = trunk.get_layer_id(name.removeprefix("image_encoder.trunk."))
    return float(settings.encoder_rate * settings.layer_decay ** (depth - place))


def make_loss(network: SAM2Train) -> nn.Module:
    loss: nn.Module = MultiStepMultiMasksAndIous(
        dict(LOSS_WEIGHTS), supervise_all_iou=True, iou_use_l1_loss=True, pred_obj_scores=network.pred_obj_scores,
        focal_gamma_obj_score=0.0, focal_alpha_obj_score=-1.0,
    )  # fmt: skip
    return loss


def losses_of(network: SAM2Train, loss: nn.Module, batch: VideoBatch, *, amp: torch.dtype | None) -> dict[str, Tensor]:
    """One clip forward; "total" is what is learned from, the others are its parts."""
    device = batch.masks.device.type
    with _fast_attention(network, device), torch.autocast(device, amp or torch.float32, enabled=amp is not None):
        outputs = network(batch)
    found = loss([{name: _widened(value) for name, value in frame.items()} for frame in outputs], batch.masks)
    parts = {name: found[name] / batch.num_frames for name in LOSS_WEIGHTS}
    return {"total": found[CORE_LOSS_KEY] / batch.num_frames, **parts}


def _widened(value: Any) -> Any:
    """Losses are computed in float32."""
    if isinstance(value, list):
        return [_widened(item) for item in value]
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def _fast_attention(network: SAM2Train, device: str) -> Iterator[None]:
    """On a CPU two products are faster than the fused kernel, whose backward pass is slow. They know no dropout, and
    what is computed again in the backward pass must be computed as before.
    """
    has_dropout = any(getattr(module, "dropout_p", 0.0) > 0 for module in network.modules())
    is_simple = device == "cpu" and not has_dropout and not network.use_act_ckpt_iterative_pt_sampling
    with plain_attention() if is_simple else nullcontext():
        yield


def _recompute(modules: Iterable[nn.Module]) -> None:
    """Their activations are not kept but computed again in the backward pass."""
    for module in modules:
        module.forward = partial(recomputed, module.forward, use_reentrant=False)


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """All, and those that learn."""
    sizes: Sequence[tuple[int, bool]] = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
