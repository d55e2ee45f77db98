"""CUDA graphs in place of a GPU: what was recorded is repeated operation by operation, on the very tensors of then.

As with a real graph, whatever the recorded code did in Python happens once only: an index that it computed, a tensor
that it looked up and a branch that it took are those of the recording for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# what waits for the device, or copies from memory that is not pinned: a real capture fails there
_FORBIDDEN = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.item", "aten.equal",
    "aten.lift_fresh", "aten.repeat_interleave.Tensor", "aten.unique", "aten.bincount", "aten._unique",
)  # fmt: skip


class Log(TorchDispatchMode):
    """`calls` in their order: what is called, with what, and the tensors that it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(_FORBIDDEN):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, [x for x in tree_leaves(result) if isinstance(x, Tensor)]))
        return result


class FakeTape:
    def __init__(self, log: Log) -> None:
        self._calls = log.calls
        self.num_plays = 0

    @torch.inference_mode()
    def play(self) -> None:
        self.num_plays += 1
        for func, args, kwargs, results in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(results, [x for x in tree_leaves(again) if isinstance(x, Tensor)], strict=True):
                if new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class FakeRecorder:
    """`tapes` are those it made; `fails` makes the next recording impossible."""

    def __init__(self) -> None:
        self.tapes: list[FakeTape] = []
        self.fails = False
        self.is_recording = False

    def capturing(self, log: Log) -> AbstractContextManager[None]:
        """For work that is not PyTorch's: a chance to put it into the log instead of doing it."""
        return nullcontext()

    @torch.inference_mode()
    def record(self, work: Callable[[], None]) -> FakeTape:
        log = Log()
        self.is_recording = True
        try:
            work()
            with self.capturing(log), log:
                if self.fails:
                    torch.ones(1).item()
                work()
        finally:
            self.is_recording = False
        self.tapes.append(FakeTape(log))
        return self.tapes[-1]
