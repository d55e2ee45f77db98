"""Rows about what has never run on a GPU, each with what stands in for it.

Owns: the list. A row goes once there is a result of its benchmark from a GPU. Never: softens anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.readme.row import Result, Row

_EMULATOR = "an emulator of `tensorrt` with NVIDIA's signatures, on the CPU (`tests/test_tensorrt_runtime.py`)"


@dataclass(frozen=True, slots=True)
class Unrun:
    """`benchmark` is the one whose result from a GPU replaces the row."""

    benchmark: str
    what: str
    instead: str
    goal: str = ""


UNRUN = (
    Unrun(
        "against_official",
        "GPU: a frame against official `vos_optimized=True` under bf16",
        "the same program runs on the CPU; its CUDA ways have never run",
        "H200: tiny >= 3 times as fast and <= 2.3 ms, large <= 6.2 ms, 8 objects <= 12 ms",
    ),
    Unrun(
        "against_official",
        "GPU: `compiled`, steps as CUDA graphs",
        "on the CPU with a stand-in for the graph, bit for bit (`tests/test_cuda_step.py`); each recording is compared "
        "with the plain step before it is used",
        "no allocation after warm-up, < 0.3 ms beyond the GPU's work",
    ),
    Unrun(
        "attention",
        "GPU: the attention kernels (cuDNN, Flash, Triton)",
        "measured and compared with plain attention at load; the Triton kernel in Triton's interpreter, and compiled "
        "for SM80, SM89, SM90 and SM120 (`tests/test_triton_kernel.py`)",
    ),
    Unrun(
        "tensorrt",
        "GPU: `tensorrt`, plans built and run",
        f"{_EMULATOR}; the ONNX files in onnxruntime, the converted networks with torch (`tests/rtx`)",
    ),
    Unrun(
        "tensorrt-rtx",
        "GPU: `tensorrt-rtx`, plans run",
        "all programs of tiny built by NVIDIA's own builder for SM80, SM89 and SM120 (`tests/test_rtx_build.py`); "
        f"loaded and run by {_EMULATOR}",
    ),
    Unrun(
        "cameras",
        "GPU: many cameras on one device",
        "the same program runs on the CPU",
        "H200: 16 cameras x 1 object >= 600 frames/s in all",
    ),
    Unrun(
        "pipeline",
        "GPU: pinned uploads, copy stream, NVDEC",
        "stand-ins for streams, events and the decoder (`tests/test_upload.py`, `tests/test_capture_nvdec.py`)",
    ),
)


def unrun_rows(results: Iterable[Result]) -> list[Row]:
    ran = {result["benchmark"] for result in results if result.get("gpu")}
    return [
        Row(item.what, f"**never run: no GPU was at hand.** Instead: {item.instead}", item.goal, None, "-")
        for item in UNRUN
        if item.benchmark not in ran
    ]
