"""What one emulated TensorRT is like: its version, how it misbehaves, and what was seen of its use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

FAULTS: Mapping[str, str] = {
    "parse_false": "the parser refuses every model",
    "build_none": "the builder gives None",
    "deserialize_none": "the runtime gives None for every plan",
    "context_none": "an engine gives None instead of a context",
    "address_false": "set_tensor_address gives False",
    "enqueue_false": "execute_async_v3 gives False",
    "enqueue_false_later": "execute_async_v3 gives False from its second call on",
    "timing_cache_false": "set_timing_cache gives False",
    "wrong_shape": "the first output is one longer than it was in the model",
    "wrong_dtype": "the first output is INT32",
    "wrong_mode": "the first output is listed as an input",
    "missing_output": "the first output is not there",
    "stale_output": "every output is that of the run before",
    "swap_rows": "the first two rows of every output are exchanged",
    "nan": "every output is NaN",
}
ENVIRONMENT = "TENSORRT_EMULATOR"  # flavour version fault fault ..., for child processes


@dataclass(slots=True)
class World:
    """Shared by everything that one emulated module makes. `faults` may be changed at any time, in this process."""

    flavour: str = "tensorrt"
    version: str = "11.0.0"
    faults: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)  # "IExecutionContext.execute_async_v3", ... in order
    streams: list[int] = field(default_factory=list)  # of every enqueue
    recorded: list[Callable[[], None]] = field(default_factory=list)
    is_capturing: bool = False

    def __post_init__(self) -> None:
        unknown = self.faults - set(FAULTS)
        assert not unknown, f"{unknown}: no such faults, expected some of {sorted(FAULTS)}"

    def has(self, fault: str) -> bool:
        assert fault in FAULTS, fault
        return fault in self.faults

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("."))

    @property
    def major(self) -> int:
        return self.numbers[0]

    @property
    def table(self) -> str:
        """Whose signatures hold."""
        return "tensorrt-10" if self.major == 10 else self.flavour

    @property
    def is_rtx(self) -> bool:
        return self.flavour == "tensorrt-rtx"

    @contextmanager
    def capture(self) -> Iterator[None]:
        """As in a CUDA graph: what is enqueued inside is recorded, with the addresses of this moment, and not run."""
        assert not self.is_capturing, "captures do not nest"
        self.recorded.clear()
        self.is_capturing = True
        try:
            yield
        finally:
            self.is_capturing = False

    def replay(self) -> None:
        """Run what `capture` recorded."""
        for run in self.recorded:
            run()

    def text(self) -> str:
        """For a child process; `of_text` reads it."""
        return " ".join([self.flavour, self.version, *sorted(self.faults)])


def of_environment(flavour: str) -> World:
    """The world that a parent process described, or a well-behaved one."""
    words = os.environ.get(ENVIRONMENT, "").split()
    if not words or words[0] != flavour:
        return World(flavour, "1.7.1.116" if flavour == "tensorrt-rtx" else "11.0.0")
    return World(words[0], words[1], set(words[2:]))
