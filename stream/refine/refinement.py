"""`Refinement`: the steps that each object asked for, on the results of one camera's turn.

Owns: every camera's settings. The worker's thread alone uses it. Never: waits for the device, or changes the results
that it is given: the history and the memory read them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream.config import RefineOptions
from stream.refine.finish import Finish
from stream.refine.guided import GuidedEdges
from stream.refine.guided_device import drawn_on_device
from stream.refine.overlap import without_overlap
from stream.refine.regions import pixels_of, without_small_regions
from stream.refine.steady import steadied

Image = NDArray[np.uint8]
NOTHING = RefineOptions()


class Refinement:
    """`_cameras` is written by the worker's thread: the settings of cameras that have some."""

    def __init__(self, default: RefineOptions = NOTHING) -> None:
        self._default = default
        self._cameras: dict[str, RefineOptions] = {}

    def set(self, options: RefineOptions | None, camera: str, finish: Finish | None = None) -> None:
        """From the next picture on, for the camera's objects without settings of their own, or for one object; None
        takes them away.
        """
        if finish is not None:
            finish.options = options
        elif options is None:
            self._cameras.pop(camera, None)
        else:
            self._cameras[camera] = options

    def of_camera(self, camera: str) -> RefineOptions:
        return self._cameras.get(camera, self._default)

    @torch.inference_mode()
    def refined(self, camera: str, logits_nhw: Tensor, finishes: Sequence[Finish]) -> Tensor:
        """The camera's logits as they are to be published; the very same tensor where nothing is to be done."""
        options = [self._of(camera, finish) for finish in finishes]
        logits = self._steadied(logits_nhw, finishes, [one.smooth for one in options])
        logits = _cleaned(logits, options)
        return without_overlap(logits) if self.of_camera(camera).non_overlap else logits

    def guides(self, camera: str, image_hwc: Image, finishes: Sequence[Finish]) -> list[GuidedEdges | None]:
        """Who draws the edges of each object on a CPU; none where nobody does."""
        if not self.is_drawn(camera, finishes):
            return []
        claimed = np.zeros(image_hwc.shape[:2], np.bool_) if self.of_camera(camera).non_overlap else None
        guide = GuidedEdges(image_hwc, claimed)
        return [guide if one else None for one in self._wanted(camera, finishes)]

    def is_drawn(self, camera: str, finishes: Sequence[Finish]) -> bool:
        """Whether there is anything to be drawn."""
        return any(self._wanted(camera, finishes))

    @torch.inference_mode()
    def drawn(self, camera: str, logits_nhw: Tensor, finishes: Sequence[Finish], *, colours_3hw: Tensor) -> Tensor:
        """The same on a device, on the model's own picture: logits of its size; those of others are only enlarged."""
        return drawn_on_device(logits_nhw, colours_3hw, self._wanted(camera, finishes))

    def _of(self, camera: str, finish: Finish) -> RefineOptions:
        return finish.options or self.of_camera(camera)

    def _wanted(self, camera: str, finishes: Sequence[Finish]) -> list[bool]:
        return [self._of(camera, finish).upsample == "guided" for finish in finishes]

    @staticmethod
    def _steadied(logits_nhw: Tensor, finishes: Sequence[Finish], smooth: Sequence[float]) -> Tensor:
        if not any(smooth):
            return logits_nhw
        known = [
            logits if finish.before_hw is None else finish.before_hw
            for finish, logits in zip(finishes, logits_nhw, strict=True)
        ]
        shares = [torch.full((), share, device=logits_nhw.device) for share in smooth]  # no copy: a device would wait
        found = steadied(logits_nhw, torch.stack(known), torch.stack(shares))
        for finish, logits, share in zip(finishes, found, smooth, strict=True):
            finish.before_hw = logits if share else None
        return found


def _cleaned(logits_nhw: Tensor, options: Sequence[RefineOptions]) -> Tensor:
    """Without holes and specks; objects with equal settings at once."""
    areas = [(one.fill_holes, one.remove_specks) for one in options]
    rows = list(logits_nhw)
    for wanted in set(areas) - {(0, 0)}:
        places = [index for index, area in enumerate(areas) if area == wanted]
        holes, specks = (pixels_of(area, logits_nhw.shape[-1]) for area in wanted)
        cleaned = without_small_regions(torch.stack([rows[index] for index in places]), holes=holes, specks=specks)
        for index, one in zip(places, cleaned, strict=True):
            rows[index] = one
    return torch.stack(rows) if any(map(any, areas)) else logits_nhw
