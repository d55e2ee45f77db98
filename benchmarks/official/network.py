"""The network that the official predictor and ours share, and the operations that a frame needs.

Never: downloads weights, changes trained ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from torch.utils.flop_counter import FlopCounterMode

from engines.spec import BACKBONE_STRIDE
from engines.weights import load_state_dict, model_config, path

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
FULLY_COMPILED = "sam2.sam2_video_predictor.SAM2VideoPredictorVOS"  # `vos_optimized=True`
_SCORE_LIFT, _TIME_GAIN = 3.0, 20.0


def official_network(model: str, *, image_size: int | None, random_seed: int | None, target: str = PREDICTOR) -> Any:
    """The official predictor, which is also the `SAM2Base` that our engines are made of; on the CPU, in fp32.

    With random weights the object score is lifted, so that there are masks to compare, and the time embeddings weigh
    more, so that they show a memory in a wrong order.
    """
    config = _configuration(model, image_size, target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        network = instantiate(config, _recursive_=True)
    if random_seed is None:
        network.load_state_dict(load_state_dict(Path(path(model))))
    else:
        _lift(network)
    return network.float().eval().requires_grad_(False)


def _configuration(model: str, image_size: int | None, target: str) -> DictConfig:
    config = model_config(model)
    config._target_ = target
    config.fill_hole_area = 8  # as officially; without the compiled extension it is skipped
    if target == FULLY_COMPILED:
        config.compile_image_encoder = True
    if image_size is not None and image_size != config.image_size:
        _resize(config, image_size)
    return config


def _resize(config: DictConfig, image_size: int) -> None:
    """Another size of the model's pictures, as the official configurations write it."""
    size = image_size // BACKBONE_STRIDE
    with open_dict(config):
        config.image_size = image_size
        layer = config.memory_attention.layer
        for attention in (layer.self_attention, layer.cross_attention):
            attention.feat_sizes = [size, size]


def _lift(network: Any) -> None:
    with torch.no_grad():
        network.maskmem_tpos_enc.mul_(_TIME_GAIN)
        if network.proj_tpos_enc_in_obj_ptrs:  # SAM 2.1
            network.obj_ptr_tpos_proj.weight.mul_(_TIME_GAIN)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(_SCORE_LIFT)


@torch.inference_mode()
def operations(model: str, *, image_size: int | None) -> dict[str, float]:
    """GFLOP of each stage as the official code does it: `encode` a frame; `attend`, `decode` and `remember` for an
    object with full memory and one conditioning frame. The exact algebra that spares 30 % of `attend` is not in the
    official code. Nothing is computed: the shapes alone are played through.
    """
    network = instantiate(_configuration(model, image_size, PREDICTOR), _recursive_=True).eval().to("meta")
    size, dim, pixels = network.sam_image_embedding_size, network.hidden_dim, network.image_size
    num_pointers = network.max_obj_ptrs_in_encoder * dim // network.mem_dim
    num_keys = size**2 * network.num_maskmem + num_pointers
    with torch.device("meta"):
        tokens, keys = torch.empty(size**2, 1, dim), torch.empty(num_keys, 1, network.mem_dim)
        features, masks, score = torch.empty(1, dim, size, size), torch.empty(1, 1, pixels, pixels), torch.empty(1, 1)
        fine = [torch.empty(1, dim // 8, 4 * size, 4 * size), torch.empty(1, dim // 4, 2 * size, 2 * size)]
        stages = {
            "encode": lambda: network.forward_image(torch.empty(1, 3, pixels, pixels)),
            "attend": lambda: network.memory_attention([tokens], keys, [tokens], keys, num_obj_ptr_tokens=num_pointers),
            "decode": lambda: network._forward_sam_heads(features, high_res_features=fine, multimask_output=True),
            "remember": lambda: network._encode_new_memory([tokens], [(size, size)], masks, score, False),
        }
        return {stage: _gflop(call) for stage, call in stages.items()}


def _gflop(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops() / 1e9)
