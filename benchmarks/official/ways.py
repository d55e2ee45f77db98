"""The ways to track a clip that are compared: the official predictor's, and ours.

A way takes one frame a call and hands back the masks of all objects at the size of the frame. Never: times anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.official.given import NUM_FRAMES, Found, fill_official, snapshot
from engines.eager import EagerEngine
from engines.spec import Engine
from engines.synthetic import SyntheticClip
from stream.tracker import Tracker

Picture = NDArray[np.uint8]
Masks = NDArray[np.bool_]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Way(Protocol):
    def step(self, number: int, picture_hwc: Picture) -> Masks: ...


@dataclass(frozen=True, slots=True)
class Scene:
    """What is tracked. `given` is None where the ways click on frame 0 and fill their memories themselves."""

    folder: Path
    clip: SyntheticClip
    given: Sequence[Found] | None
    maker: EagerEngine  # of what is given


class Official:
    """`SAM2VideoPredictor` over a folder of pictures, one frame a call; the pictures are loaded and resized before."""

    def __init__(self, predictor: Any, scene: Scene, *, autocast: torch.dtype | None = None) -> None:
        self._predictor, self._autocast = predictor, autocast
        with self._context():
            self._state = predictor.init_state(str(scene.folder))
            _begin(predictor, self._state, scene, autocast or torch.float32)

    def step(self, number: int, _: Picture) -> Masks:
        with self._context():
            frames = self._predictor.propagate_in_video(self._state, number, max_frame_num_to_track=0)
            return np.asarray(next(iter(frames))[2][:, 0].float().cpu().numpy() > 0)

    def _context(self) -> AbstractContextManager[Any]:
        kind = self._predictor.device.type
        return nullcontext() if self._autocast is None else torch.autocast(kind, dtype=self._autocast)


class Camera:
    """The official predictor on a live stream: it gets a picture when it is due, resizes it as officially, and is never
    told how long the stream will be.
    """

    def __init__(self, predictor: Any, scene: Scene) -> None:
        self._predictor = predictor
        self._mean, self._std = (torch.tensor(x)[:, None, None] for x in (_MEAN, _STD))
        self._state = predictor.init_state(str(scene.folder))
        self._state["images"] = {0: self._state["images"][0]}
        _begin(predictor, self._state, scene, torch.float32)
        self._state["num_frames"] = 1 if scene.given is None else NUM_FRAMES

    def step(self, number: int, picture_hwc: Picture) -> Masks:
        state, size = self._state, self._predictor.image_size
        resized = np.array(Image.fromarray(picture_hwc[..., ::-1]).resize((size, size)))
        pixels = torch.from_numpy(resized / 255.0).permute(2, 0, 1).float()
        state["images"] = {number: (pixels - self._mean) / self._std}
        state["num_frames"] = max(state["num_frames"], number + 1)
        frames = self._predictor.propagate_in_video(state, number, max_frame_num_to_track=0)
        return np.asarray(next(iter(frames))[2][:, 0].cpu().numpy() > 0)


class Ours:
    """`Tracker`, one picture a call, all objects as a batch."""

    def __init__(self, engine: Engine, scene: Scene) -> None:
        self._tracker = Tracker(engine)
        max_cond = self._tracker.options.max_cond_frames
        for index in range(scene.clip.spec.num_objects):
            if scene.given is None:
                self._tracker.add(index, points=[(*scene.clip.click(index), 1)])
            else:
                self._tracker.restore(index, snapshot(scene.maker, scene.given[index], max_cond))

    def step(self, _: int, picture_hwc: Picture) -> Masks:
        return self._tracker.step(picture_hwc).masks_nhw


def _begin(predictor: Any, state: dict[str, Any], scene: Scene, dtype: torch.dtype) -> None:
    if scene.given is not None:
        fill_official(predictor, state, scene.given, dtype)
        return
    for index in range(scene.clip.spec.num_objects):
        predictor.add_new_points_or_box(state, 0, index, points=[scene.clip.click(index)], labels=[1])
