"""`FlatEncode` and `FlatTrack`: the two steady-state programs as functions of plain tensors, in the order and with the
names of `engines.spec.program_spec`. What is exported, captured and compiled.

Owns: the flat signatures. Any thread. Never: computes anything that `Encode` and `Track` do not.
"""

from __future__ import annotations

from torch import Tensor, nn

from engines.graphs.encode import Encode
from engines.graphs.programs import Track
from engines.spec import FrameFeatures, MemoryRead


class FlatEncode(nn.Module):
    """The program `encode`."""

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self.encode = encode

    def forward(self, frames_f3hw: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encode(frames_f3hw))


class FlatTrack(nn.Module):
    """The program `track`.

    The tokens of the empty prompt are an input: as constants they make the decoder's first self-attention constant,
    which converters cannot take.
    """

    def __init__(self, track: Track) -> None:
        super().__init__()
        self.track = track

    def forward(
        self,
        features_bchw: Tensor,
        high0_bchw: Tensor,
        high1_bchw: Tensor,
        tokens_bnc: Tensor,
        memory_bmnc: Tensor,
        memory_time_bm: Tensor,
        pointers_bpc: Tensor,
        pointer_pos_bpc: Tensor,
        sparse_bsc: Tensor,
    ) -> tuple[Tensor, ...]:
        rows = FrameFeatures(features_bchw, high0_bchw, high1_bchw, tokens_bnc)
        read = MemoryRead(memory_bmnc, memory_time_bm, pointers_bpc, pointer_pos_bpc)
        found, conditioned = self.track.follow(rows, read, sparse_bsc)
        return (*found, conditioned)


def track_inputs(
    frames: FrameFeatures, row_frame_b: Tensor, read: MemoryRead, *, sparse_1sc: Tensor
) -> tuple[Tensor, ...]:
    """The inputs of `FlatTrack`, in order; frames are copied to the rows that look at them."""
    rows = (x.index_select(0, row_frame_b) for x in frames)
    return (*rows, *read, sparse_1sc.expand(row_frame_b.shape[0], -1, -1))
