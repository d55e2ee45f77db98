"""`Audience`: the subscribers of a benchmark, in a process of their own, and what they saw.

Owns: that process. Used by one thread. Never: touches a message while it comes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

AUDIENCE = Path(__file__).with_name("audience.py")
LIMIT_S = 60.0


class Audience:
    """`benchmarks/audience.py` as a process: made before anything is measured, ends with `leave`."""

    def __init__(self, endpoint: str, count: int, file: Path) -> None:
        self.count, self._file = count, file
        command = [sys.executable, str(AUDIENCE), endpoint, str(count), str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the subscribers heard nothing")

    def leave(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[bytes]]:
        """Of each arrival the number of its message and when `recv` returned; and the messages."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LIMIT_S)
        found = np.load(self._file)
        data, ends = found["data"].tobytes(), found["ends"].tolist()
        messages = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return found["message_m"], found["received_ns_m"], messages


def percentiles(values_ns: NDArray[Any]) -> dict[str, float]:
    """In milliseconds."""
    return {name: round(float(np.percentile(values_ns, q)) / 1e6, 3) for name, q in (("p50", 50), ("p99", 99))}
