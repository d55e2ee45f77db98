"""The running half of the emulated module: runtime, engine, context."""

from __future__ import annotations

import hashlib
from typing import Any

from tensorrt_emulator.build import MAGIC, ILogger, say
from tensorrt_emulator.execution import Execution, Port
from tensorrt_emulator.objects import Emulated


class Runtime(Emulated):
    def __init__(self, logger: ILogger) -> None:
        self._logger, self.max_threads, self.engine_host_code_allowed = logger, 1, False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        plan = bytes(serialized_engine)
        header, _, model = plan.removeprefix(MAGIC).partition(b"\n")
        words = header.decode(errors="replace").split()
        problems = {
            "this is no plan": not plan.startswith(MAGIC) or len(words) != 3,
            f"the plan is of {' '.join(words[:2])}": words[:2] != [self.world.flavour, self.world.version],
            "the plan is damaged": words[2:] != [hashlib.sha256(model).hexdigest()],
            "emulated refusal": self.world.has("deserialize_none"),
        }
        for text in (text for text, is_so in problems.items() if is_so):
            say(self._logger, "ERROR", text)
            return None
        return self.module.ICudaEngine(Execution(model))


class IRuntimeCache(Emulated):
    def __init__(self) -> None:
        self._data = b""

    def serialize(self) -> Any:
        return self.module.IHostMemory(self._data or b"emulated kernels")

    def deserialize(self, blob: Any) -> bool:
        self._data = bytes(blob)
        return True

    def reset(self) -> bool:
        self._data = b""
        return True


class IRuntimeConfig(Emulated):
    def __init__(self) -> None:
        self._strategy, self._cache = self.module.ExecutionContextAllocationStrategy.STATIC, None
        if self.world.is_rtx:
            self.cuda_graph_strategy = self.module.CudaGraphStrategy.DISABLED
            self.dynamic_shapes_kernel_specialization_strategy = (
                self.module.DynamicShapesKernelSpecializationStrategy.LAZY
            )

    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return self.module.IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache


class ICudaEngine(Emulated):
    """Its tensors are listed in reversed order, outputs first."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._ports = {port.name: port for port in reversed(execution.ports)}
        self._first_output = next(port.name for port in execution.ports if not port.is_input)
        if self.world.has("missing_output"):
            del self._ports[self._first_output]

    name = property(lambda self: "emulated")
    num_io_tensors = property(lambda self: len(self._ports))
    num_layers = property(lambda self: 1)
    num_aux_streams = property(lambda self: 0)
    num_optimization_profiles = property(lambda self: 1)
    device_memory_size_v2 = property(lambda self: 1 << 20)

    def get_tensor_name(self, index: int) -> str:
        return list(self._ports)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode, port = self.module.TensorIOMode, self._ports.get(name)
        if port is None:
            return mode.NONE
        wrong = name == self._first_output and self.world.has("wrong_mode")
        return mode.INPUT if port.is_input or wrong else mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._port(name).shape
        wrong = name == self._first_output and self.world.has("wrong_shape")
        return self.module.Dims((*shape[:-1], shape[-1] + 1) if wrong else shape)

    def get_tensor_dtype(self, name: str) -> Any:
        wrong = name == self._first_output and self.world.has("wrong_dtype")
        return self.module.DataType.INT32 if wrong else self.module.kind(self._port(name).kind)

    def get_tensor_location(self, name: str) -> Any:
        return self.module.TensorLocation.DEVICE

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self.module.TensorFormat.LINEAR

    def create_runtime_config(self) -> IRuntimeConfig:
        return self.module.IRuntimeConfig()

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> IExecutionContext | None:
        return None if self.world.has("context_none") else self.module.IExecutionContext(self)

    def _port(self, name: str) -> Port:
        if name not in self._ports:
            raise ValueError(f"{name}: no such tensor")
        return self._ports[name]


class IExecutionContext(Emulated):
    def __init__(self, engine: ICudaEngine) -> None:
        self.enqueue_emits_profile = True
        self._engine, self._addresses, self._earlier, self._num_enqueued = engine, {}, None, 0

    engine = property(lambda self: self._engine)
    all_binding_shapes_specified = property(lambda self: True)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.world.has("address_false") or name not in self._engine._ports:
            return False
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        return tuple(shape) == self._engine._port(name).shape

    def infer_shapes(self) -> list[str]:
        return []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index == 0

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._num_enqueued += 1
        later = self.world.has("enqueue_false_later") and self._num_enqueued > 1
        unbound = [name for name in self._engine._ports if not self._addresses.get(name)]
        if later or unbound or self.world.has("enqueue_false"):
            return False
        self.world.streams.append(int(stream_handle))
        addresses = dict(self._addresses)
        if self.world.is_capturing:
            self.world.recorded.append(lambda: self._run(addresses))
        else:
            self._run(addresses)
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        execution = self._engine._execution
        execution.run(addresses)
        found = execution.outputs(addresses)
        wanted = found
        if self.world.has("stale_output") and self._earlier is not None:
            wanted = self._earlier
        if self.world.has("swap_rows"):
            wanted = execution.swapped(found)
        if self.world.has("nan"):
            wanted = execution.spoilt()
        self._earlier = found
        if wanted is not found:
            execution.write(addresses, wanted)
