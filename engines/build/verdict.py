"""`Verdict`: what the gate found of one program.

Owns: the figures and their wording. A value; any thread. Never: judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """`figures` are per output (maximum error, RMS error), relative to the reference."""

    passed: bool
    reason: str = ""  # "" where it passed
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)
    num_flips: int = 0  # object scores with the other sign
    was_busy: bool = False  # others used the GPU meanwhile; then the builder's timings are suspect

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Verdict:
        """From JSON, which has no tuples."""
        figures = {name: (float(first), float(second)) for name, (first, second) in content["figures"].items()}
        return cls(**{**content, "figures": figures})

    @property
    def worst(self) -> str:
        """The output that is furthest off, in words; "" without figures."""
        if not self.figures:
            return ""
        name, (maximum, rms) = max(self.figures.items(), key=lambda item: item[1])
        return f"{name} off by at most {maximum:.1e}, {rms:.1e} RMS"
