"""`Route`: from a program to a plan that nobody has judged yet.

Owns: which exporter is asked, and what is tried when it cannot. One thread: that of the process which builds. Never:
stores or runs a plan.

TensorRT is reached through Torch-TensorRT where that is installed, else, and where that fails, through ONNX; so are
TensorRT-RTX and other machines' GPUs always.
"""

from __future__ import annotations

from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from engines.build.request import Precision
from engines.build.shelf import Shelf
from engines.build.tidings import Tell, Tidings
from engines.graphs import spec_of
from engines.spec import BackendMissing, ProgramKey, ProgramSpec, program_spec
from engines.tensorrt import FUSED_OPSET, SPELT_OUT_OPSET, BuildError, build_plan, export_onnx, program_module
from engines.tensorrt.torch_export import export_torch_tensorrt, has_torch_tensorrt

_NO_KERNEL = "not supported by a dedicated kernel"  # TensorRT's words about attention that it cannot fuse
_MAX_WORDS = 300  # characters of a library's complaint


class Route:
    """Keeps nothing from one program to the next."""

    def __init__(self, shelf: Shelf, network: SAM2Base, *, tell: Tell) -> None:
        self._shelf, self._network, self._tell = shelf, network, tell
        self._spec = spec_of(network, shelf.request.model)

    def plan(self, key: ProgramKey, precision: Precision) -> bytes:
        """Raises `BuildError`, `BackendMissing`."""
        spec = program_spec(self._spec, key, precision.dtype)
        module = program_module(self._network, key, dtype=precision.dtype, attention_dtype=precision.attention_dtype)
        if self._shelf.library.name == "tensorrt" and has_torch_tensorrt():
            self._say(key, f"Torch-TensorRT, {precision.name}", 0.0)
            try:
                return export_torch_tensorrt(self._shelf.library, module, spec, options=self._shelf.options)
            except (BuildError, BackendMissing) as error:
                self._say(key, f"through ONNX, as Torch-TensorRT cannot: {str(error)[:_MAX_WORDS]}", 0.0)
        return self._through_onnx(key, module, spec, precision=precision)

    def _through_onnx(self, key: ProgramKey, module: nn.Module, spec: ProgramSpec, *, precision: Precision) -> bytes:
        """Attention as one operator where the library has it; where it has no kernel for that, spelled out."""
        library = self._shelf.library
        opset = FUSED_OPSET if library.has_fused_attention else SPELT_OUT_OPSET
        self._say(key, f"export, {precision.name}", 0.0)
        onnx = export_onnx(module, spec, opset=opset)
        self._say(key, f"build, {precision.name}", 0.3)

        def progress(phase: str, share: float) -> None:
            self._say(key, f"build, {precision.name}: {phase}", 0.3 + 0.6 * share)

        try:
            return build_plan(library, onnx, self._shelf.options, progress=progress)
        except BuildError as error:
            if opset == SPELT_OUT_OPSET or _NO_KERNEL not in str(error):
                raise
        self._say(key, f"build, {precision.name}: no fused attention for it, spelling it out", 0.3)
        return build_plan(library, export_onnx(module, spec, opset=SPELT_OUT_OPSET), self._shelf.options)

    def _say(self, key: ProgramKey, text: str, share: float) -> None:
        self._tell(Tidings("stage", key, " ".join(text.split()), share))
