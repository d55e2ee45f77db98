"""`GuidedEdges`: an object's edge is drawn to the picture's while its small logits are enlarged, on a CPU.

Owns: a guided filter (He, Sun, Tang: Guided Image Filtering, 2013) in colour, at a few pixels for each low-resolution
pixel ("fast guided filter", 2015), twice: within a distance of two low-resolution pixels, then of one. Where the
colours around do not tell the object from the rest, its logits stay as they are. Lives as long as one picture; the
worker's thread. Never: changes what lies farther from the edge than that.

It is meant for coarse masks. One of 256 pixels that is right already is drawn a little worse (`benchmarks/edges.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.raster import Window

Floats = NDArray[np.float32]
Planes = NDArray[Any]  # float32 all of them; the types of OpenCV are wider
Image = NDArray[np.uint8]

MARGIN = 3  # low-resolution pixels around the object that are looked at
PIXELS_A_CELL = 2  # at which the filter works, for each low-resolution pixel
REACH = (2.0, 1.0)  # of the two passes, in low-resolution pixels
SMOOTHNESS = 1e-4  # variance of colours, from 0 to 1, that counts as flat
FIRM = 1.0  # logits at which a pixel is sure
FLAT = 1e-3  # variance of what is sure, -1 to 1, far from every edge
TRUST = 0.2, 0.5  # share of the edge that the colours explain: below the first none is drawn, from the second on whole


@dataclass(frozen=True, slots=True)
class GuidedEdges:
    """One picture, as a `stream.raster.Guide`; `claimed_hw` is True where another object is already, if that counts."""

    picture_hwc: Image
    claimed_hw: NDArray[np.bool_] | None = None

    @property
    def margin(self) -> int:
        return MARGIN

    def __call__(self, logits_hw: Floats, window: Window, cell: float) -> Floats:
        """Enlarged logits of a window of the picture, in which a low-resolution pixel is `cell` pixels large."""
        top, bottom, left, right = window
        part = self.picture_hwc[top:bottom, left:right]
        drawn = guided(part, logits_hw, cell)
        if self.claimed_hw is not None:
            claimed = self.claimed_hw[top:bottom, left:right]
            drawn[claimed] = -1
            claimed |= drawn > 0
        return drawn


def guided(picture_hwc: Image, logits_hw: Floats, cell: float) -> Floats:
    """Between -1 and 1, about; positive on the object."""
    height, width = logits_hw.shape
    scale = min(1.0, PIXELS_A_CELL / cell)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    colours = cv2.resize(picture_hwc, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    colours *= np.float32(1 / 255)
    wide, near = (max(1, round(reach * cell * scale)) for reach in REACH)
    plain = np.tanh(cv2.resize(logits_hw, size, interpolation=cv2.INTER_LINEAR) / FIRM)
    weights, trust = _filter_weights(colours, plain, wide)
    sure = trust * np.tanh(_apply(weights, colours) * (2 / FIRM)) + (1 - trust) * plain
    weights, trust_near = _filter_weights(colours, sure, near)
    trust = np.minimum(trust, trust_near)
    weights *= trust[..., None]
    weights[..., 3] += (1 - trust) * plain
    fine = picture_hwc.astype(np.float32)
    fine *= np.float32(1 / 255)
    return _apply(cv2.resize(weights, (width, height), interpolation=cv2.INTER_LINEAR), fine)


def _apply(weights_hw4: Planes, colours_hw3: Planes) -> Floats:
    found: Floats = np.einsum("hwc,hwc->hw", weights_hw4[..., :3], colours_hw3)
    found += weights_hw4[..., 3]
    return found


def _filter_weights(colours_hw3: Planes, sure_hw: Planes, reach: int) -> tuple[Planes, Planes]:
    """Of B, G, R and one constant (h, w, 4): the linear function of the colours that is nearest to `sure_hw` around
    each pixel; and how far it is to be trusted, 0 to 1.
    """
    kernel = (2 * reach + 1, 2 * reach + 1)
    b, g, r = _split(colours_hw3)

    def mean(*planes: Planes) -> list[Planes]:
        """Around each pixel."""
        return _split(cv2.blur(cv2.merge(planes), kernel, borderType=cv2.BORDER_REFLECT_101))

    mb, mg, mr, mp = mean(b, g, r, sure_hw)
    bb, gg, rr, pb = mean(b * b, g * g, r * r, sure_hw * b)
    bg, br, gr, pg = mean(b * g, b * r, g * r, sure_hw * g)
    pr, pp = mean(sure_hw * r, sure_hw * sure_hw)
    bb, gg, rr = bb - mb * mb + SMOOTHNESS, gg - mg * mg + SMOOTHNESS, rr - mr * mr + SMOOTHNESS
    bg, br, gr = bg - mb * mg, br - mb * mr, gr - mg * mr
    pb, pg, pr = pb - mp * mb, pg - mp * mg, pr - mp * mr
    ibb, ibg, ibr = gg * rr - gr * gr, br * gr - bg * rr, bg * gr - br * gg  # the covariance's adjugate
    igg, igr, irr = bb * rr - br * br, bg * br - bb * gr, bb * gg - bg * bg
    share = 1 / (bb * ibb + bg * ibg + br * ibr)
    ab, ag = (ibb * pb + ibg * pg + ibr * pr) * share, (ibg * pb + igg * pg + igr * pr) * share
    ar = (ibr * pb + igr * pg + irr * pr) * share
    (explained,) = mean((ab * pb + ag * pg + ar * pr) / (pp - mp * mp + FLAT))
    weights = np.asarray(cv2.merge(mean(ab, ag, ar, mp - ab * mb - ag * mg - ar * mr)))
    return weights, np.clip((explained - TRUST[0]) / (TRUST[1] - TRUST[0]), 0, 1)


def _split(planes_hwc: Any) -> list[Planes]:
    return [np.asarray(plane) for plane in cv2.split(planes_hwc)]
