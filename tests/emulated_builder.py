"""The process that builds, for tests: on a GPU and with a TensorRT that are not there, and with a model that fits a
pocket. `Workshop` starts it in place of `engines.build.child`. With an argument the model is the request's own.
"""

from __future__ import annotations

import sys

from pocket import pocket_network

import engines.build.shelf
from engines.build import EngineRequest, child
from engines.tensorrt import Gpu

GPU = Gpu("Emulated", "sm89", "1")

if __name__ == "__main__":
    engines.build.shelf.find_gpu = lambda device: GPU
    if len(sys.argv) == 1:
        EngineRequest.network = lambda self: pocket_network()  # type: ignore[method-assign]
    sys.exit(child.run())
