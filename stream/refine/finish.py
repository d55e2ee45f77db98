"""`Finish`: what refinement knows of one object.

Owns: the object's own settings, and its last smoothed logits. Written by the worker's thread. Never: touches a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stream.config import RefineOptions


@dataclass(frozen=True, slots=True)
class FinishState:
    """What is saved of it."""

    options: RefineOptions | None = None
    before_hw: Tensor | None = None


class Finish:
    """`options` are None where the camera's hold; `before_hw` is None where nothing is smoothed, or not yet."""

    __slots__ = ("before_hw", "options")

    def __init__(self) -> None:
        self.options: RefineOptions | None = None
        self.before_hw: Tensor | None = None

    def forget(self) -> None:
        """The past is of no use: the object was prompted."""
        self.before_hw = None

    def state(self) -> FinishState:
        return FinishState(self.options, None if self.before_hw is None else self.before_hw.clone())

    def put_back(self, state: FinishState) -> None:
        self.options = state.options
        self.before_hw = None if state.before_hw is None else state.before_hw.clone()
