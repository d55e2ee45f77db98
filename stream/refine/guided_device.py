"""`drawn_on_device`: the guided filter of `stream.refine.guided` for all objects of a camera at once, in torch.

Owns: the same filter on the model's own square picture, which is on the device already. Pure; the worker's thread.
Never: waits for the device. NOT TRIED ON A GPU; tests compare it with the CPU's on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stream.refine.guided import FIRM, FLAT, PIXELS_A_CELL, REACH, SMOOTHNESS, TRUST


def drawn_on_device(logits_nhw: Tensor, colours_3hw: Tensor, wanted: Sequence[bool]) -> Tensor:
    """(n, size, size) of the colours' size, which are 0 to 1; objects that are not wanted are enlarged alone."""
    size = colours_3hw.shape[-1]
    large = F.interpolate(logits_nhw[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    drawn = _guided(large, colours_3hw, size / logits_nhw.shape[-1])
    return drawn if all(wanted) else torch.stack([d if w else e for d, e, w in zip(drawn, large, wanted, strict=True)])


def _guided(logits_nhw: Tensor, colours_3hw: Tensor, cell: float) -> Tensor:
    scale = min(1.0, PIXELS_A_CELL / cell)
    size = round(logits_nhw.shape[-1] * scale)
    small = F.interpolate(colours_3hw[None], size=(size, size), mode="area")[0]
    plain = torch.tanh(F.interpolate(logits_nhw[:, None], size=(size, size), mode="bilinear")[:, 0] / FIRM)
    wide, near = (max(1, round(reach * cell * scale)) for reach in REACH)
    weights, trust = _filter_weights(small, plain, wide)
    sure = trust * torch.tanh(_apply(weights, small) * (2 / FIRM)) + (1 - trust) * plain
    weights, trust_near = _filter_weights(small, sure, near)
    trust = torch.minimum(trust, trust_near)[:, None]
    weights = weights * trust + (1 - trust) * F.pad(plain[:, None], (0, 0, 0, 0, 3, 0))
    large = F.interpolate(weights, size=logits_nhw.shape[-2:], mode="bilinear", align_corners=False)
    return _apply(large, colours_3hw)


def _apply(weights_n4hw: Tensor, colours_3hw: Tensor) -> Tensor:
    return (weights_n4hw[:, :3] * colours_3hw).sum(1) + weights_n4hw[:, 3]


def _filter_weights(colours_3hw: Tensor, sure_nhw: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Of R, G, B and one constant (n, 4, h, w), and how far they are to be trusted (n, h, w)."""

    def mean(planes: Tensor) -> Tensor:
        padded = F.pad(planes, (reach,) * 4, mode="reflect")
        return F.avg_pool2d(padded, 2 * reach + 1, 1)

    means_3hw = mean(colours_3hw[None])[0]
    variances = mean(colours_3hw[None] ** 2)[0] - means_3hw**2 + SMOOTHNESS
    shifted_3hw = colours_3hw.roll(-1, 0)
    others = mean((colours_3hw * shifted_3hw)[None])[0] - means_3hw * means_3hw.roll(-1, 0)
    mean_nhw = mean(sure_nhw[:, None])[:, 0]
    together = mean(sure_nhw[:, None] * colours_3hw) - mean_nhw[:, None] * means_3hw
    slopes = _solved(variances, others, together)
    constant = mean_nhw - (slopes * means_3hw).sum(1)
    spread = mean(sure_nhw[:, None] ** 2)[:, 0] - mean_nhw**2
    explained = (slopes * together).sum(1) / (spread + FLAT)
    found = mean(torch.cat([slopes, constant[:, None], explained[:, None]], dim=1))
    return found[:, :4], ((found[:, 4] - TRUST[0]) / (TRUST[1] - TRUST[0])).clamp(0, 1)


def _solved(variances_3hw: Tensor, others_3hw: Tensor, together_n3hw: Tensor) -> Tensor:
    """By the adjugate of the covariance, whose other entries are those of 01, 12 and 20: `linalg` would make the host
    wait.
    """
    (rr, gg, bb), (rg, gb, br) = variances_3hw, others_3hw
    irr, irg, irb = gg * bb - gb * gb, br * gb - rg * bb, rg * gb - br * gg
    igg, igb, ibb = rr * bb - br * br, rg * br - rr * gb, rr * gg - rg * rg
    pr, pg, pb = together_n3hw.unbind(1)
    found = [irr * pr + irg * pg + irb * pb, irg * pr + igg * pg + igb * pb, irb * pr + igb * pg + ibb * pb]
    slopes: Tensor = torch.stack(found, dim=1) / (rr * irr + rg * irg + br * irb)
    return slopes
