"""`make_plans`: from programs to verified plans in the cache.

Owns: the order export, build, gate, store, and the ladder of number formats. One thread, that of the process which
builds: minutes of work and a GPU full of trials are no company for a daemon. Never: puts a plan where one is loaded
from before the gate has let it through - except those for other machines, which the first start over there judges.
"""

from __future__ import annotations

from dataclasses import replace

from sam2.modeling.sam2_base import SAM2Base

from engines.build.cache import Label
from engines.build.gate import Gate
from engines.build.gpu_load import is_busy
from engines.build.request import Precision
from engines.build.route import Route
from engines.build.shelf import Shelf, is_suspect
from engines.build.tidings import Order, Tell, Tidings
from engines.build.verdict import Verdict
from engines.graphs import spec_of
from engines.spec import ProgramKey, program_spec
from engines.tensorrt import BuildError, EngineFault, load_program


class _Maker:
    """`_first_rung` is written by the thread that builds: a format that one program of a kind was refused in is not
    tried again for its sisters.
    """

    def __init__(self, shelf: Shelf, network: SAM2Base, *, tell: Tell, again: bool) -> None:
        request = shelf.request
        self._shelf, self._network, self._tell, self._again = shelf, network, tell, again
        self._spec = spec_of(network, request.model)
        self._route = Route(shelf, network, tell=tell)
        self._gate: Gate | None = None
        if shelf.gpu is not None:
            self._gate = Gate(network, self._spec, dtype=request.dtype, device=request.device)
        self._first_rung = {"encode": 0, "track": 0}
        # RTX tries nothing when it builds. Asked once, before this process uses the GPU itself
        self._was_busy = shelf.gpu is not None and request.backend == "tensorrt" and is_busy(request.device)

    def make(self, key: ProgramKey) -> None:
        reasons = []
        rungs = self._shelf.precisions[self._first_rung[key.kind] :]
        for precision in rungs:
            if not self._again and self._shelf.is_refused(key, precision):
                continue
            verdict = self._attempt(key, precision)
            if verdict is None or verdict.passed:
                return
            reasons.append(f"{precision.name}: {verdict.reason}")
            self._tell(Tidings("stage", key, f"refused in {precision.name}: {verdict.reason}"))
            self._first_rung[key.kind] = min(
                self._shelf.precisions.index(precision) + 1, len(self._shelf.precisions) - 1
            )
        self._tell(Tidings("refused", key, "; ".join(reasons) or "refused before"))

    def _attempt(self, key: ProgramKey, precision: Precision) -> Verdict | None:
        """Put the plan in its place, or aside. None: nobody could run it here."""
        recipe = self._shelf.recipe(key, precision)
        try:
            plan = self._route.plan(key, precision)
        except BuildError as error:
            failure = Verdict(False, f"not built: {' '.join(str(error).split())}"[:2000])
            self._shelf.cache.store(Label(recipe, failure), b"", refused=True)
            return failure
        found = self._judge(key, precision, plan)
        verdict = None if found is None else replace(found, was_busy=self._was_busy)
        is_refused = verdict is not None and not verdict.passed
        path = self._shelf.cache.store(Label(recipe, verdict), plan, refused=is_refused)
        if not is_refused:
            self._shelf.cache.path_of(recipe, refused=True).unlink(missing_ok=True)  # it was refused before
            self._tell(Tidings("ready", key, self._words(precision, verdict), path=str(path)))
        return verdict

    def _judge(self, key: ProgramKey, precision: Precision, plan: bytes) -> Verdict | None:
        if self._gate is None:
            return None
        self._tell(Tidings("stage", key, f"compare with eager, {precision.name}", 0.9))
        spec, device = program_spec(self._spec, key, precision.dtype), self._shelf.request.device
        try:
            program = load_program(self._shelf.library, plan, spec, device=device)
        except EngineFault as error:
            return Verdict(False, f"not loaded: {' '.join(str(error).split())}")
        verdict = self._gate.judge(key, program, precision)
        if verdict.passed:
            self._shelf.keep_kernels(key, precision, program.runtime_cache)
        return verdict

    def _words(self, precision: Precision, verdict: Verdict | None) -> str:
        if verdict is None:
            return f"{precision.name}, not verified: the first start on such a GPU does it"
        busy = "; timed on a busy GPU, so it may be slow: build again when idle" if verdict.was_busy else ""
        return f"{precision.name}, {verdict.worst}{busy}"


def make_plans(shelf: Shelf, network: SAM2Base, order: Order, *, tell: Tell) -> None:
    """Build what the order names and the cache lacks; one process at a time does so."""
    with shelf.cache.building(lambda: tell(Tidings("waiting", text="another process builds; waiting for it"))):
        maker = _Maker(shelf, network, tell=tell, again=order.again)
        for key in order.keys:
            found = shelf.find(key)  # perhaps by the process that we waited for
            if found is not None and not (order.again and is_suspect(found[0])):
                tell(Tidings("ready", key, "in the cache", path=str(found[0].path)))
                continue
            maker.make(key)
    tell(Tidings("done"))
