"""Names of devices and number formats: what is taken and what is refused."""

from __future__ import annotations

import pytest
import torch

from stream import daemon
from stream.device import GpuMissing, OptionError, check_gpu, is_device_lost, resolve_device, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, wanted in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert resolve_device("auto") == torch.device(wanted)


@pytest.mark.parametrize("name", ["gpu", "", "mps", "cudax", "cuda:", "cuda:one", "CPU"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"device is '{name}'; expected auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="finds no CUDA device"):
        resolve_device("cuda:1")


def test_dtypes_have_defaults_that_the_device_multiplies_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("auto", CUDA) is torch.float16
    for abilities, wanted in (({}, torch.float32), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda abilities=abilities: abilities, raising=False)
        assert resolve_dtype("auto", CPU) is wanted
    assert [resolve_dtype(name, CUDA) for name in ("fp32", "bf16", "fp16")] == [
        torch.float32, torch.bfloat16, torch.float16,
    ]  # fmt: skip


def test_a_dtype_that_cannot_work_is_refused() -> None:
    with pytest.raises(OptionError, match="dtype is 'int8'; expected auto, fp32, bf16, fp16"):
        resolve_dtype("int8", CPU)
    with pytest.raises(OptionError, match="dtype is 'fp16' on a CPU"):
        resolve_dtype("fp16", CPU)


@pytest.mark.parametrize(("name", "allow_cpu"), [("auto", False), ("cuda", False), ("cuda", True), ("cuda:1", True)])
def test_a_gpu_that_is_missing_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, allow_cpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GpuMissing, match=r"finds no GPU; expected a GPU with its driver, --device cpu, or --allow-cpu"):
        check_gpu(name, allow_cpu=allow_cpu)


@pytest.mark.parametrize(
    ("name", "allow_cpu", "has_gpu"), [("cpu", False, False), ("auto", True, False), ("auto", False, True)]
)
def test_a_cpu_that_is_meant_or_allowed_will_do(
    monkeypatch: pytest.MonkeyPatch, name: str, allow_cpu: bool, has_gpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    check_gpu(name, allow_cpu=allow_cpu)


DEVICE_IS_LOST = {
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later.": True,
    "CUDA error: device-side assert triggered": True,
    "CUDA error: unspecified launch failure": True,
    "CUDA error: misaligned address": True,
    "CUDA error: uncorrectable ECC error encountered": True,
    "CUDA error: the launch timed out and was terminated": True,
    "CUDA error: unknown error": True,
    "CUDA error: no CUDA-capable device is detected": True,
    "CUDA driver error: an illegal instruction was encountered": True,
    "Triton Error [CUDA]: an illegal memory access was encountered": True,
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": True,
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR": True,
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`": True,
    "CUDA error: out of memory": False,
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": False,
    "CUDA out of memory. Tried to allocate 20.00 GiB.": False,
    "CUDA error: no kernel image is available for execution on the device": False,
    "CUDA error: invalid configuration argument": False,
    "CUDA error: invalid device ordinal\nCUDA kernel errors might be reported later; an illegal memory access": False,
    "The size of tensor a (3) must match the size of tensor b (4)": False,
    "": False,
}


@pytest.mark.parametrize("text", DEVICE_IS_LOST)
def test_only_sticky_cuda_errors_mean_that_the_device_is_lost(text: str) -> None:
    assert is_device_lost(RuntimeError(text)) == DEVICE_IS_LOST[text]
    assert not is_device_lost(ValueError(text)), "CUDA's errors are RuntimeErrors"
    assert not is_device_lost(torch.OutOfMemoryError(text)), "an exhausted memory can be freed"
    accelerator_error = getattr(torch, "AcceleratorError", RuntimeError)
    assert is_device_lost(accelerator_error(text)) == DEVICE_IS_LOST[text]


def test_whichever_thread_hears_of_a_lost_device_the_daemon_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for kind in (RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)):
        error = kind("CUDA error: device-side assert triggered\nSearch for it.\nAdvice.")
        assert daemon._say(error) == daemon.EXIT_GPU_LOST == 70
        assert capsys.readouterr().err == "sam2-stream: CUDA error: device-side assert triggered\n"
