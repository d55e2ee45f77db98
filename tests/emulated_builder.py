"""The process that builds, for tests: on a GPU and with a TensorRT that are not there, and with a model that fits a
pocket. `Workshop` starts it in place of `engines.build.child`.

With `own-weights` the model is the request's own; with `play` plans are a few bytes and all are let through; with
`broken` none can be built; with `ready FOLDER` they lie there already, which saves their export.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pocket import pocket_network

import engines.build.shelf
from engines.build import EngineRequest, Precision, Verdict, child
from engines.build.making import _Maker
from engines.build.route import Route
from engines.spec import ProgramKey
from engines.tensorrt import BuildError, Gpu

GPU = Gpu("Emulated", "sm89", "1")


def refuse(route: Route, key: ProgramKey, precision: Precision) -> bytes:
    raise BuildError("the builder is on strike")


if __name__ == "__main__":
    engines.build.shelf.find_gpu = lambda device: GPU
    if "own-weights" not in sys.argv:
        EngineRequest.network = lambda self: pocket_network()  # type: ignore[method-assign]
    if "play" in sys.argv:
        Route.plan = lambda self, key, precision: key.name.encode()  # type: ignore[method-assign]
        verdict = Verdict(True, "", {"logits_bhw": (1e-3, 1e-4)})
        _Maker._judge = lambda self, key, precision, plan: verdict  # type: ignore[method-assign]
    if "ready" in sys.argv:
        Route.plan = lambda self, key, precision: Path(sys.argv[-1], key.name).read_bytes()  # type: ignore[method-assign]
    if "broken" in sys.argv:
        Route.plan = refuse  # type: ignore[assignment]
    sys.exit(child.run())
