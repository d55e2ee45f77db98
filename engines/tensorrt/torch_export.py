"""The other way from a program to a plan: `torch.export`, then Torch-TensorRT's own converters, then NVIDIA's builder.

Owns: the settings that are given to Torch-TensorRT. Runs in the caller's thread, in a process of its own: importing
Torch-TensorRT takes seconds, and it takes the name `tensorrt` and Python's warnings for itself. Never: partitions a
program (what it cannot convert raises), uses Torch-TensorRT's engine cache or run time, or passes a setting that this
version does not have, as those vanish without a word.

The plan's inputs have the program's names, its outputs are called output0, output1, ...; `load_program` knows both.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engines.spec import BackendMissing, ProgramSpec
from engines.tensorrt.builder import BuildError, BuildOptions
from engines.tensorrt.library import Library

_PACKAGES = {"tensorrt": "torch-tensorrt", "tensorrt-rtx": "torch-tensorrt-rtx"}
# what its converters and its builder were seen to raise; a program that is not covered is a RuntimeError
_FAULTS = (RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError, NotImplementedError)


def has_torch_tensorrt() -> bool:
    """Whether it is installed; nothing is imported."""
    return importlib.util.find_spec("torch_tensorrt") is not None


def export_torch_tensorrt(
    library: Library, module: nn.Module, spec: ProgramSpec, *, options: BuildOptions | None = None
) -> bytes:
    """A plan for the GPU of this machine. Raises `BuildError`, and `BackendMissing` without Torch-TensorRT for this
    library. The module stays on the CPU; its dtypes are the plan's.
    """
    options = options or BuildOptions()
    if options.targets:
        raise BuildError(f"Torch-TensorRT builds for the GPU of this machine only, not for {options.targets}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what torch has since deprecated, and counts constants aloud
        return _convert(_converter(library), module, spec, options=options)


def _convert(convert: Any, module: nn.Module, spec: ProgramSpec, *, options: BuildOptions) -> bytes:
    examples = tuple(torch.zeros(x.shape, dtype=x.dtype) for x in spec.inputs)
    with torch.no_grad():
        program = torch.export.export(module, examples, strict=False)
    with tempfile.TemporaryDirectory() as folder:  # its own place for the cache would be a shared one
        settings = _settings(options, options.timing_cache or Path(folder) / "timing.bin")
        _check_settings(convert, settings)
        try:
            return bytes(convert(program, arg_inputs=examples, **settings))
        except _FAULTS as error:
            raise BuildError(f"Torch-TensorRT cannot build {spec.name}: {type(error).__name__}: {error}") from error


def _converter(library: Library) -> Any:
    package = _PACKAGES[library.name]
    if not has_torch_tensorrt():
        raise BackendMissing(f"Torch-TensorRT is not installed: pip install {package}")
    sys.modules.setdefault(library.name.replace("-", "_"), library.module)  # it imports the library by this name
    try:
        loaded = importlib.import_module("torch_tensorrt")
    except (ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendMissing(f"Torch-TensorRT does not load ({reason}): pip install {package}") from error
    features = importlib.import_module("torch_tensorrt._features").ENABLED_FEATURES
    if features.tensorrt_rtx != (library.name == "tensorrt-rtx"):
        raise BackendMissing(f"Torch-TensorRT is installed for another library, {library.name} needs {package}")
    return loaded.dynamo.convert_exported_program_to_serialized_trt_engine


def _settings(options: BuildOptions, timing_cache: Path) -> dict[str, object]:
    assert timing_cache.is_absolute(), f"a timing cache is a file of its own, in a private folder, not {timing_cache}"
    settings: dict[str, object] = {
        "attn_bias_is_causal": False,  # its default takes a mask of equal lengths for a causal one
        "require_full_compilation": True,
        "min_block_size": 1,
        "disable_tf32": True,  # what is float32 in a program decides ties
        "max_aux_streams": 0,  # so that a captured graph is one chain on one stream
        "workspace_size": options.workspace_bytes or 0,
        "timing_cache_path": str(timing_cache),
    }
    if options.optimization_level is not None:
        settings["optimization_level"] = options.optimization_level
    return settings


def _check_settings(convert: Any, settings: dict[str, object]) -> None:
    unknown = settings.keys() - inspect.signature(convert).parameters.keys()
    if unknown:
        raise BuildError(
            f"this Torch-TensorRT does not know {', '.join(sorted(unknown))}; install the version of torch"
        )
