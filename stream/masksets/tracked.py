"""What the tracker says of a picture, as labelled masks and as a line of JSON.

Owns: the confidence that mAP orders by. Pure; any thread. Never: changes a mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from stream.frame import Masks
from stream.mask_codec import encode_coco_rle
from stream.masksets.lines import RleLine, RleObject
from stream.masksets.rle import Rle
from stream.sequence import LabelledFrame

MAX_LOGIT = 60.0
DIGITS = 6


def confidence(score: float, iou: float) -> float:
    """That a mask is there and right: sigmoid(object score) x predicted IoU; 0 for what is not a number."""
    if math.isnan(score) or math.isnan(iou):
        return 0.0
    score = min(max(score, -MAX_LOGIT), MAX_LOGIT)
    return min(max(iou, 0.0), 1.0) / (1.0 + math.exp(-score))


def confidences(masks: Masks) -> dict[int, float]:
    """Object id to confidence."""
    rows = zip(masks.object_ids, masks.scores.tolist(), masks.ious.tolist(), strict=True)
    return {object_id: confidence(score, iou) for object_id, score, iou in rows}


def labelled(masks: Masks, index: int) -> LabelledFrame:
    """The tracker's masks of picture `index`."""
    return LabelledFrame(index, dict(zip(masks.object_ids, masks.masks_nhw, strict=True)), confidences(masks))


def line_of(
    masks: Masks, index: int, *, time_s: float | None = None, labels: Mapping[int, str] | None = None
) -> RleLine:
    """The same as a line for `RleWriter`; numbers are rounded to six digits."""
    height, width = masks.height, masks.width
    known, objects = labels or {}, []
    for row, (object_id, sure) in enumerate(confidences(masks).items()):
        x0, y0, x1, y1 = masks.boxes_n4[row].tolist()
        crop_hb = masks.packed_nhb[row, y0:y1, x0 // 8 : (x1 + 7) // 8]
        counts = encode_coco_rle(crop_hb, offset_xy=(x0 // 8 * 8, y0), height=height, width=width)
        objects.append(
            RleObject(
                id=object_id, label=known.get(object_id, ""), rle=Rle((height, width), counts.decode("ascii")),
                confidence=round(sure, DIGITS), score=_rounded(masks.scores[row]), iou=_rounded(masks.ious[row]),
                state=str(masks.states[row]),
            )
        )  # fmt: skip
    return RleLine(index=index, time_s=_rounded(time_s), height=height, width=width, objects=tuple(objects))


def _rounded(value: float | np.floating | None) -> float | None:
    """JSON has no word for what is not a finite number."""
    return None if value is None or not math.isfinite(value) else round(float(value), DIGITS)
