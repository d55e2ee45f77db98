"""`examine`: everything that `sam2-stream doctor` looks at, in the order in which things are needed.

Owns: the order. Runs in whichever thread calls it. Never: stops at the first thing that is broken.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.config import Config
from stream.doctor.cameras import cameras
from stream.doctor.engines import engines
from stream.doctor.finding import Finding
from stream.doctor.limits import limits
from stream.doctor.machine import machine
from stream.doctor.sandbox import sandbox
from stream.doctor.setup import setup


def examine(config: Config, *, file: str = "", limit_s: float = 8.0) -> Iterator[Finding]:
    """`file` is the configuration's name; a camera is looked at for `limit_s`. Findings come as they are made."""
    yield from machine(config)
    yield from engines(config)
    yield from sandbox(config, file)
    yield from setup(config)
    yield from limits(config)
    yield from cameras(config.cameras, limit_s=limit_s)
