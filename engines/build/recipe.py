"""`Recipe`: everything that a plan depends on; two plans are interchangeable where their recipes are equal.

Owns: what goes into a plan's key, and the file name that follows from it. Any thread. Never: runs or builds anything.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_SOURCES = ("spec.py", "programmed.py", "graphs/*.py", "tensorrt/*.py", "build/request.py", "build/route.py")
_PACKAGES = ("torch", "sam2", "onnx", "onnxscript", "torch-tensorrt", "torch-tensorrt-rtx")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All fields are words, so that a file's label can be compared with it."""

    program: str  # encode-f1, track-b4-c2
    model: str
    weights: str  # SHA-256 of the checkpoint, or "random SEED"
    backend: str
    precision: str
    text: str  # SHA-256 of the programs' and the exporters' sources
    options: str  # of the builder
    versions: str  # of the libraries
    platform: str  # GPU name, compute capability and driver; or the targets of a plan for other machines

    @property
    def file_stem(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.program}-{digest[:32]}"


def programs_text() -> str:
    """SHA-256 of the sources that make the programs."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in _ROOT.glob(pattern)):
        content = path.read_bytes()
        found.update(f"{path.relative_to(_ROOT)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def library_versions(builder: str) -> str:
    """`builder` names TensorRT and its version; the rest is asked of Python."""
    return ", ".join([builder, *(f"{name} {_version(name)}" for name in _PACKAGES)])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
