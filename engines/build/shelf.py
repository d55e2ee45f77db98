"""`Shelf`: the place of every plan of one request, on one machine.

Owns: the recipes of a request's plans, and which plan of the cache serves a program. One thread: the one that opens or
builds. Never: builds, loads or judges a plan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from engines.build.cache import CacheError, EngineCache, Entry, Label, PlanUnusable
from engines.build.recipe import Recipe, library_versions, programs_text
from engines.build.request import PLAN_BACKENDS, EngineRequest, Precision, ladder
from engines.spec import BackendMissing, ProgramKey
from engines.tensorrt import BuildOptions, Gpu, Library, LibraryName, find_gpu, load_library
from engines.weights import checkpoint_name

log = logging.getLogger(__name__)

_TARGETS = "targets "
_RTX: LibraryName = "tensorrt-rtx"
_LIBRARIES: dict[str, LibraryName] = {"tensorrt": "tensorrt", _RTX: _RTX}


class Shelf:
    """Nothing changes after the constructor; the files do."""

    def __init__(self, request: EngineRequest, *, cache: EngineCache, targets: tuple[str, ...] = ()) -> None:
        """Raises `BackendMissing`, `WeightsError`. With `targets` plans are for other machines, and cannot run here."""
        assert request.backend in PLAN_BACKENDS, f"{request.backend} has no plans"
        self.request, self.cache, self.targets = request, cache, tuple(sorted(targets))
        self.library: Library = load_library(_LIBRARIES[request.backend])
        self.gpu: Gpu | None = None if targets else self.library.check_gpu(find_gpu(request.device))
        self._check_targets()
        self._weights = _weights_of(request)
        self._text = programs_text()
        self._versions = library_versions(f"{self.library.name} {self.library.version}")

    @property
    def where(self) -> str:
        """The machine that the plans are for, in words."""
        if self.gpu is None:
            return _TARGETS + " ".join(self.targets)
        return f"{self.gpu.name}, {self.gpu.target}, driver {self.gpu.driver}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What is tried, in order."""
        return ladder(self.request.dtype)

    @property
    def options(self) -> BuildOptions:
        """The timing cache lies beside the plans, in the same private folder."""
        timing = None if self.targets or self.request.backend == _RTX else self.cache.folder / "timing.cache"
        return BuildOptions(targets=self.targets, timing_cache=timing)

    def recipe(self, key: ProgramKey, precision: Precision) -> Recipe:
        """Everything that this plan depends on."""
        options = self.options
        return Recipe(
            program=key.name,
            model=self.request.model,
            weights=self._weights,
            backend=self.request.backend,
            precision=precision.name,
            text=self._text,
            options=f"level {options.optimization_level}, workspace {options.workspace_bytes}",
            versions=self._versions,
            platform=self.where,
        )

    def find(self, key: ProgramKey) -> tuple[Entry, Precision] | None:
        """The plan that serves this program, and its number formats; RTX plans built elsewhere for this GPU count."""
        for precision in self.precisions:
            entry = self.cache.find(self.recipe(key, precision))
            if entry is None and self.request.backend == _RTX and self.gpu is not None:
                entry = self._from_elsewhere(self.recipe(key, precision))
            if entry is not None:
                return entry, precision
        return None

    def is_refused(self, key: ProgramKey, precision: Precision) -> bool:
        """Whether the gate has refused this very plan here before."""
        return self.cache.find(self.recipe(key, precision), refused=True) is not None

    def missing(self, keys: Iterable[ProgramKey]) -> tuple[ProgramKey, ...]:
        """Programs without a plan that might still get one."""
        return tuple(key for key in keys if self.find(key) is None and self.open_precisions(key))

    def open_precisions(self, key: ProgramKey) -> tuple[Precision, ...]:
        """Those that were not refused."""
        return tuple(precision for precision in self.precisions if not self.is_refused(key, precision))

    def kernels(self, key: ProgramKey, precision: Precision) -> bytes:
        """What TensorRT-RTX compiled of this plan on this GPU before; empty where it has yet to."""
        entry = self.cache.find(self._kernels_recipe(key, precision))
        if entry is None:
            return b""
        try:
            return self.cache.read(entry)
        except PlanUnusable:
            return b""

    def keep_kernels(self, key: ProgramKey, precision: Precision, kernels: bytes) -> None:
        """For the next start; after a program has run."""
        recipe = self._kernels_recipe(key, precision)
        if not kernels or self.cache.find(recipe) is not None:
            return
        try:
            self.cache.store(Label(recipe, None), kernels)
        except CacheError as error:
            log.warning("%s is compiled again at the next start: %s", key.name, error)

    def _kernels_recipe(self, key: ProgramKey, precision: Precision) -> Recipe:
        return replace(self.recipe(key, precision), program=f"{key.name}-kernels")

    def _from_elsewhere(self, wanted: Recipe) -> Entry | None:
        assert self.gpu is not None, "only asked on the machine that runs it"
        if self.cache.find(wanted, refused=True) is not None:
            return None
        for entry in self.cache.entries():
            there = entry.label.recipe
            is_same = replace(there, platform=wanted.platform) == wanted and there.platform.startswith(_TARGETS)
            if is_same and self.gpu.target in there.platform.removeprefix(_TARGETS).split():
                return entry
        return None

    def _check_targets(self) -> None:
        unknown = [target for target in self.targets if target not in self.library.targets]
        if unknown:
            known = ", ".join(self.library.targets) or "only the GPU of the machine that it runs on"
            raise BackendMissing(f"{self.library.name} does not build for {', '.join(unknown)}; expected {known}")


def with_backend(request: EngineRequest, *, cache: EngineCache, targets: tuple[str, ...] = ()) -> EngineRequest:
    """The request itself, or for the backend `auto` that of the first plan backend that works here. Raises
    `BackendMissing` with what each of them lacks, `WeightsError`.
    """
    reasons = []
    for name in PLAN_BACKENDS if request.backend == "auto" else (request.backend,):
        named = replace(request, backend=name)
        try:
            Shelf(named, cache=cache, targets=targets)
        except BackendMissing as error:
            reasons.append(str(error))
            continue
        return named
    raise BackendMissing("; ".join(reasons))


def is_suspect(entry: Entry) -> bool:
    """Built by timing kernels while somebody else used the GPU."""
    verdict = entry.label.verdict
    return entry.label.recipe.backend != _RTX and verdict is not None and verdict.was_busy


def _weights_of(request: EngineRequest) -> str:
    if request.random_seed is not None:
        return f"random {request.random_seed}"
    return checkpoint_name(request.model, request.checkpoint)
