"""Names of devices and number formats: what is taken and what is refused."""

from __future__ import annotations

import pytest
import torch

from stream.device import GpuMissing, OptionError, check_gpu, resolve_device, resolve_dtype

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
