"""What the child that builds is told, and what it tells: one JSON object a line.

Owns: `Order`, `Tidings` and their lines. Values; any thread. Never: trusts a line that it cannot read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from engines.spec import ProgramKey, program_keys

Kind = Literal["waiting", "stage", "ready", "refused", "failed", "done"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to build: `targets` for other machines (TensorRT-RTX), `again` also what was refused or timed on a busy GPU.

    Programs come in the order in which they are needed: one frame and one row first.
    """

    keys: tuple[ProgramKey, ...] = tuple(sorted(program_keys(), key=lambda key: (key.num_cond > 1, key.batch)))
    targets: tuple[str, ...] = ()
    again: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        content = json.loads(text)
        keys = tuple(ProgramKey(**key) for key in content["keys"])
        return cls(keys, tuple(content["targets"]), content["again"])


@dataclass(frozen=True, slots=True)
class Tidings:
    """`key` is None where it is about no program; `text` is for people."""

    kind: Kind
    key: ProgramKey | None = None
    text: str = ""
    share: float = 0.0  # of this stage, 0 to 1
    path: str = ""  # of the plan that is ready

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Tidings:
        """Raises ValueError for anything else."""
        try:
            content = json.loads(line)
            key = content.pop("key")
            return cls(**content, key=None if key is None else ProgramKey(**key))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a line of the builder: {line[:100]!r}") from error


Tell = Callable[[Tidings], None]
