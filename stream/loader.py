"""`Loader`: the configured model as a tracker, on the fastest engine that agrees with the reference.

Owns: which engine is used, what is said of it, and the workshop that builds plans while the daemon runs. The worker's
thread calls `load` once, owns the tracker that it gets, and calls `tend` between turns and `close` at the end. Never:
uses an engine that was not compared with fp32 eager at this start, or falls back without saying so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from engines.build import PLAN_BACKENDS, EngineRequest, ReadyPlan, Workshop, open_engine
from engines.programmed import ProgrammedEngine
from engines.spec import BackendMissing, Engine
from engines.weights import build_model, cache_folder, checkpoint_name
from stream.choose import Candidate, Choice, Referee, choose, in_use
from stream.config import Config
from stream.device import OptionError, limit_cpu_threads, resolve_device, resolve_dtype
from stream.tracker import Tracker, TrackerOptions

log = logging.getLogger(__name__)

# In the order in which they are expected to be fast
CANDIDATES = {"cuda": ("tensorrt", "tensorrt-rtx", "compiled", "eager"), "cpu": ("compiled", "eager")}
SOURCES = ("engines", "stream")


@dataclass(frozen=True, slots=True)
class Model:
    """What runs, once it is loaded; "" before."""

    device: str = ""
    dtype: str = ""  # "float16", or "float16, attention bfloat16"
    backend: str = ""  # in use, not as configured
    choice: str = ""  # why this one, and what was passed over
    problem: str = ""  # that the configured backend is not the one in use


class Loader:
    """All fields are written by the worker's thread, `_hurry` by any; `model` is replaced, never changed, and read by
    any.
    """

    def __init__(self, config: Config) -> None:
        self.model = Model()
        self._config = config
        self._engine: Engine | None = None
        self._workshop: Workshop | None = None
        self._hurry = threading.Event()
        self._ready = deque[ReadyPlan]()  # verified plans that wait to be installed, at most one for each program

    def load(self) -> Tracker:
        """Raises `WeightsError` about the checkpoint, `OptionError` about the rest."""
        config = self._config
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.dtype, device)
        request = EngineRequest(config.model, config.checkpoint, device, dtype, config.backend)
        network = build_model(config.model, config.checkpoint)
        limit_cpu_threads(device, network.image_size)
        choice = self._choose(request, network)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the reference's, and of those that were passed over
        self._engine = choice.engine
        self.model = Model(_device_name(device), choice=choice.text, problem=_problem(config.backend, choice))
        self._tell()
        log.info("%s on %s: %s", config.model, self.model.device, choice.text)
        if self.model.problem:
            log.error("%s", self.model.problem)
        if choice.backend in PLAN_BACKENDS and not self._hurry.is_set():
            self._open_workshop(dataclasses.replace(request, backend=choice.backend))
        options = TrackerOptions(max_cond_frames=config.max_cond_frames, refine_as_cond=config.refine_as_cond)
        tracker = Tracker(choice.engine, options)
        tracker.steps.prepare()
        return tracker

    def tend(self) -> None:
        """Take over a plan that was built and verified since, at most one: loading it takes a while. Between turns."""
        if self._workshop is None or self._engine is None:
            return
        self._ready.extend(self._workshop.poll())
        if self._ready:
            self._install(self._workshop, self._engine, self._ready.popleft())
        elif not (progress := self._workshop.progress).is_running:
            said = f"{progress.num_done - len(progress.refused)} of {progress.num_programs} plans were built"
            problems = "; ".join(filter(None, (*progress.refused, progress.error)))
            log.log(logging.ERROR if problems else logging.INFO, "%s: %s", said, problems or "all are in use")
            self.close()

    def close(self) -> None:
        """End what is being built."""
        if self._workshop is not None:
            self._workshop.stop()
            self._workshop = None

    def hurry(self) -> None:
        """End `load` soon, with any engine: it will not be used."""
        self._hurry.set()

    # --- choosing ----------------------------------------------------------------------------------------------------

    def _choose(self, request: EngineRequest, network: SAM2Base) -> Choice:
        reference = dataclasses.replace(request, backend="eager", dtype=torch.float32)
        if (request.backend, request.dtype) == ("eager", torch.float32):
            return Choice("eager", open_engine(request, network=network), "eager in float32, the reference itself")

        def candidate(backend: str) -> Candidate:
            one = dataclasses.replace(request, backend=backend)
            return Candidate(backend, lambda: _open(one, network, is_named=backend == request.backend))

        referee = Referee(
            lambda: open_engine(reference, network=network),
            folder=cache_folder("verify"), key=_reference_key(request), is_hurried=self._hurry.is_set,
        )  # fmt: skip
        wanted = [candidate(backend) for backend in _order(request)]
        return choose(wanted, referee, is_first_enough=request.backend != "auto")

    # --- plans that are built meanwhile ------------------------------------------------------------------------------

    def _open_workshop(self, request: EngineRequest) -> None:
        workshop = Workshop(request)
        if not workshop.missing:
            return
        workshop.start()
        log.info("%s: %d plans are built while the daemon runs", request.backend, len(workshop.missing))
        self._workshop = workshop

    def _install(self, workshop: Workshop, engine: Engine, ready: ReadyPlan) -> None:
        assert isinstance(engine, ProgrammedEngine), "only an engine of programs has plans built for it"
        if workshop.install(engine, ready):
            log.info("%s: %s is a plan from now on: %s", engine.backend, ready.key.name, ready.text)
            self._tell()

    def _tell(self) -> None:
        """What is in use now."""
        assert self._engine is not None, "there is an engine once it was chosen"
        engine = in_use(self._engine)
        self.model = dataclasses.replace(self.model, backend=engine.backend, dtype=dtype_text(engine))


def dtype_text(engine: Engine) -> str:
    """float16, or with an island of another format: float16, attention bfloat16."""
    dtype, attention = (str(kind).removeprefix("torch.") for kind in (engine.dtype, engine.attention_dtype))
    return dtype if attention == dtype else f"{dtype}, attention {attention}"


def _order(request: EngineRequest) -> tuple[str, ...]:
    """What is tried, the named backend first; what comes after it takes over where it computes something else."""
    known = CANDIDATES[request.device.type]
    if request.backend == "auto":
        return known
    after = known[known.index(request.backend) + 1 :] if request.backend in known else known
    return (request.backend, *after)


def _open(request: EngineRequest, network: SAM2Base, *, is_named: bool) -> Engine:
    """A backend that was named has to be there."""
    try:
        return open_engine(request, network=network)
    except BackendMissing as error:
        if is_named:
            raise OptionError(f"backend is {request.backend!r}: {error}") from error
        raise


def _problem(wanted: str, choice: Choice) -> str:
    """What the operator should know: something computes wrongly here, or what was named is not used."""
    if wanted not in ("auto", choice.backend):
        return f"backend {wanted} is not used: {choice.text}"
    return f"not used: {', '.join(choice.refused)}: {choice.text}" if choice.refused else ""


def _reference_key(request: EngineRequest) -> str:
    """All that the reference's results depend on: weights, device, torch, and the text of our programs."""
    weights = checkpoint_name(request.model, request.checkpoint)
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(path for package in SOURCES for path in (root / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return f"{weights}; {_device_name(request.device)}; torch {torch.__version__}; programs {digest.hexdigest()}"


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
