"""A SAM 2.1 that fits a pocket, for tests that take thousands of steps: nano's configuration with smaller pictures and
one block a stage.
"""

from __future__ import annotations

import torch
from hydra.utils import instantiate
from sam2.modeling.sam2_base import SAM2Base

from engines.eager import EagerEngine
from engines.weights import model_config


def pocket_network(seed: int = 0) -> SAM2Base:
    """Random weights that see their memory (time embeddings x 20) and find an object (object score lifted)."""
    config = model_config("nano")
    config.image_size = 64
    trunk = config.image_encoder.trunk
    trunk.embed_dim, trunk.stages, trunk.global_att_blocks = 16, [1, 1, 1, 1], [2, 3]
    config.image_encoder.neck.backbone_channel_list = [128, 64, 32, 16]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: SAM2Base = instantiate(config, _recursive_=True)
    with torch.no_grad():
        network.maskmem_tpos_enc.mul_(20)
        network.obj_ptr_tpos_proj.weight.mul_(20)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(3.0)
    return network.float().eval().requires_grad_(False)


def pocket_engine(seed: int = 0, dtype: torch.dtype = torch.float32) -> EagerEngine:
    return EagerEngine(pocket_network(seed), name="pocket", device=torch.device("cpu"), dtype=dtype)
