"""Simulated prompts: clicks, boxes, masks, and corrections of an earlier answer.

Owns how a user is imitated. Pure functions of truth masks and a random generator, any thread. Never looks at a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engines.synthetic import deepest_point

POSITIVE, NEGATIVE, BOX_LOW, BOX_HIGH = 1, 0, 2, 3


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompts of a batch of rows: points (a box is two) with or without earlier logits; or the truth as a mask."""

    points_np2: torch.Tensor
    labels_np: torch.Tensor
    logits_n1hw: torch.Tensor | None = None
    is_mask: bool = False

    @property
    def is_ambiguous(self) -> bool:
        """One click or none: SAM 2 then answers with three masks."""
        return self.labels_np.shape[1] <= 1


def click_inside(rng: np.random.Generator, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The deepest point half of the time, else any point not too near the border."""
    if rng.random() < 0.5:
        return deepest_point(mask)
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= 0.4 * depth.max())
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]), float(rows[pick])


def draw_prompt(rng: np.random.Generator, truth_nhw: torch.Tensor, kind: str) -> Prompt:
    """One prompt per row of the given kind: "click", "box" or "mask". Every truth must be visible."""
    if kind == "mask":
        empty = torch.zeros(len(truth_nhw), 0)
        return Prompt(empty, empty, is_mask=True)
    truths = truth_nhw.numpy() > 0.5
    if kind == "click":
        clicks = np.array([click_inside(rng, truth) for truth in truths], np.float32).reshape(-1, 1, 2)
        return Prompt(torch.from_numpy(clicks), torch.full((len(truths), 1), POSITIVE, dtype=torch.int32))
    boxes = np.stack([_shaky_box(rng, truth) for truth in truths])
    labels = torch.tensor([[BOX_LOW, BOX_HIGH]], dtype=torch.int32).expand(len(truths), -1)
    return Prompt(torch.from_numpy(boxes), labels)


def _shaky_box(rng: np.random.Generator, truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.nonzero(truth)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    box: NDArray[np.float32] = (np.stack([low, high]) + rng.normal(0, 0.04, (2, 2)) * (high - low)).astype(np.float32)
    return box


def correction(prompt: Prompt | None, logits_n1hw: torch.Tensor, truth_n1hw: torch.Tensor) -> Prompt:
    """The prompt with one more click, in the middle of the largest error, on top of the earlier answer."""
    size = (truth_n1hw.shape[-1], truth_n1hw.shape[-2])
    earlier = logits_n1hw.detach().clamp(-32, 32)
    points, labels = [], []
    for low_res, truth in zip(earlier[:, 0].numpy(), truth_n1hw[:, 0].numpy() > 0.5, strict=True):
        wrong = (cv2.resize(low_res, size, interpolation=cv2.INTER_LINEAR) > 0) ^ truth
        where = next(region for region in (wrong, truth, ~truth) if region.any())
        points.append(deepest_point(where))
        labels.append(POSITIVE if truth[int(points[-1][1]), int(points[-1][0])] else NEGATIVE)
    more_points = torch.tensor(points, dtype=torch.float32)[:, None]
    more_labels = torch.tensor(labels, dtype=torch.int32)[:, None]
    if prompt is not None:
        more_points = torch.cat([prompt.points_np2, more_points], 1)
        more_labels = torch.cat([prompt.labels_np, more_labels], 1)
    return Prompt(more_points, more_labels, logits_n1hw=earlier)
