"""The gate: a program is used only where it does what the fp32 reference does.

Owns: the table of limits, and the comparison. One thread: the one that builds, or the worker's before its first frame.
Never: mends a program, or lets one through that raises, answers late, or answers for the wrong row.

Every program runs three times on recorded inputs (`Recording`): on one batch, on another one that has different frames
or rows at each place, and on the first again. So an output that is a step behind, rows that are mixed up and results
that depend on the call before are seen, besides wrong numbers. How far it may be off follows from eager in the same
number formats, as a deep network loses more to rounding than a shallow one, within the bounds of `LIMITS`.

What small errors hide, the order of the memories in time, is asked for: `track` runs a fourth time with the order
reversed, and its answer must move as the reference's does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.build.request import Precision
from engines.build.rollout import Recording
from engines.build.verdict import Verdict
from engines.eager import EagerEngine
from engines.spec import ModelSpec, Program, ProgramKey, program_spec
from engines.tensorrt import program_module

_TURNS = (0, 1, 0)
_NUM_ROUNDED = 4  # frames or rows whose rounding errors are looked at
_TINY = 1e-12
_SCORES, _CONDITIONED = "scores_b", "conditioned_bchw"

Errors = dict[str, tuple[float, float]]  # of each output: the largest by the largest value, and RMS by RMS


@dataclass(frozen=True, slots=True)
class Limit:
    """Of every output of every row, relative to the reference: as much as `times` the error of eager in the same
    formats, but at least the first and at most the second of each pair.
    """

    maximum: tuple[float, float]
    rms: tuple[float, float]
    times: float = 4.0
    flips: int = 0  # object scores with the other sign
    answer: tuple[float, float] = (0.5, 1.5)  # how far the answer to reversed time may move, by the reference's move


LIMITS: Mapping[torch.dtype, Limit] = {
    torch.float32: Limit(maximum=(5e-4, 5e-4), rms=(1e-4, 1e-4)),
    torch.float16: Limit(maximum=(2e-3, 8e-2), rms=(5e-4, 2e-2)),
    torch.bfloat16: Limit(maximum=(1e-2, 1.6e-1), rms=(4e-3, 4e-2)),
}
_SEEN = 0.25  # an answer's uncertainty beyond this share says nothing


class Gate:
    """Judges programs of one model on one device. `_rounding` is filled by the thread that judges."""

    def __init__(self, network: SAM2Base, spec: ModelSpec, *, dtype: torch.dtype, device: torch.device) -> None:
        reference = EagerEngine(network, name=spec.name, device=device, dtype=torch.float32)
        self._network, self._spec, self._dtype, self._device = (network, spec, dtype, device)
        self._recording = Recording(reference, dtype)
        self._rounding: dict[tuple[str, int, Precision], Errors] = {}

    def judge(self, key: ProgramKey, program: Program, precision: Precision) -> Verdict:
        """Run the program and compare; an exception of its own is a refusal as well."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.no_grad():
            try:
                found = [self._run(program, self._recording.case(key, turn).inputs) for turn in _TURNS]
                if reason := self._misfit(key, found[0]):
                    return Verdict(False, reason)
                errors, num_flips = self._compare(key, found)
                reason = self._reason(errors, num_flips, self._rounding_of(key, precision))
                reason = reason or self._late(found) or self._deaf(key, program, errors)
            except RuntimeError as error:  # of the runtime, or of CUDA
                return Verdict(False, " ".join(str(error).split()))
        return Verdict(not reason, reason, errors, num_flips)

    def _run(self, program: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> list[Tensor]:
        return [x.to("cpu", copy=True) for x in program(*(x.to(self._device) for x in inputs))]

    def _misfit(self, key: ProgramKey, found: Sequence[Tensor]) -> str:
        outputs = program_spec(self._spec, key, self._dtype).outputs
        if len(found) != len(outputs):
            return f"{len(found)} outputs, expected {len(outputs)}"
        for wanted, ours in zip(outputs, found, strict=True):
            if (tuple(ours.shape), ours.dtype) != (wanted.shape, wanted.dtype):
                return f"{wanted.name} is {ours.dtype} {tuple(ours.shape)}, expected {wanted.dtype} {wanted.shape}"
        return ""

    def _compare(self, key: ProgramKey, found: Sequence[Sequence[Tensor]]) -> tuple[Errors, int]:
        """The worst of all turns and rows."""
        names = [output.name for output in program_spec(self._spec, key, self._dtype).outputs]
        errors: Errors = dict.fromkeys(names, (0.0, 0.0))
        num_flips = 0
        for turn, outputs in zip(_TURNS, found, strict=True):
            wanted = dict(zip(names, self._recording.case(key, turn).wanted, strict=True))
            for name, ours in zip(names, outputs, strict=True):
                errors[name] = _larger(errors[name], _errors(ours, wanted[name]))
                num_flips += int(((ours > 0) != (wanted[name] > 0)).sum()) if name == _SCORES else 0
        return errors, num_flips

    def _rounding_of(self, key: ProgramKey, precision: Precision) -> Errors:
        """What these number formats cost eager on the same inputs."""
        kind = (key.kind, key.num_cond, precision)
        if kind not in self._rounding:
            batch = ProgramKey(key.kind, _NUM_ROUNDED, key.num_cond)
            module = program_module(
                self._network, batch, dtype=precision.dtype, attention_dtype=precision.attention_dtype
            ).to(self._device)
            case = self._recording.case(batch, 0)
            names = [output.name for output in program_spec(self._spec, batch, self._dtype).outputs]
            found = self._run(module, case.inputs)
            self._rounding[kind] = {
                name: _errors(ours, wanted) for name, ours, wanted in zip(names, found, case.wanted, strict=True)
            }
        return self._rounding[kind]

    def _reason(self, errors: Errors, num_flips: int, rounding: Errors) -> str:
        limit = LIMITS[self._dtype]
        for name, found in errors.items():
            bounds = (limit.maximum, limit.rms)
            allowed = [
                min(max(limit.times * noise, low), high)
                for noise, (low, high) in zip(rounding[name], bounds, strict=True)
            ]
            if not all(one <= most for one, most in zip(found, allowed, strict=True)):
                numbers = (
                    f"{found[0]:.1e} at most and {found[1]:.1e} RMS, allowed {allowed[0]:.1e} and {allowed[1]:.1e}"
                )
                return f"{name} is off by {numbers}"
        return f"{num_flips} object decisions differ, allowed {limit.flips}" if num_flips > limit.flips else ""

    def _late(self, found: Sequence[Sequence[Tensor]]) -> str:
        """The same inputs after others must give the same again, to the last bit or nearly (atomics may add up in any
        order).
        """
        limit = LIMITS[self._dtype].rms[0]
        differs = any(_errors(again, first)[1] > limit for first, again in zip(found[0], found[2], strict=True))
        return "the same inputs give other results after a call with other inputs" if differs else ""

    def _deaf(self, key: ProgramKey, program: Program, errors: Errors) -> str:
        """Whether conditioned features do not move with the memories' times as the reference's do: the share of the
        reference's move that is in ours, which rounding errors, random beside it, do not reach.
        """
        if key.kind == "encode":
            return ""
        straight, turned = (self._recording.case(key, 0), self._recording.reversed_time(key.num_cond))
        inputs = [torch.cat([new, old[1:]]) for new, old in zip(turned.inputs, straight.inputs, strict=True)]
        place = [x.name for x in program_spec(self._spec, key, self._dtype).outputs].index(_CONDITIONED)
        ours = self._run(program, inputs)[place][0].double() - self._run(program, straight.inputs)[place][0].double()
        wanted = turned.wanted[place][0].double() - straight.wanted[place][0].double()
        strength = float(wanted.norm())
        noise = errors[_CONDITIONED][1] * float(straight.wanted[place][0].norm()) / math.sqrt(wanted.numel())
        if noise * 4 > _SEEN * strength:
            return ""  # this model hardly looks at the order
        share = float((ours * wanted).sum()) / strength**2
        low, high = LIMITS[self._dtype].answer
        said = f"reversing the memories' order moves the answer {share:.2f} times as far as the reference's"
        return "" if low <= share <= high else f"{said}, allowed {low} to {high}"


def _errors(ours: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Of the worst row; infinite where a number is none."""
    ours, wanted = (x.float().reshape(x.shape[0], -1) for x in (ours, wanted))
    if not bool(torch.isfinite(ours).all()):
        return math.inf, math.inf
    off = (ours - wanted).abs()
    maximum = off.amax(1) / wanted.abs().amax(1).clamp_min(_TINY)
    rms = off.square().mean(1).sqrt() / wanted.square().mean(1).sqrt().clamp_min(_TINY)
    return float(maximum.max()), float(rms.max())


def _larger(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), max(one[1], other[1])
