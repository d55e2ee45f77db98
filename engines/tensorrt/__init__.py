"""SAM 2's programs on TensorRT and TensorRT-RTX: program -> ONNX -> plan -> a callable on given tensors.

Owns: all that this project knows of NVIDIA's libraries. Imports none of them before `load_library` is called.
"""

from engines.tensorrt.builder import BuildError, BuildOptions, build_plan
from engines.tensorrt.engine import install_plan, tensorrt_engine
from engines.tensorrt.library import Gpu, Library, LibraryName, find_gpu, load_library
from engines.tensorrt.onnx_export import FUSED_OPSET, SPELT_OUT_OPSET, export_onnx, program_module
from engines.tensorrt.progress import Progress
from engines.tensorrt.runtime import EngineFault, PlanProgram, load_program
from engines.tensorrt.torch_export import export_torch_tensorrt, has_torch_tensorrt

__all__ = [
    "FUSED_OPSET",
    "SPELT_OUT_OPSET",
    "BuildError",
    "BuildOptions",
    "EngineFault",
    "Gpu",
    "Library",
    "LibraryName",
    "PlanProgram",
    "Progress",
    "build_plan",
    "export_onnx",
    "export_torch_tensorrt",
    "find_gpu",
    "has_torch_tensorrt",
    "install_plan",
    "load_library",
    "load_program",
    "program_module",
    "tensorrt_engine",
]
