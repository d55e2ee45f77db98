"""The network that the official predictor and ours share, and the operations that a frame needs.

Never: downloads weights, changes trained ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from torch.utils.flop_counter import FlopCounterMode

from engines.graphs import Encode, FlatEncode, FlatTrack, Track, spec_of
from engines.spec import BACKBONE_STRIDE, ProgramKey, program_spec
from engines.weights import load_state_dict, model_config, path

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
FULLY_COMPILED = "sam2.sam2_video_predictor.SAM2VideoPredictorVOS"  # `vos_optimized=True`
_SCORE_LIFT, _TIME_GAIN = 3.0, 20.0
_STAGE_OF = {  # how deep in which program -> the stage that it is
    "FlatEncode.encode": "encode",
    "FlatTrack.track.attend": "attend",
    "FlatTrack.track.decode": "decode",
    "FlatTrack.track.remember": "remember",
}


def official_network(
    model: str,
    *,
    image_size: int | None,
    random_seed: int | None,
    target: str = PREDICTOR,
) -> Any:
    """The official predictor, which is also the `SAM2Base` that our engines are made of; on the CPU, in fp32.

    With random weights the object score is lifted, so that there are masks to compare, and the time embeddings weigh
    more, so that they show a memory in a wrong order.
    """
    config = model_config(model)
    config._target_ = target
    config.fill_hole_area = 8  # as officially; without the compiled extension it is skipped
    if target == FULLY_COMPILED:
        config.compile_image_encoder = True
    if image_size is not None and image_size != config.image_size:
        _resize(config, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        network = instantiate(config, _recursive_=True)
    if random_seed is None:
        network.load_state_dict(load_state_dict(Path(path(model))))
    else:
        _lift(network)
    return network.float().eval().requires_grad_(False)


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


def operations(network: Any, model: str) -> dict[str, float]:
    """GFLOP of each stage: `encode` a frame; `attend`, `decode` and `remember` for an object with full memory and one
    conditioning frame. As officially, but that layer 0's self-attention is done once a frame; the exact algebra that
    spares 30 % of `attend` is not counted. Nothing is computed: the shapes alone are played through.
    """
    spec = spec_of(network, model)
    programs = (
        (FlatEncode(Encode(network, torch.float32)), ProgramKey("encode", 1)),
        (FlatTrack(Track(network, torch.float32)), ProgramKey("track", 1, 1)),
    )
    found: dict[str, float] = {}
    for module, key in programs:
        tensors = program_spec(spec, key, torch.float32).inputs
        inputs = [torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for tensor in tensors]
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module.to("meta")(*inputs)
        counts = counter.get_flop_counts()
        found |= {stage: sum(counts[at].values()) / 1e9 for at, stage in _STAGE_OF.items() if at in counts}
    return found
