"""The Triton kernel of `stream.prepare.fused`, and None where Triton is not installed: it comes with torch for CUDA.

Owns: nothing. Launched by the worker's thread. Never: waits for the device.
"""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None


def _resize(  # type: ignore[no-untyped-def]
    picture, frame, first_rows, row_weights, first_columns, column_weights, height, width, means, stds,
    SIZE: tl.constexpr, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program makes `BLOCK` pixels of one row, in three channels.

    picture: uint8 (height, width, 3) BGR; frame: float32 (3, SIZE, SIZE) RGB; first_*: int32 (SIZE,), the first pixel
    that an output pixel reads; *_weights: float32 (taps, SIZE); means, stds: float32 (3,) RGB, in grey levels.
    """
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < SIZE
    first_row = tl.load(first_rows + row)
    first_column = tl.load(first_columns + columns, mask=inside, other=0)
    blue = tl.zeros([BLOCK], tl.float32)
    green = tl.zeros([BLOCK], tl.float32)
    red = tl.zeros([BLOCK], tl.float32)
    for down in range(ROW_TAPS):
        weight = tl.load(row_weights + down * SIZE + row)
        line = tl.minimum(first_row + down, height - 1) * width
        b = tl.zeros([BLOCK], tl.float32)
        g = tl.zeros([BLOCK], tl.float32)
        r = tl.zeros([BLOCK], tl.float32)
        for across in range(COLUMN_TAPS):
            share = tl.load(column_weights + across * SIZE + columns, mask=inside, other=0.0)
            place = (line + tl.minimum(first_column + across, width - 1)) * 3
            b += share * tl.load(picture + place, mask=inside, other=0).to(tl.float32)
            g += share * tl.load(picture + place + 1, mask=inside, other=0).to(tl.float32)
            r += share * tl.load(picture + place + 2, mask=inside, other=0).to(tl.float32)
        blue += weight * tl.minimum(tl.maximum(tl.floor(b + 0.5), 0.0), 255.0)
        green += weight * tl.minimum(tl.maximum(tl.floor(g + 0.5), 0.0), 255.0)
        red += weight * tl.minimum(tl.maximum(tl.floor(r + 0.5), 0.0), 255.0)
    at = row * SIZE + columns
    red = tl.minimum(tl.maximum(tl.floor(red + 0.5), 0.0), 255.0)
    green = tl.minimum(tl.maximum(tl.floor(green + 0.5), 0.0), 255.0)
    blue = tl.minimum(tl.maximum(tl.floor(blue + 0.5), 0.0), 255.0)
    plane = SIZE * SIZE
    tl.store(frame + at, (red - tl.load(means)) / tl.load(stds), mask=inside)
    tl.store(frame + plane + at, (green - tl.load(means + 1)) / tl.load(stds + 1), mask=inside)
    tl.store(frame + 2 * plane + at, (blue - tl.load(means + 2)) / tl.load(stds + 2), mask=inside)


resize_kernel: Any = None if triton is None else triton.jit(_resize)
# where it cannot be compiled
FAULTS: tuple[type[Exception], ...] = (RuntimeError, OSError, *(() if triton is None else (triton.TritonError,)))
