"""The building half of the emulated module: logger, network, parser, configuration, builder."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from tensorrt_emulator.execution import Port, ports
from tensorrt_emulator.objects import Emulated

MAGIC = b"emulated TensorRT plan\n"
STEPS = 3
FUSED_ATTENTION_SINCE = (10, 14)  # of the parser; TensorRT-RTX has always had it


class ILogger(Emulated):
    def __init__(self) -> None:
        self._is_made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("ILogger.log is to be overridden")


class Logger(ILogger):
    def __init__(self, min_severity: Any = None) -> None:
        super().__init__()

    def log(self, severity: Any, msg: str) -> None:
        print(f"[emulated TRT] [{severity.name}] {msg}")


def say(logger: Any, severity: str, text: str) -> None:
    """As the library does: to whatever logger it was given."""
    assert getattr(logger, "_is_made", False), "a subclass of ILogger must call ILogger.__init__"
    logger.log(logger.module.Logger.Severity[severity], text)


class ITensor(Emulated):
    def __init__(self, port: Port) -> None:
        self.name, self.shape, self.dtype = port.name, port.shape, self.module.kind(port.kind)


class INetworkDefinition(Emulated):
    def __init__(self, flags: int) -> None:
        self.name = "network"
        self._flags, self._data, self._ports, self._num_layers = flags, b"", (), 0
        self._has_wide_attention = False

    num_inputs = property(lambda self: sum(port.is_input for port in self._ports))
    num_outputs = property(lambda self: sum(not port.is_input for port in self._ports))
    num_layers = property(lambda self: self._num_layers)

    def get_input(self, index: int) -> ITensor:
        return self.module.ITensor([port for port in self._ports if port.is_input][index])

    def get_output(self, index: int) -> ITensor:
        return self.module.ITensor([port for port in self._ports if not port.is_input][index])

    def get_flag(self, flag: Any) -> bool:
        return self.world.major >= 11 or self.world.is_rtx or bool(self._flags >> int(flag) & 1)


class ParserError(Emulated):
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def code(self) -> Any:
        return self.module.ErrorCode.INVALID_NODE

    def node(self) -> int:
        return 7

    def node_name(self) -> str:
        return "node_seven"

    def node_operator(self) -> str:
        return "Attention"

    def func(self) -> str:
        return "emulated"

    def line(self) -> int:
        return 1


class OnnxParser(Emulated):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger, self._errors = network, logger, []

    num_errors = property(lambda self: len(self._errors))

    def parse(self, model: Any, path: str = "") -> bool:
        try:
            found = onnx.load_from_string(bytes(model))
            onnx.checker.check_model(found)
        except (onnx.checker.ValidationError, DecodeError) as error:
            return self._refuse(f"no ONNX: {error}")
        has_attention = any(node.op_type == "Attention" for node in found.graph.node)
        is_old = not self.world.is_rtx and self.world.numbers[:2] < FUSED_ATTENTION_SINCE
        if self.world.has("parse_false") or (has_attention and is_old):
            return self._refuse("No importer registered for op: Attention")
        self._network._data, self._network._ports = bytes(model), ports(found)
        self._network._num_layers = len(found.graph.node)
        self._network._has_wide_attention = has_attention and _has_wide_attention(found)
        return True

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def _refuse(self, text: str) -> bool:
        self._errors.append(self.module.ParserError(text))
        say(self._logger, "ERROR", text)
        return False


def _has_wide_attention(model: onnx.ModelProto) -> bool:
    """Attention in float32, for which no fused kernel exists."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    attention = [node for node in graph.node if node.op_type == "Attention"]
    return any(kinds.get(node.input[0]) == onnx.TensorProto.FLOAT for node in attention)


class IProgressMonitor(Emulated):
    def __init__(self) -> None:
        self._is_made = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError("IProgressMonitor.phase_start is to be overridden")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError("IProgressMonitor.step_complete is to be overridden")

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError("IProgressMonitor.phase_finish is to be overridden")


class ITimingCache(Emulated):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> Any:
        return self.module.IHostMemory(self._data or b"emulated tactics")

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        return True


class IBuilderConfig(Emulated):
    def __init__(self) -> None:
        self.builder_optimization_level, self.max_aux_streams, self.avg_timing_iterations = 3, -1, 1
        self.profiling_verbosity = self.module.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = self.module.HardwareCompatibilityLevel.NONE
        self.progress_monitor = None
        self._flags, self._limits, self._cache = {self.module.BuilderFlag.TF32}, {}, None
        if self.world.is_rtx:
            self.num_compute_capabilities = 0
            self._capabilities = {}

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(pool, 1 << 40)

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
        return self.module.ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return not self.world.has("timing_cache_false")

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._capabilities[index] = compute_capability
        return index < self.num_compute_capabilities

    def get_compute_capability(self, index: int) -> Any:
        return self._capabilities.get(index, self.module.ComputeCapability.NONE)


class Builder(Emulated):
    def __init__(self, logger: ILogger) -> None:
        self._logger, self.max_threads = logger, 1

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return self.module.INetworkDefinition(int(flags))

    def create_builder_config(self) -> IBuilderConfig:
        return self.module.IBuilderConfig()

    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        return bool(network._data)

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        strong = self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        problems = {
            "the network has no output": not network._data,
            "the network is not strongly typed": not network.get_flag(strong),
            "no kernel: emulated refusal": self.world.has("build_none"),
            "Attention operation was not supported by a dedicated kernel": network._has_wide_attention,
            "an unset compute capability": self.world.is_rtx
            and len(config._capabilities) < config.num_compute_capabilities,
        }
        for text in (text for text, is_so in problems.items() if is_so):
            say(self._logger, "ERROR", text)
            return None
        if not self._report(config.progress_monitor):
            return None
        say(self._logger, "WARNING", "emulated tactics are not timed")
        header = f"{self.world.flavour} {self.world.version} {hashlib.sha256(network._data).hexdigest()}\n"
        return self.module.IHostMemory(MAGIC + header.encode() + network._data)

    def _report(self, monitor: Any) -> bool:
        """Two phases, one in the other; False: the monitor wants the build to end."""
        if monitor is None:
            return True
        assert getattr(monitor, "_is_made", False), "a subclass of IProgressMonitor must call its __init__"
        monitor.phase_start("Building Engine", None, STEPS)
        monitor.phase_start("Tactics", "Building Engine", 1)
        goes_on = monitor.step_complete("Tactics", 0)
        monitor.phase_finish("Tactics")
        for step in range(STEPS):
            goes_on = goes_on and bool(monitor.step_complete("Building Engine", step))
        monitor.phase_finish("Building Engine")
        return goes_on
