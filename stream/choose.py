"""`choose`: the fastest engine that agrees with fp32 eager, out of those that can be had here.

Owns: the order of trying, the limits of time, and the words about what was passed over. Runs in the worker's thread,
before the first frame. Never: takes an engine that was not compared with the reference, or says less than all it did.

Candidates come in the order in which they are expected to be fast. Each tracks the clip of `stream.verify`; one that is
not faster by a twentieth than the best so far is left after a few pictures. On a slow machine fewer pictures are
tracked, and how many is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engines.programmed import ProgrammedEngine
from engines.spec import BackendMissing, Engine
from stream.device import is_device_lost
from stream.evidence import Evidence, EvidenceError, file_of, read_evidence, write_evidence
from stream.verify import NUM_FRAMES, GoOn, Trial, compare

log = logging.getLogger(__name__)

# By kind of device: for the pictures after the first two, of the reference and of each candidate; and for all of them,
# after which no further candidate is tried, once one is right. A GPU is fast, but its libraries compile at first.
BUDGETS_S: Mapping[str, tuple[float, float]] = {"cpu": (6.0, 20.0), "cuda": (60.0, 120.0)}
NUM_WARM_UP = 2  # pictures; not timed
NUM_RACED = 8  # pictures after which a candidate is left that is not clearly ahead
FASTER = 0.95


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend, and how its engine is made; `open` raises `BackendMissing`."""

    backend: str
    open: Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class Choice:
    """`text` is the whole story in one line; `refused` names the candidates that computed something else, or failed."""

    backend: str
    engine: Engine
    text: str
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate that is right."""

    backend: str
    engine: Engine
    seconds_t: NDArray[np.float64]
    text: str

    def time_beside(self, other: _Tried) -> float:
        """As a part of what the other one took, on the pictures that both tracked."""
        num = min(len(self.seconds_t), len(other.seconds_t))
        return _step_s(self.seconds_t[:num]) / _step_s(other.seconds_t[:num])


class Referee:
    """fp32 eager on the clip: from the file where an earlier start left it, else computed now and kept for the next.

    `key` names all that the results depend on; without a folder nothing is kept. Once `is_hurried`, everything ends
    soon, and what was computed until then is no result. Written by the worker's thread.
    """

    def __init__(
        self,
        open_reference: Callable[[], Engine],
        *,
        folder: Path | None,
        key: str,
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self.trial = Trial()
        self.is_hurried = is_hurried
        self._open = open_reference
        self._file = None if folder is None else file_of(folder, key)
        self._key = key
        self._engine: Engine | None = None
        self._evidence: Evidence | None = None

    @property
    def engine(self) -> Engine:
        """fp32 eager itself: the last resort."""
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    @property
    def evidence(self) -> Evidence:
        if self._evidence is None:
            self._evidence = self._read()
        if self._evidence is None:
            go_on = _while_worth_it(within(_budgets_s(self.engine)[0]), NUM_FRAMES, self.is_hurried)
            self._evidence = self.trial.record(self.engine, go_on)
            self._write(self._evidence)
        return self._evidence

    def _read(self) -> Evidence | None:
        if self._file is None:
            return None
        try:
            return read_evidence(self._file, self._key)
        except (EvidenceError, OSError) as error:
            log.warning("the reference's results are computed anew: %s", error)
            return None

    def _write(self, evidence: Evidence) -> None:
        if self._file is None or self.is_hurried():
            return
        try:
            write_evidence(self._file, self._key, evidence)
        except OSError as error:
            log.warning("the reference's results are not kept for the next start: %s: %s", self._file, error.strerror)


def in_use(engine: Engine) -> Engine:
    """Of an engine of programs that has none yet, the one that does its work."""
    while isinstance(engine, ProgrammedEngine) and not engine.installed:
        engine = engine.inner
    return engine


def within(budget_s: float) -> GoOn:
    """As long as the next picture may be expected within the budget."""

    def go_on(seconds: Sequence[float]) -> bool:
        return sum(seconds[NUM_WARM_UP:]) + seconds[-1] <= budget_s or len(seconds) < NUM_WARM_UP

    return go_on


def choose(candidates: Sequence[Candidate], referee: Referee, *, is_first_enough: bool = False) -> Choice:
    """The fastest that is right, or the first one; the reference where none is."""
    started, best, passed_over, refused = perf_counter(), None, list[str](), list[str]()
    for candidate in candidates:
        if referee.is_hurried():
            break
        if best and (is_first_enough or perf_counter() - started > _budgets_s(best.engine)[1]):
            passed_over.append(f"{candidate.backend} (not tried)")
            continue
        try:
            found = _try(candidate, referee, best)
        except BackendMissing as error:
            passed_over.append(f"{candidate.backend} ({_first_line(error)})")
        except _Refused as error:
            passed_over.append(f"{candidate.backend} ({error})")
            refused.append(candidate.backend)
        else:
            if best is None or found.time_beside(best) < FASTER:
                best, found = found, best
            if found is not None:
                passed_over.append(f"{found.backend} ({found.time_beside(best):.2f} times as long a step)")
    over = f"; passed over: {', '.join(passed_over)}" if passed_over else ""
    if best is None:
        return Choice("eager", referee.engine, f"eager in fp32, the reference itself{over}", tuple(refused))
    return Choice(best.backend, best.engine, f"{best.backend}, {best.text}{over}", tuple(refused))


class _Refused(Exception):
    """A candidate is not used; the text says why."""


def _try(candidate: Candidate, referee: Referee, best: _Tried | None) -> _Tried:
    """Raises `BackendMissing`, `_Refused`; lets a lost device end the thread."""
    wanted = referee.evidence
    try:
        engine = candidate.open()
        in_time = within(_budgets_s(engine)[0])
        go_on = _while_worth_it(in_time, wanted.num_frames, referee.is_hurried, best=best)
        found = referee.trial.record(engine, go_on)
    except RuntimeError as error:
        if is_device_lost(error):
            raise
        raise _Refused(f"refused: {_first_line(error)}") from error
    agreement = compare(found, wanted)
    if breaches := agreement.breaches(engine.dtype):
        raise _Refused(f"refused: {', '.join(breaches)} on {agreement.num_frames} frames")
    doing = in_use(engine).backend
    waiting = "" if doing == candidate.backend else f"without a plan so far, so it is {doing} that runs, "
    text = f"{waiting}{_pace(found.seconds_t)}, against fp32 {agreement}"
    return _Tried(candidate.backend, engine, found.seconds_t, text)


def _while_worth_it(
    in_time: GoOn, num_frames: int, is_hurried: Callable[[], bool], *, best: _Tried | None = None
) -> GoOn:
    """Until there is nothing left to compare with, time is up, or the best so far will stay the best."""

    def go_on(seconds: Sequence[float]) -> bool:
        num = len(seconds)
        if num >= num_frames or not in_time(seconds) or is_hurried():
            return False
        return best is None or num < NUM_RACED or _step_s(seconds) < FASTER * _step_s(best.seconds_t[:num])

    return go_on


def _budgets_s(engine: Engine) -> tuple[float, float]:
    return BUDGETS_S[engine.device.type]


def _step_s(seconds: Sequence[float] | NDArray[np.float64]) -> float:
    """The middle one: what is compiled or recorded on the way does not count."""
    return float(np.median(seconds[min(NUM_WARM_UP, len(seconds) - 1) :]))


def _pace(seconds_t: NDArray[np.float64]) -> str:
    return f"{_step_s(seconds_t) * 1000:.3g} ms a step of two objects"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
