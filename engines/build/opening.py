"""`open_engine`: the engine of one named backend.

Owns: the choice of module for a backend's name, and the judgement of cached plans at every start. One thread: the one
that will use the engine. Never: falls back to another backend unasked, except for the lengths and prompts that no
program of a plan backend has; builds anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.build.cache import EngineCache, Entry, PlanUnusable
from engines.build.gate import Gate
from engines.build.request import BACKENDS, EngineRequest, Precision
from engines.build.shelf import Shelf
from engines.build.verdict import Verdict
from engines.eager import EagerEngine
from engines.programmed import ProgrammedEngine
from engines.spec import BackendMissing, Engine, ProgramKey, program_keys
from engines.tensorrt import EngineFault, PlanProgram, install_plan, tensorrt_engine

log = logging.getLogger(__name__)


def open_engine(request: EngineRequest, *, network: SAM2Base | None = None, cache: EngineCache | None = None) -> Engine:
    """The engine, ready to run. `network` is the request's own, where the caller has it already.

    A plan backend starts with those of its cached plans that pass the gate here and now; `Workshop` builds the rest.
    Raises `BackendMissing`, `WeightsError`.
    """
    if request.backend not in BACKENDS:
        raise BackendMissing(f"backend is {request.backend!r}; expected {', '.join(BACKENDS)}")
    if request.backend in ("eager", "compiled"):
        return _plain(request, request.network() if network is None else network)
    shelf = Shelf(request, cache=cache or EngineCache())
    model = request.network() if network is None else network
    engine = tensorrt_engine(_inner(request, model), model, shelf.library)
    _install_all(engine, shelf, model)
    return engine


def open_plans(request: EngineRequest, *, cache: EngineCache | None = None) -> Iterator[tuple[ProgramKey, Verdict]]:
    """Judge every cached plan of the request, as `open_engine` does; raises what it raises."""
    shelf = Shelf(request, cache=cache or EngineCache())
    model = request.network()
    yield from judge_plans(tensorrt_engine(_inner(request, model), model, shelf.library), shelf, model)


def install_entry(
    engine: ProgrammedEngine, shelf: Shelf, key: ProgramKey, *, found: tuple[Entry, Precision]
) -> PlanProgram:
    """Load one plan; raises `PlanUnusable`, `EngineFault`, and then the engine is as it was."""
    entry, precision = found
    kernels = shelf.kernels(key, precision)
    program = install_plan(engine, shelf.library, key, plan=shelf.cache.read(entry), runtime_cache=kernels)
    if key.kind == "track":
        engine.attention_dtype = precision.attention_dtype
    return program


def _plain(request: EngineRequest, network: SAM2Base) -> Engine:
    if request.backend == "compiled":
        from engines.compiled import compiled_engine

        return compiled_engine(network, name=request.model, device=request.device, dtype=request.dtype)
    return EagerEngine(network, name=request.model, device=request.device, dtype=request.dtype)


def _inner(request: EngineRequest, network: SAM2Base) -> Engine:
    """What runs the rest; TensorRT's programs exist for GPUs alone, and a stand-in on a CPU needs nothing fast."""
    if request.device.type == "cuda":
        try:
            return _plain(_named(request, "compiled"), network)
        except BackendMissing as error:
            log.warning("%s runs warming objects and prompts on eager: %s", request.backend, error)
    return _plain(_named(request, "eager"), network)


def _named(request: EngineRequest, backend: str) -> EngineRequest:
    return EngineRequest(request.model, request.checkpoint, request.device, request.dtype, backend, request.random_seed)


def judge_plans(engine: ProgrammedEngine, shelf: Shelf, network: SAM2Base) -> Iterator[tuple[ProgramKey, Verdict]]:
    """Load every plan that the cache has for this engine, and keep in it those that the gate lets through. A plan that
    is refused is set aside.
    """
    gate: Gate | None = None
    for key in program_keys():
        found = shelf.find(key)
        if found is None:
            continue
        gate = gate or Gate(network, engine.spec, dtype=engine.dtype, device=engine.device)
        yield key, _install_judged(engine, shelf, gate, key=key, found=found)


def _install_judged(
    engine: ProgrammedEngine, shelf: Shelf, gate: Gate, *, key: ProgramKey, found: tuple[Entry, Precision]
) -> Verdict:
    try:
        program = install_entry(engine, shelf, key, found=found)
    except PlanUnusable as error:  # it is gone; the workshop builds it anew
        return Verdict(False, str(error))
    except EngineFault as error:
        verdict = Verdict(False, " ".join(str(error).split()))
    else:
        verdict = gate.judge(key, program, found[1])
        if verdict.passed:
            shelf.keep_kernels(key, found[1], program.runtime_cache)
            return verdict
    engine.discard(key)
    shelf.cache.set_aside(found[0], verdict)
    return verdict


def _install_all(engine: ProgrammedEngine, shelf: Shelf, network: SAM2Base) -> None:
    for key, verdict in judge_plans(engine, shelf, network):
        if not verdict.passed:
            log.error("%s on %s refused: %s", key.name, shelf.request.backend, verdict.reason)
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()  # what the reference took
