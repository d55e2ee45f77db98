"""How one mask becomes bytes and comes back: `bits` (cropped, packed, zstd), `coco_rle`, or nothing.

Owns: `Patch` (the mask of one object on the wire), `MaskEncoder`, and `WireError`, raised for all bad bytes here and
in `stream.wire`. Thread: an encoder belongs to the thread that made it (`pub`); a `Patch` is frozen, for any thread.
Never: opens anything, or reserves memory for a size that a message merely declares.

`coco_rle` is the run-length string of the COCO data set: runs of 0 and 1 in turn, beginning with 0, along the
columns of the full frame; from the fourth run on the difference to the run two before; five bits a character,
lowest first, bit 5 = "more follows", plus 48.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

MaskEncoding = Literal["bits", "coco_rle", "none"]
MASK_ENCODINGS: tuple[str, ...] = get_args(MaskEncoding)

MAX_SIDE = 16384  # pixels; no frame on the wire is wider or higher
ZSTD_LEVEL = 1
MAX_WINDOW_BYTES = 1 << 27  # what zstd may reserve for its window
MAX_RUN_CHARACTERS = 7  # 35 bits: no run of a 16384 x 16384 frame needs more

Pixels = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIDE)]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


class WireError(ValueError):
    """A message is not what the specification in `stream.wire` says; the text names what was expected."""


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """The mask of one object, cut to its box; `data` is looked into only when the mask is asked for.

    `bits`: `x0` is a multiple of 8; `data` is a zstd frame that declares its content size: `height` rows of
    `ceil(width / 8)` bytes, most significant bit first, padding 0; an empty mask has width and height 0 and no data.
    `coco_rle`: the patch is the full frame, `data` the ASCII run-length string.
    """

    encoding: Literal["bits", "coco_rle"]
    x0: Pixels
    y0: Pixels
    width: Pixels
    height: Pixels
    data: bytes

    def __post_init__(self) -> None:
        if self.encoding == "bits" and self.x0 % 8:
            raise WireError(f"mask begins at x0 = {self.x0}, expected a multiple of 8")
        if self.encoding == "coco_rle" and (self.x0 or self.y0):
            raise WireError(f"coco_rle mask begins at {self.x0, self.y0}, expected (0, 0): it covers the full frame")

    def bits_hw(self) -> Bools:
        """The patch as booleans of shape (height, width)."""
        if self.encoding == "coco_rle":
            return decode_coco_rle(self.data, height=self.height, width=self.width)
        return np.unpackbits(self.rows_hb(), axis=1, count=self.width).astype(np.bool_)

    def rows_hb(self) -> Bytes:
        """The patch as packed rows of shape (height, ceil(width / 8)); padding bits are zero."""
        if self.encoding == "coco_rle":
            return np.packbits(np.ascontiguousarray(self.bits_hw()), axis=1)
        num_bytes_row = (self.width + 7) // 8
        rows_hb = np.frombuffer(decompress(self.data, self.height * num_bytes_row), np.uint8)
        rows_hb = rows_hb.reshape(self.height, num_bytes_row).copy()
        if self.width % 8:
            rows_hb[:, -1] &= (0xFF00 >> (self.width % 8)) & 0xFF
        return rows_hb


def decompress(data: bytes, num_bytes: int) -> bytes:
    """Undo zstd where the result must have exactly `num_bytes`; the declared size is checked before it is reserved."""
    if num_bytes == 0:
        if data:
            raise WireError(f"{len(data)} bytes of mask data, expected none for an empty mask")
        return b""
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared != num_bytes:
            what = "no size" if declared == zstandard.CONTENTSIZE_UNKNOWN else f"{declared} bytes"
            raise WireError(f"zstd frame declares {what}, expected {num_bytes} bytes")
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        rows = unpacker.decompress(data, max_output_size=num_bytes, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise WireError(f"mask data of {len(data)} bytes is not a sound zstd frame: {exc}") from exc
    if len(rows) != num_bytes:
        raise WireError(f"zstd frame holds {len(rows)} bytes, expected {num_bytes} bytes")
    return rows


class MaskEncoder:
    """Turns packed masks into patches. The thread that made it writes its only state, the compressor."""

    def __init__(self, encoding: MaskEncoding) -> None:
        if encoding not in MASK_ENCODINGS:
            raise ValueError(f"mask encoding {encoding!r}, expected one of {', '.join(MASK_ENCODINGS)}")
        self.encoding = encoding
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)

    def encode(self, packed_hb: Bytes, box: tuple[int, int, int, int], *, width: int) -> Patch | None:
        """Cut the crop of `box` out of a full-frame packed mask and encode it; None with encoding `none`."""
        if self.encoding == "none":
            return None
        x0, y0, x1, y1 = box
        first = x0 // 8
        crop_hb = packed_hb[y0:y1, first : (x1 + 7) // 8]
        if self.encoding == "coco_rle":
            counts = encode_coco_rle(crop_hb, offset_xy=(first * 8, y0), height=packed_hb.shape[0], width=width)
            return Patch(encoding="coco_rle", x0=0, y0=0, width=width, height=packed_hb.shape[0], data=counts)
        data = self._compressor.compress(crop_hb.tobytes()) if crop_hb.size else b""
        return Patch(encoding="bits", x0=first * 8, y0=y0, width=x1 - first * 8, height=y1 - y0, data=data)


def encode_coco_rle(crop_hb: Bytes, *, offset_xy: tuple[int, int], height: int, width: int) -> bytes:
    """The COCO run-length string of a frame that is zero outside a packed crop placed at `offset_xy`."""
    num_rows, num_columns = crop_hb.shape[0], min(crop_hb.shape[1] * 8, width - offset_xy[0])
    flat = np.zeros(1 + num_columns * (num_rows + 1), np.uint8)  # a zero below closes every column's last run
    columns_wh = flat[1:].reshape(num_columns, num_rows + 1)
    columns_wh[:, :-1] = np.unpackbits(crop_hb, axis=1, count=num_columns).T
    columns, rows = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), num_rows + 1)
    positions = (columns + offset_xy[0]) * height + rows + offset_xy[1]
    starts, ends = positions[0::2], positions[1::2]
    joined = ends[:-1] == starts[1:]  # a column full to the bottom and the next one from the top are one run
    edges = np.empty((starts.size - int(joined.sum()), 2), np.int64)
    edges[:, 0] = np.delete(starts, 1 + np.flatnonzero(joined))
    edges[:, 1] = np.delete(ends, np.flatnonzero(joined))
    counts = np.diff(edges.ravel(), prepend=0, append=height * width)
    if edges.size and edges[-1, 1] == height * width:
        counts = counts[:-1]  # nothing follows the last run of ones
    return _write_counts(counts)


def _write_counts(counts: NDArray[np.int64]) -> bytes:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifts = 5 * np.arange(MAX_RUN_CHARACTERS)
    groups = (values[:, None] >> shifts) & 0x1F
    rest = values[:, None] >> (shifts + 5)
    done = np.where((groups & 0x10) != 0, rest == -1, rest == 0)  # only the sign is left, and the group shows it
    last = done.argmax(axis=1)
    position = np.arange(MAX_RUN_CHARACTERS)
    characters = groups + 48 + np.where(position < last[:, None], 0x20, 0)
    written: Bytes = characters[position <= last[:, None]].astype(np.uint8)
    return written.tobytes()


def decode_coco_rle(data: bytes, *, height: int, width: int) -> Bools:
    """Booleans of shape (height, width) from a COCO run-length string; its runs must fill the frame exactly."""
    counts = _read_counts(data)
    counts[2::2] = np.cumsum(counts[2::2])
    counts[1::2] = np.cumsum(counts[1::2])
    if counts.size and (counts.min() < 0 or counts.max() > height * width):
        raise WireError(f"coco_rle has runs of {counts.min()} to {counts.max()}, expected 0 to {height * width} pixels")
    if counts.sum() != height * width:
        raise WireError(f"coco_rle runs cover {counts.sum()} pixels, expected {height} x {width} = {height * width}")
    values = np.arange(counts.size) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _read_counts(data: bytes) -> NDArray[np.int64]:
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if codes.size and (codes.min() < 0 or codes.max() > 0x3F):
        raise WireError("coco_rle holds a character outside '0' to 'o'")
    is_last = (codes & 0x20) == 0
    if codes.size and not is_last[-1]:
        raise WireError("coco_rle ends within a run, expected one more character")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    sizes = ends - starts + 1
    if ends.size and sizes.max() > MAX_RUN_CHARACTERS:
        raise WireError(f"coco_rle has a run of {sizes.max()} characters, expected at most {MAX_RUN_CHARACTERS}")
    place = np.arange(codes.size) - np.repeat(starts, sizes)
    counts = np.add.reduceat((codes & 0x1F) << (5 * place), starts) if ends.size else np.zeros(0, np.int64)
    negative = (codes[ends] & 0x10) != 0
    counts[negative] -= np.int64(1) << (5 * sizes[negative])
    return counts
