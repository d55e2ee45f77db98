"""The Triton kernel without a GPU: its arithmetic in Triton's interpreter, in a process of its own as that is chosen at
import; and its tiles through the real compiler, down to machine code for each kind of card.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton (pip install triton; torch for CUDA brings it)"
)
# rows, queries, keys, channels, value channels, programs wanted: whole tiles, torn ones, few keys, empty shares
SHAPES = (
    (1, 64, 256, 32, 16, 1),
    (2, 70, 333, 32, 16, 12),
    (1, 33, 40, 256, 64, 8),
    (3, 32, 65, 16, 16, 24),
)
# bytes of shared memory that a program may have: A100, RTX 40, H100 and H200, RTX 50
SHARED_BYTES = {80: 166_912, 89: 101_376, 90: 232_448, 120: 101_376}
TIMEOUT_S = 100


def interpret() -> None:
    """The body of the interpreter's process: the largest error of each shape and dtype, as JSON."""
    from engines.compiled.cuda_triton import NarrowAttention

    errors = {}
    for dtype in (torch.float32, torch.float16):
        for rows, queries, keys, dim, value_dim, programs in SHAPES:
            random = torch.Generator().manual_seed(keys)
            query, key = (torch.randn(rows, 1, count, dim, generator=random) for count in (queries, keys))
            value = torch.randn(rows, 1, keys, value_dim, generator=random) + 0.5
            query = query + 0.7 * key[:, :, torch.arange(queries) % keys]  # peaks
            query, key, value = (x.to(dtype) for x in (query, key, value))
            kernel = NarrowAttention(32, 64, 4, 2, programs)
            found = kernel(query, key, value)
            assert found.dtype is dtype and found.shape == (rows, 1, queries, value_dim)
            scores = query.double() @ key.double().transpose(-1, -2) / dim**0.5
            wanted = torch.softmax(scores, dim=-1) @ value.double()
            error = float((found.double() - wanted).abs().amax() / wanted.abs().amax())
            errors[f"{dtype} {rows} {queries} {keys} in {kernel.splits(rows, queries)}"] = error
    print(json.dumps(errors))


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_kernel_is_attention_whatever_the_lengths(errors: dict[str, float]) -> None:
    assert len(errors) == 2 * len(SHAPES)
    assert {name.split()[-1] for name in errors} >= {"1", "2", "4"}, "keys in one share and in several"
    for name, error in errors.items():
        assert error < (1e-5 if "float32" in name else 2e-3), f"{name}: {error}"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("architecture", list(SHARED_BYTES))
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_every_card_has_tiles_that_compile_and_fit(architecture: int, kind: str) -> None:
    """With the real compiler, to machine code, at the real shape; what does not fit is refused when it is tried."""
    from engines.compiled.cuda_triton import TILES

    sizes = {}
    every = architecture == 90 and kind == "fp16"  # the others: what fits the smallest of them
    for tile_n, tile_k, num_warps, num_stages in TILES if every else TILES[-3:]:
        compiled = compile_for(architecture, kind, (tile_n, tile_k, num_warps, num_stages))
        instruction = "wgmma.mma_async" if architecture == 90 else "mma.sync"
        assert instruction in compiled.asm["ptx"], "on the tensor cores"
        assert f".f32.{'f16.f16' if kind == 'fp16' else 'bf16.bf16'}" in compiled.asm["ptx"], "sums are float32"
        sizes[tile_n, tile_k, num_stages] = compiled.metadata.shared
    fitting = [tile for tile, size in sizes.items() if size <= SHARED_BYTES[architecture]]
    assert len(fitting) >= 3, sizes


def compile_for(architecture: int, kind: str, tile: tuple[int, int, int, int]):  # type: ignore[no-untyped-def]
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from engines.compiled.cuda_triton import attend

    tile_n, tile_k, num_warps, num_stages = tile
    pointers = {"query": kind, "key": kind, "value": kind, "sums": "fp32", "tops": "fp32", "weights": "fp32"}
    counts = dict.fromkeys(("num_queries", "num_keys", "keys_a_split"), "i32")
    constants = {"TILE_N": tile_n, "TILE_K": tile_k, "DIM": 256, "VALUE_DIM": 64}
    signature = {name: f"*{dtype}" for name, dtype in pointers.items()} | counts | {"scale": "fp32"}
    names = [*signature, *constants]
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, *counts)}
    source = ASTSource(
        fn=attend,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs=aligned,
    )
    options = {"num_warps": num_warps, "num_stages": num_stages}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


if __name__ == "__main__":
    interpret()
