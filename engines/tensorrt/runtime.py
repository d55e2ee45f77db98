"""`PlanProgram`: a plan on one device, ready to run. One file for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Owns: a plan's execution context, the fixed buffers of its outputs, and the addresses that are bound. One thread uses a
program. Never: trusts a plan (every name, shape, type and place is compared with the program's table, every answer of
the library is looked at), waits on the host, or copies a tensor that can be bound as it lies.

A call only enqueues on the current stream, so it may stand inside a captured graph; the addresses of then are the
graph's for ever. One call before the capture makes what is made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.spec import ProgramSpec
from engines.tensorrt.lane import make_lane, on_device
from engines.tensorrt.library import Library

_ALIGNMENT = 256  # of every address; what torch allocates has it, a slice may not


class EngineFault(RuntimeError):
    """A plan that cannot be loaded, does not fit its program, or was refused by the library; the text names it."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the library made of a plan. `cache`: what it compiles at run time (TensorRT-RTX), else None."""

    engine: Any
    context: Any
    cache: Any


class PlanProgram:
    """`_addresses` and `_staged` are written by calls, in the one thread that makes them."""

    def __init__(self, library: Library, loaded: _Loaded, spec: ProgramSpec, *, device: torch.device) -> None:
        self.spec = spec
        self._library, self._loaded, self._context = library, loaded, loaded.context
        self._lane = make_lane(device)
        self._outputs = tuple(torch.zeros(x.shape, dtype=x.dtype, device=device) for x in spec.outputs)
        self._addresses: dict[str, int] = {}
        self._staged: dict[str, Tensor] = {}
        for name, output in zip(_output_names(loaded.engine, spec), self._outputs, strict=True):
            self._bind(name, output)

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The same output tensors at every call. An input that does not lie in one aligned piece is copied first, into
        a buffer that is made at the first such call.
        """
        for wanted, tensor in zip(self.spec.inputs, inputs, strict=True):
            assert tensor.shape == wanted.shape and tensor.dtype is wanted.dtype, (
                f"{self.spec.name}: {wanted.name} is {wanted.dtype} {wanted.shape}, not {tensor.dtype} {tensor.shape}"
            )
            self._bind(wanted.name, self._in_one_piece(wanted.name, tensor))
        if not self._lane.launch(self._context.execute_async_v3):
            raise EngineFault(f"{self.spec.name}: {self._library.name} did not run: {self._library.take_errors()}")
        return self._outputs

    def _in_one_piece(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0:
            return tensor
        if name not in self._staged:
            self._staged[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        return self._staged[name].copy_(tensor)

    def _bind(self, name: str, tensor: Tensor) -> None:
        address = tensor.data_ptr()
        if self._addresses.get(name) == address:
            return
        if not self._context.set_tensor_address(name, address):
            raise EngineFault(f"{self.spec.name}: {name} cannot be bound: {self._library.take_errors()}")
        self._addresses[name] = address

    @property
    def runtime_cache(self) -> bytes:
        """What TensorRT-RTX compiled for this GPU, to be given to `load_program` at the next start; else empty."""
        cache = self._loaded.cache
        with on_device(self._outputs[0].device):
            return b"" if cache is None else bytes(memoryview(cache.serialize()))


def load_program(
    library: Library, plan: bytes, spec: ProgramSpec, *, device: torch.device, runtime_cache: bytes = b""
) -> PlanProgram:
    """Raises `EngineFault` for a plan that is not exactly this program, or not for this GPU and library."""
    library.take_errors()
    with on_device(device):
        loaded = _load(library, plan, spec, runtime_cache=runtime_cache)
    return PlanProgram(library, loaded, spec, device=device)


def _load(library: Library, plan: bytes, spec: ProgramSpec, *, runtime_cache: bytes) -> _Loaded:
    runtime = library.module.Runtime(library.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineFault(f"{spec.name}: {library.name} {library.version} refuses the plan: {library.take_errors()}")
    _check_engine(library, engine, spec)
    loaded = _create_context(engine, runtime_cache)
    if loaded.context is None:
        raise EngineFault(f"{spec.name}: {library.name} has no room for it: {library.take_errors()}")
    return loaded


def _create_context(engine: Any, runtime_cache: bytes) -> _Loaded:
    config: Any = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
    if not hasattr(config, "create_runtime_cache"):  # TensorRT compiles when it builds, and has nothing to keep
        return _Loaded(engine, engine.create_execution_context(), None)
    cache = config.create_runtime_cache()
    if runtime_cache:
        cache.deserialize(runtime_cache)  # False: of another version or driver; then it stays empty, and is made anew
    is_kept = config.set_runtime_cache(cache)
    return _Loaded(engine, engine.create_execution_context(config), cache if is_kept else None)


def _output_names(engine: Any, spec: ProgramSpec) -> tuple[str, ...]:
    """The plan's names in the order of the table: the table's own, or output0, output1, ... of Torch-TensorRT."""
    own = tuple(x.name for x in spec.outputs)
    numbered = tuple(f"output{index}" for index in range(len(own)))
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    return numbered if names.issuperset(numbered) else own


def _check_engine(library: Library, engine: Any, spec: ProgramSpec) -> None:
    """Compare all tensors with the table, by name: the order is the converter's own."""
    modes, host = library.module.TensorIOMode, library.module.TensorLocation.HOST
    wanted = {x.name: (modes.INPUT, x) for x in spec.inputs}
    wanted |= {name: (modes.OUTPUT, x) for name, x in zip(_output_names(engine, spec), spec.outputs, strict=True)}
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if names != set(wanted):
        raise EngineFault(f"{spec.name}: the plan has the tensors {sorted(names)}, not {sorted(wanted)}")
    for name, (mode, tensor) in wanted.items():
        shape, dtype = tuple(engine.get_tensor_shape(name)), library.torch_dtype(engine.get_tensor_dtype(name))
        if shape != tensor.shape or dtype is not tensor.dtype or engine.get_tensor_mode(name) != mode:
            raise EngineFault(f"{spec.name}: the plan's {name} is {dtype} {shape}, not {tensor.dtype} {tensor.shape}")
        if engine.get_tensor_location(name) == host:
            raise EngineFault(f"{spec.name}: the plan wants {name} in the host's memory")
