"""A stand-in for NVIDIA's `tensorrt` module, so that the way through TensorRT can be gone on a machine without it.

It reads ONNX, "builds" plans that hold it, and runs them with onnxruntime on CPU addresses; it knows nothing of
kernels, tactics or speed. It lists inputs and outputs in reversed order (who binds by position is found out), takes
calls only as NVIDIA's bindings take them (`signatures.txt`), and misbehaves on request (`Fault`).

`install(monkeypatch, "tensorrt")` makes it importable, here and in child processes.
"""

from tensorrt_emulator.install import install
from tensorrt_emulator.world import FAULTS, World

__all__ = ["FAULTS", "World", "install"]
