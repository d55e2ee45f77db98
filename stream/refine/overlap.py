"""`without_overlap`: where objects of one picture claim the same place, the surer one keeps it.

Owns: the rule. Pure; the worker's thread. Never: gives an object what it did not claim.

As SAM 2's `_apply_non_overlapping_constraints`, but with a border that stays smooth: each object's logits are lowered
by the highest of the others, where those are positive. Of two objects the sum is never above 0 then, and no enlarging
by weights brings an overlap back.
"""

from __future__ import annotations

import torch
from torch import Tensor


def without_overlap(logits_nhw: Tensor) -> Tensor:
    if logits_nhw.shape[0] < 2:
        return logits_nhw
    highest, second = logits_nhw.topk(2, dim=0).values
    rival = torch.where(logits_nhw == highest, second, highest)
    return logits_nhw - rival.clamp(min=0)
