"""The losses of SAM 2: mask (cross-entropy and dice), predicted IoU, object score.

Owns the weighting; pure functions of tensors, any thread. Never sees the object-score gate: behind it nothing learns
while the score is negative, so logits come from before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BCE_WEIGHT = 0.8
MIN_SHARE = 0.02
"""Cross-entropy counts per pixel of the object, so that small outlines teach, too; not below this share."""
HIDDEN_WEIGHT, PROMPTED_WEIGHT = 2.0, 0.1
"""Of the object score, where an object is hidden, and where it has just been prompted. Without them a model that sees
many single pictures says of everything that it is there."""
LOST = 2.0
"""Where the loss of a row's masks is above this, the row teaches less and less: it has lost its object."""


def mask_loss(logits_nmhw: torch.Tensor, truth_n1hw: torch.Tensor) -> torch.Tensor:
    """(N, M) losses of M candidate masks per row against one soft truth of the same size."""
    truth = truth_n1hw.expand_as(logits_nmhw)
    bce = F.binary_cross_entropy_with_logits(logits_nmhw, truth, reduction="none").mean((2, 3))
    bce = bce / truth.mean((2, 3)).clamp(min=MIN_SHARE)
    probability = logits_nmhw.sigmoid()
    overlap = 2 * (probability * truth).sum((2, 3)) + 1
    dice = 1 - overlap / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return BCE_WEIGHT * bce + dice


@torch.no_grad()
def mask_iou(logits_nmhw: torch.Tensor, truth_n1hw: torch.Tensor) -> torch.Tensor:
    """(N, M) IoU of the thresholded masks; 1 where both are empty."""
    predicted, truth = logits_nmhw > 0, truth_n1hw > 0.5
    union = (predicted | truth).sum((2, 3)).float()
    overlap = (predicted & truth).sum((2, 3)).float()
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))


def frame_loss(
    logits_n4hw: torch.Tensor,
    ious_n4: torch.Tensor,
    scores_n1: torch.Tensor,
    *,
    truth_n1hw: torch.Tensor,
    is_prompted: bool = False,
) -> torch.Tensor:
    """Loss of one decoded frame, averaged over rows.

    The best of the three multimask candidates and the single mask both learn, so that clicks, boxes and tracking all
    find a trained path. Rows whose object is hidden teach only the score, and more of it, for they are few; what is
    prompted is there, which teaches the score little.
    """
    visible = (truth_n1hw.flatten(1).amax(1) > 0).float()
    logits = logits_n4hw.float()
    low, high = logits.shape[-2:], (2 * logits.shape[-2], 2 * logits.shape[-1])
    truth = F.interpolate(truth_n1hw, low, mode="area")
    with torch.no_grad():
        best = mask_loss(logits[:, 1:], truth).argmin(1) + 1
    taught = torch.stack([logits[:, 0], logits[torch.arange(len(best)), best]], 1)
    taught = F.interpolate(taught, high, mode="bilinear", align_corners=False)
    mask = mask_loss(taught, F.interpolate(truth_n1hw, high, mode="area")).sum(1)
    mask = LOST * torch.log1p(mask / LOST)
    iou = F.l1_loss(ious_n4.float(), mask_iou(logits, truth), reduction="none").mean(1)
    weight = HIDDEN_WEIGHT + (1 - HIDDEN_WEIGHT) * visible
    score = F.binary_cross_entropy_with_logits(scores_n1[:, 0].float(), visible, weight)
    score = score * (PROMPTED_WEIGHT if is_prompted else 1.0)
    return ((mask + iou) * visible).sum() / visible.sum().clamp(min=1) + score
