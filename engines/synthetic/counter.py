"""A frame number burnt into the picture as a strip of black and white cells along its top.

Owns the strip's layout: white, black, 16 bits of the number (most significant first), 8 bits of checksum, black, white.
It survives H.264 and rescaling because the cells are wide and placed relative to the frame. Pure functions, any thread.
Never guesses: an unreadable or inconsistent strip gives None.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NUM_BITS = 16
_CHECK_BITS = 8
_NUM_CELLS = NUM_BITS + _CHECK_BITS + 4
_DARK, _BRIGHT = 100, 155


def _checksum(number: int) -> int:
    """Remainder by the CRC-8 polynomial x^8 + x^2 + x + 1; the constant keeps 0 from being all black."""
    register = (number ^ 0x5AA5) << _CHECK_BITS
    for bit in range(NUM_BITS + _CHECK_BITS - 1, _CHECK_BITS - 1, -1):
        if register >> bit & 1:
            register ^= 0x107 << (bit - _CHECK_BITS)
    return register


def _cells(number: int) -> list[int]:
    word = number << _CHECK_BITS | _checksum(number)
    bits = [word >> place & 1 for place in range(NUM_BITS + _CHECK_BITS - 1, -1, -1)]
    return [1, 0, *bits, 0, 1]


def strip_height(frame_height: int) -> int:
    """Rows that the number covers, from the top."""
    return max(4, frame_height // 20)


def draw_counter(frame: NDArray[np.uint8], number: int) -> None:
    """Write the number (modulo 2**16) into the frame, in place."""
    height, width = frame.shape[:2]
    edges = np.round(np.linspace(0, width, _NUM_CELLS + 1)).astype(int)
    for cell, bit in enumerate(_cells(number % 2**NUM_BITS)):
        frame[: strip_height(height), edges[cell] : edges[cell + 1]] = 255 * bit


def read_counter(frame: NDArray[np.uint8]) -> int | None:
    """The number in the frame, or None where no strip can be read for certain."""
    height, width = frame.shape[:2]
    rows = strip_height(height)
    strip = frame[rows // 4 : rows - rows // 4].reshape(rows - 2 * (rows // 4), width, -1).mean((0, 2))
    edges = np.linspace(0, width, _NUM_CELLS + 1)
    bits: list[int] = []
    for left, right in pairwise(edges):
        margin = (right - left) / 4
        level = strip[int(left + margin) : max(int(right - margin), int(left + margin) + 1)].mean()
        if _DARK < level < _BRIGHT:
            return None
        bits.append(int(level >= _BRIGHT))
    number = int("".join(map(str, bits[2 : 2 + NUM_BITS])), 2)
    return number if bits == _cells(number) else None
