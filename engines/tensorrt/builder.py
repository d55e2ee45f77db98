"""From an ONNX file to a plan, by NVIDIA's builder.

Owns: the build's configuration, and what is reported of its progress. Runs in the caller's thread, seconds with
TensorRT-RTX, minutes with TensorRT; a build does it in a process of its own. Never: runs a plan, or falls back: a
program is built as one engine, in the precision that its file spells out, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.tensorrt.library import Library
from engines.tensorrt.progress import Progress, make_monitor
from engines.whole_file import replaced


class BuildError(RuntimeError):
    """No plan; the text has the library's own words."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build. All of it belongs into the name under which a plan is kept."""

    targets: tuple[
        str, ...
    ] = ()  # sm80, sm89, ...: RTX only; empty: the GPU of this machine, for RTX any that it knows
    workspace_bytes: int | None = None  # None: as much as the GPU has
    optimization_level: int | None = None  # 0 to 5; None: the library's own, 3
    timing_cache: Path | None = None  # read and written; an absolute path in a private folder


def build_plan(
    library: Library, onnx: bytes, options: BuildOptions | None = None, *, progress: Progress | None = None
) -> bytes:
    """Raises `BuildError`."""
    options = options or BuildOptions()
    library.take_errors()
    module = library.module
    builder = module.Builder(library.logger)
    network = builder.create_network(_strongly_typed(module))
    parser = module.OnnxParser(network, library.logger)  # the network's weights are the parser's until it is built
    if not parser.parse(onnx) or network.num_outputs == 0:  # what is no ONNX file at all may parse as an empty one
        raise BuildError(f"{library.name} cannot read the program: {_parser_words(parser)}")
    config = _configure(library, builder, options)
    cache = _attach_timing_cache(library, config, options.timing_cache)
    monitor = None if progress is None else make_monitor(module, progress)  # must outlive the build
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{library.name} {library.version} cannot build the program: {library.take_errors()}")
    if cache is not None and options.timing_cache is not None:
        with replaced(options.timing_cache) as file:
            file.write(bytes(memoryview(cache.serialize())))
    return bytes(memoryview(plan))


def _strongly_typed(module: Any) -> int:
    """Types are those of the file, not the builder's choice. TensorRT 11 knows nothing else."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_words(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)


def _configure(library: Library, builder: Any, options: BuildOptions) -> Any:
    module, config = library.module, builder.create_builder_config()
    config.clear_flag(module.BuilderFlag.TF32)  # what is float32 in a program decides ties
    config.max_aux_streams = 0  # so that a captured graph is one chain on one stream
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.targets:
        _set_targets(library, config, options.targets)
    return config


def _set_targets(library: Library, config: Any, targets: tuple[str, ...]) -> None:
    known = library.targets
    if not known:
        raise BuildError(f"{library.name} builds for the GPU of this machine only, not for {', '.join(targets)}")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if target not in known:
            raise BuildError(f"{library.name} {library.version} does not know {target}, only {', '.join(known)}")
        capability = getattr(library.module.ComputeCapability, target.upper())
        if not config.set_compute_capability(capability, index):
            raise BuildError(f"{library.name} refuses {target}: {library.take_errors()}")


def _attach_timing_cache(library: Library, config: Any, path: Path | None) -> Any:
    """None where none is wanted, or the library times nothing when it builds (TensorRT-RTX, which needs no GPU)."""
    if path is None or library.targets:
        return None
    assert path.is_absolute(), f"a timing cache is a file of its own, in a private folder, not {path}"
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if not config.set_timing_cache(cache, False):  # False: refuse one of another GPU or version
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
