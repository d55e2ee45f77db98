"""What Torch-TensorRT's converters built is run, as a network of NVIDIA's library, and agrees with its module."""

from __future__ import annotations

import pytest
import torch
from network import run_network
from no_gpu import Builds
from pocket import pocket_network
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.graphs import spec_of
from engines.spec import ProgramKey, ProgramSpec, program_spec
from engines.tensorrt import Library, program_module
from engines.tensorrt.torch_export import export_torch_tensorrt
from engines.weights import build_model

Kind = tuple[torch.dtype, torch.dtype | None, float]
# dtype, that inside memory attention, and the greatest error relative to an output's greatest value
EXACT: Kind = (torch.float32, None, 1e-5)
SHIPPED: tuple[Kind, ...] = ((torch.float16, torch.float16, 1e-2), (torch.float16, torch.bfloat16, 1e-2))
KEYS = (ProgramKey("encode", 1), ProgramKey("encode", 2), ProgramKey("track", 1, 1), ProgramKey("track", 2, 2))
CASES = [*((key, EXACT) for key in KEYS), *((key, kind) for key in KEYS[1::2] for kind in SHIPPED)]


def example(spec: ProgramSpec) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for tensor in spec.inputs:
        if tensor.dtype is torch.int64:
            inputs[tensor.name] = torch.randint(0, 7, tensor.shape, generator=generator)
        else:
            inputs[tensor.name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return inputs


def errors(library: Library, builds: Builds, network: SAM2Base, key: ProgramKey, kind: Kind) -> dict[str, float]:
    """Of every output, relative to its greatest value."""
    dtype, attention, _ = kind
    spec = program_spec(spec_of(network, "any"), key, dtype)
    module = program_module(network, key, dtype=dtype, attention_dtype=attention)
    inputs = example(spec)
    with torch.inference_mode():
        wanted = module(*inputs.values())
    builds.look = lambda found: run_network(library.module, found, inputs)
    try:
        export_torch_tensorrt(library, module, spec)
    finally:
        builds.look = None
    outputs = builds.seen.pop()
    assert isinstance(outputs, dict) and list(outputs) == [f"output{index}" for index in range(len(wanted))]
    return {
        tensor.name: float((a.float() - b.float()).abs().max() / b.float().abs().max())
        for tensor, a, b in zip(spec.outputs, outputs.values(), wanted, strict=True)
    }


@pytest.mark.parametrize(
    ("key", "kind"),
    CASES,
    ids=lambda part: part.name if isinstance(part, ProgramKey) else "-".join(str(x) for x in part[:2]),
)
def test_the_converted_network_computes_what_the_module_computes(
    library: Library, builds: Builds, key: ProgramKey, kind: Kind
) -> None:
    found = errors(library, builds, pocket_network(), key, kind)
    print(key.name, kind[:2], {name: f"{error:.1e}" for name, error in found.items()})
    assert max(found.values()) < kind[2], found


def padded_network() -> SAM2Base:
    """Windows that do not divide the maps, as those of tiny, small and base-plus."""
    network = pocket_network()
    for block in network.image_encoder.trunk.blocks:
        block.window_size += 2 * (block.window_size > 0)
    return network


def test_so_does_that_of_an_encoder_with_padded_windows(library: Library, builds: Builds) -> None:
    found = errors(library, builds, padded_network(), ProgramKey("encode", 1), EXACT)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("key", KEYS[::2], ids=lambda key: key.name)
def test_so_does_that_of_nano_with_its_real_weights(library: Library, builds: Builds, key: ProgramKey) -> None:
    found = errors(library, builds, build_model("nano"), key, EXACT)
    assert max(found.values()) < 1e-5, found


@pytest.mark.slow
def test_so_does_that_of_tiny(library: Library, builds: Builds) -> None:
    network = build_model("sam2.1-hiera-tiny", random_seed=0)
    found = errors(library, builds, network, ProgramKey("encode", 1), EXACT)
    assert max(found.values()) < 1e-5, found
