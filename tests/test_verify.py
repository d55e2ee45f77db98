"""An engine is compared with the reference before it is used: a true one passes, a wrong one does not."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.eager import EagerEngine
from engines.weights import build_model
from stream.verify import verify


def engine_of(network: SAM2Base, dtype: torch.dtype = torch.float32) -> EagerEngine:
    return EagerEngine(network, name="nano", device=torch.device("cpu"), dtype=dtype)


def test_an_engine_agrees_with_itself_and_in_bf16_closely() -> None:
    reference = engine_of(build_model("nano"))
    same = verify(reference, reference)
    assert same.mean_iou == 1.0 and same.num_flips == 0 and same.is_enough
    assert verify(engine_of(build_model("nano"), torch.bfloat16), reference).is_enough


def test_a_wrong_engine_is_refused() -> None:
    reference, wrong = engine_of(build_model("nano")), engine_of(build_model("nano"))
    wrong._track.remember.scale, wrong._track.remember.bias = -20.0, 10.0  # every memory says the opposite
    assert not verify(wrong, reference).is_enough
