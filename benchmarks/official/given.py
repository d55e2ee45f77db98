"""A full memory without the minutes that tracking into it would take: the same memory frames and object pointers, given
to the official predictor and to ours.

They are what the network makes (in fp32, eager) of the true masks of the clip's first pictures, played to and fro for
as many frames as a memory reaches back. From there on everyone tracks by himself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.eager import EagerEngine
from engines.spec import FrameFeatures, Segmentation
from engines.synthetic import SyntheticClip
from stream.memory import MemoryBank
from stream.prepare import prepare_frames
from stream.tracker import Snapshot

NUM_FRAMES = 18  # until 7 memories and 16 pointers are there
NUM_PICTURES = 3  # that these frames show: 0, 1, 2, 1, 0, 1, ...
Found = Mapping[int, Segmentation]  # by picture


def picture_of(frame: int) -> int:
    """Which picture of the clip a frame shows; from NUM_FRAMES on they go forward, one by one."""
    top = NUM_PICTURES - 1
    if frame >= NUM_FRAMES:
        return frame - NUM_FRAMES + top
    return top - abs(frame % (2 * top) - top)


def found_objects(engine: EagerEngine, clip: SyntheticClip, pictures: Sequence[NDArray[np.uint8]]) -> list[Found]:
    """For each object of the clip: what the network makes of its true mask in each of the pictures."""
    size = engine.spec.image_size
    found: list[dict[int, Segmentation]] = [{} for _ in range(clip.spec.num_objects)]
    for picture in range(NUM_PICTURES):
        features = engine.encode(prepare_frames([pictures[picture]], size, engine.device))
        for index, mask in enumerate(clip.masks(picture)):
            found[index][picture] = _seen(engine, features, mask)
    return found


def _seen(engine: EagerEngine, features: FrameFeatures, mask_hw: NDArray[np.bool_]) -> Segmentation:
    mask = torch.from_numpy(mask_hw).float()[None].to(engine.device)
    return Segmentation(*(x.clone() for x in engine.prompt_mask(features, mask)))


def snapshot(engine: EagerEngine, found: Found, max_cond: int) -> Snapshot:
    """For `Tracker.restore`: frame 0 is the prompt, the others are recent."""
    bank = MemoryBank(engine.spec, device=engine.device, dtype=engine.memory_dtype, max_cond=max_cond, capacity=1)
    row = bank.acquire()
    for frame in range(NUM_FRAMES):
        seen = found[picture_of(frame)]
        bank.write_recent([row], seen) if frame else bank.write_prompted(row, seen)
        bank.advance([row])
    return Snapshot(bank.export_row(row), None, None)


@torch.inference_mode()
def fill_official(predictor: Any, state: dict[str, Any], objects: Sequence[Found], dtype: torch.dtype) -> None:
    """The entries that `add_new_mask` and `propagate_in_video` would have left; `dtype` is a memory position's."""
    for index, found in enumerate(objects):
        predictor._obj_id_to_idx(state, index)
        entries = {picture: _entry(predictor, seen, dtype) for picture, seen in found.items()}
        kept = state["output_dict_per_obj"][index]
        kept["cond_frame_outputs"][0] = entries[picture_of(0)]
        for frame in range(1, NUM_FRAMES):
            kept["non_cond_frame_outputs"][frame] = entries[picture_of(frame)]


def _entry(predictor: Any, seen: Segmentation, dtype: torch.dtype) -> dict[str, Any]:
    size = predictor.sam_image_embedding_size
    memory = seen.memory_bnc.transpose(1, 2).reshape(1, predictor.mem_dim, size, size)
    return {
        "maskmem_features": memory.to(torch.bfloat16),
        "maskmem_pos_enc": [predictor.memory_encoder.position_encoding(memory.float()).to(dtype)],
        "pred_masks": seen.logits_bhw[:, None],
        "obj_ptr": seen.pointers_bc,
        "object_score_logits": seen.scores_b[:, None],
    }
