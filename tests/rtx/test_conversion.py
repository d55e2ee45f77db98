"""Every program of tiny goes the way of Torch-TensorRT, for three GPUs at once, each as one engine."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from no_gpu import Builds
from sam2.modeling.sam2_base import SAM2Base

from engines.graphs import spec_of
from engines.spec import ProgramKey, program_keys, program_spec
from engines.tensorrt import BuildError, BuildOptions, Library, program_module
from engines.tensorrt.torch_export import export_torch_tensorrt
from engines.weights import build_model

TINY = "sam2.1-hiera-tiny"
OTHERS = ("sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large")


@functools.lru_cache(maxsize=1)
def network_of(model: str) -> SAM2Base:
    return build_model(model, random_seed=0)


def convert(library: Library, model: str, key: ProgramKey, *, attention: torch.dtype = torch.bfloat16) -> bytes:
    network = network_of(model)
    module = program_module(network, key, dtype=torch.float16, attention_dtype=attention)
    return export_torch_tensorrt(library, module, program_spec(spec_of(network, model), key, torch.float16))


def check_converted(builds: Builds, library: Library, model: str, key: ProgramKey) -> None:
    before = len(builds.num_layers)
    plan = convert(library, model, key)
    assert len(builds.num_layers) == before + 1, "one engine"
    assert builds.num_layers[-1] > 500 and len(plan) > 10_000_000, "the whole program, weights included"


@pytest.mark.parametrize("key", program_keys(), ids=lambda key: key.name)
def test_every_program_of_tiny_is_built_as_one_engine(builds: Builds, library: Library, key: ProgramKey) -> None:
    check_converted(builds, library, TINY, key)


def test_so_it_is_with_float16_inside_attention(builds: Builds, library: Library) -> None:
    assert convert(library, TINY, ProgramKey("encode", 1), attention=torch.float16)


def forbid_unfused(library: Library, network: Any, num_keys: int) -> int:
    """Attention over this many keys or more has one kernel or none; gives how often there is such."""
    count = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name == "ATTENTION_INPUT" and layer.get_input(1).shape[2] >= num_keys:
            layer.__class__ = library.module.IAttentionInputLayer
            layer.attention.decomposable = False
            count += 1
    return count


@pytest.mark.parametrize("attention", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_memory_attention_is_one_kernel_for_each_of_these_gpus(
    builds: Builds, library: Library, attention: torch.dtype
) -> None:
    builds.look = lambda network: forbid_unfused(library, network, 4096)
    try:
        assert convert(library, TINY, ProgramKey("track", 1, 1), attention=attention)
    finally:
        builds.look = None
    assert builds.seen.pop() == 3 + 4 + 3, "self-attention of the layers 1 to 3, memory, the decoder's tokens"


@pytest.mark.slow
@pytest.mark.parametrize("key", [ProgramKey("encode", 1), ProgramKey("track", 1, 1)], ids=lambda key: key.name)
@pytest.mark.parametrize("model", OTHERS)
def test_the_other_sizes_are_built_at_batch_one(builds: Builds, library: Library, model: str, key: ProgramKey) -> None:
    check_converted(builds, library, model, key)


def test_what_has_no_converter_is_refused_and_not_left_to_torch(builds: Builds, library: Library) -> None:
    class Spectrum(torch.nn.Module):
        def forward(self, features_bchw: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.linalg.svdvals(features_bchw),)

    key = ProgramKey("encode", 1)
    spec = program_spec(spec_of(network_of("nano"), "nano"), key, torch.float32)
    with pytest.raises(BuildError, match="encode-f1"):
        export_torch_tensorrt(library, Spectrum().eval(), spec)


def test_other_gpus_are_refused_as_this_way_cannot_build_for_them(builds: Builds, library: Library) -> None:
    key = ProgramKey("encode", 1)
    network = network_of("nano")
    spec = program_spec(spec_of(network, "nano"), key, torch.float16)
    with pytest.raises(BuildError, match="sm89"):
        module = program_module(network, key, dtype=torch.float16)
        export_torch_tensorrt(library, module, spec, options=BuildOptions(targets=("sm89",)))


def test_a_setting_that_it_does_not_know_is_found_out(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.tensorrt import torch_export

    def later_version(exported_program: object, *, arg_inputs: object, **kwargs: object) -> bytes:
        return b"whatever"

    with pytest.raises(BuildError, match="attn_bias_is_causal"):
        torch_export._check_settings(later_version, {"attn_bias_is_causal": False})
