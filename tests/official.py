"""Runs the official `SAM2VideoPredictor` on a scenario, as the definition of correct. Used by the parity tests."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor

from engines.synthetic import ClipSpec, SyntheticClip
from engines.weights import build_model, model_config


@dataclass(frozen=True)
class Event:
    """A prompt before (`add`) or after (`refine`) frame `time` was tracked; `downgrade` makes an earlier prompt a
    recent memory.
    """

    time: int
    kind: str
    object_id: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Scenario:
    """Frames at model size and what is said about them."""

    name: str
    frames: list[NDArray[np.uint8]]
    folder: Path
    events: tuple[Event, ...]


@dataclass
class Record:
    """Per frame: object id to low-resolution logits, score and mask logits at frame size."""

    logits: list[dict[int, NDArray[np.float32]]] = field(default_factory=list)
    scores: list[dict[int, float]] = field(default_factory=list)
    full: list[dict[int, NDArray[np.float32]]] = field(default_factory=list)


def lifted_network(model: str, seed: int, *, score_bias: float = 3.0, score_gain: float = 1.0) -> SAM2Base:
    """Random weights that see their memory (time embeddings x 20) and find an object (object score lifted)."""
    network = build_model(model, random_seed=seed)
    head = network.sam_mask_decoder.pred_obj_score_head.layers[-1]
    with torch.no_grad():
        network.maskmem_tpos_enc.mul_(20)
        if network.proj_tpos_enc_in_obj_ptrs:  # SAM 2.1
            network.obj_ptr_tpos_proj.weight.mul_(20)
        head.weight.mul_(score_gain)
        head.bias.mul_(score_gain).add_(score_bias)
    return network


def official_predictor(model: str, network: SAM2Base) -> SAM2VideoPredictor:
    """The official class with the same weights, built from the same configuration."""
    config = model_config(model)
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    config.fill_hole_area = 8  # as officially; without the compiled extension it is skipped with a warning
    predictor = instantiate(config, _recursive_=True)
    predictor.load_state_dict(network.state_dict())
    return predictor.eval()


def make_frames(folder: Path, size: int, count: int, seed: int = 5) -> tuple[list[NDArray[np.uint8]], SyntheticClip]:
    """A generated clip as JPEG files (all that the official loader takes) and the same pixels as BGR arrays."""
    clip = SyntheticClip(ClipSpec(seed=seed, num_frames=count, height=size, width=size))
    frames = []
    for index in range(count):
        path = folder / f"{index:05d}.jpg"
        cv2.imwrite(str(path), clip.frame(index), [cv2.IMWRITE_JPEG_QUALITY, 95])
        frames.append(_read_as_official(path))
    return frames, clip


def _read_as_official(path: Path) -> NDArray[np.uint8]:
    """Pillow's decoder, since decoders differ by a rounding step."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.ascontiguousarray(np.array(picture.convert("RGB"))[..., ::-1])


def run_official(predictor: SAM2VideoPredictor, scenario: Scenario) -> Record:
    """Play the scenario as a live stream would: propagate up to each event, apply it, go on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = predictor.init_state(str(scenario.folder))
        # with clips of fewer than 16 frames the official time scale of pointers shrinks; a live stream has no end
        state["num_frames"] = max(state["num_frames"], predictor.max_obj_ptrs_in_encoder)
        record = Record()
        for time in range(len(scenario.frames)):
            for event in scenario.events:
                if event.time == time and event.kind != "refine":
                    _apply(predictor, state, event)
            full = next(iter(predictor.propagate_in_video(state, start_frame_idx=time, max_frame_num_to_track=0)))[2]
            refined = [event for event in scenario.events if event.time == time and event.kind == "refine"]
            for event in refined:
                full = _apply(predictor, state, event)
            if refined:
                predictor.propagate_in_video_preflight(state)
            _note(record, state, time, full)
    return record


def _apply(predictor: SAM2VideoPredictor, state: dict[str, Any], event: Event) -> torch.Tensor:
    if event.kind == "downgrade":
        predictor.clear_all_prompts_in_frame(state, 0, event.object_id, need_output=False)
        return torch.empty(0)
    if event.mask is not None:
        return predictor.add_new_mask(state, event.time, event.object_id, event.mask)[2]
    points = [point[:2] for point in event.points] or None
    labels = [point[2] for point in event.points] or None
    return predictor.add_new_points_or_box(
        state, event.time, event.object_id, points=points, labels=labels, box=event.box
    )[2]


def _note(record: Record, state: dict[str, Any], time: int, full: torch.Tensor) -> None:
    logits, scores, masks = {}, {}, {}
    for index, object_id in state["obj_idx_to_id"].items():
        outputs = state["output_dict_per_obj"][index]
        found = outputs["cond_frame_outputs"].get(time, outputs["non_cond_frame_outputs"].get(time))
        logits[object_id] = found["pred_masks"][0, 0].numpy()
        scores[object_id] = float(found["object_score_logits"])
        masks[object_id] = full[index, 0].numpy()
    record.logits.append(logits)
    record.scores.append(scores)
    record.full.append(masks)


def iou_between(one_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_]) -> float:
    """Two empty masks agree."""
    union = (one_hw | other_hw).sum()
    return float((one_hw & other_hw).sum() / union) if union else 1.0


def real_clip(count: int) -> tuple[list[NDArray[np.uint8]], tuple[float, float]]:
    """Pictures of a real clip where it lies beside the repository, else of a generated one; a point on an object."""
    path = Path(__file__).resolve().parents[2] / "shared" / "clips" / "coffee.mp4"
    if not path.exists():
        clip = SyntheticClip(ClipSpec(seed=11, num_frames=count, height=360, width=480))
        return [clip.frame(index) for index in range(count)], clip.click(0)
    video = cv2.VideoCapture(str(path))
    frames = [video.read()[1] for _ in range(count)]
    video.release()
    return frames, (875.0, 515.0)
