"""`Upload`: the pictures of a turn on their way to the device.

Owns: two pinned blocks and their counterparts on the device, and the frames that are made of them. Used by the worker's
thread alone. Never: keeps a picture after `prepare` returned; waits for a turn's computation.

On a CPU there is nothing to send. On CUDA a turn's pictures are copied side by side into a pinned block, and leave it
on the copy stream while the turn before computes; one kernel a picture (`stream.prepare.fused`) makes the input of
them. The two blocks take turns: events say what waits for what on the device, and the host waits only for the upload of
the turn before the last. Blocks grow by doubling, to the largest turn there was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stream.lane import CudaLane, Event, Lane
from stream.prepare.fused import fused_resize
from stream.prepare.picture import Image, prepare_frames, resize_in_steps, statistics

NUM_BLOCKS = 2
MAX_FRAMES = 8  # of one turn; `engines.spec.MAX_FRAMES`
MIN_BLOCK_BYTES = 1 << 20

Resize = Callable[[Tensor, Tensor], None]  # a picture (height, width, 3) into a frame (3, size, size)


class _Block:
    """One turn's pictures, here and on the device; written by the worker's thread."""

    def __init__(self, lane: Lane, device: torch.device) -> None:
        self._lane, self._device = lane, device
        self.sent: Event | None = None
        self._reserve(MIN_BLOCK_BYTES)

    def fill(self, images_hwc: Sequence[Image]) -> list[Tensor]:
        """Send the pictures; where they will be on the device, in order."""
        if self.sent is not None:
            self.sent.synchronize()
        sizes = [image.size for image in images_hwc]
        if sum(sizes) > self.host.shape[0]:
            self._grow(sum(sizes))
        start = 0
        for image in images_hwc:
            np.copyto(self.host[start : start + image.size].numpy().reshape(image.shape), image)
            start += image.size
        self.sent = self._lane.upload(self.device[:start], self.host[:start], after=self.used)
        self._lane.compute_after(self.sent)
        pieces = torch.split(self.device[:start], sizes)
        return [piece.view(image.shape) for piece, image in zip(pieces, images_hwc, strict=True)]

    def _grow(self, num_bytes: int) -> None:
        """By doubling; larger pictures than ever are rare, and then the host may wait for the device."""
        self.used.synchronize()
        capacity = self.host.shape[0]
        while capacity < num_bytes:
            capacity *= 2
        self._reserve(capacity)

    def _reserve(self, num_bytes: int) -> None:
        self.host = self._lane.pinned(num_bytes)
        self.device = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self.used = self._lane.computed()  # whatever the device's memory held before


class Upload:
    """The pictures of one turn after the other; written by the worker's thread.

    A device other than the CPU gets a lane; one may be given, in place of a device, for tests.
    """

    def __init__(self, size: int, device: torch.device, *, lane: Lane | None = None) -> None:
        self.size, self.device = size, device
        self._lane = CudaLane(device) if lane is None and device.type == "cuda" else lane
        self._blocks: list[_Block] = []
        self._num_turns = 0
        self._resize: Resize = resize_in_steps
        if self._lane is not None:
            self._blocks = [_Block(self._lane, device) for _ in range(NUM_BLOCKS)]
            self._frames_f3hw = torch.zeros(MAX_FRAMES, 3, size, size, device=device)
            if device.type == "cuda":
                self._resize = fused_resize(size, device) or resize_in_steps

    @property
    def is_on_host(self) -> bool:
        """Whether nothing is sent: the device is the CPU."""
        return self._lane is None

    @torch.inference_mode()
    def prepare(self, images_hwc: Sequence[Image], *, count: int) -> Tensor:
        """BGR uint8 pictures of any sizes to normalised RGB float32 (count, 3, size, size) on the device.

        Frames beyond the pictures hold any picture. On a lane the next call overwrites the result.
        """
        if self._lane is None:
            frames = prepare_frames(images_hwc, self.size, self.device)
            missing = count - len(images_hwc)
            return torch.cat([frames, frames[:1].expand(missing, -1, -1, -1)]) if missing else frames
        assert len(images_hwc) <= min(count, MAX_FRAMES), f"{len(images_hwc)} pictures, expected at most {MAX_FRAMES}"
        block = self._blocks[self._num_turns % NUM_BLOCKS]
        self._num_turns += 1
        for frame_3hw, picture_hwc in zip(self._frames_f3hw, block.fill(images_hwc), strict=False):
            self._resize(picture_hwc, frame_3hw)
        block.used = self._lane.computed()
        return self._frames_f3hw[:count]

    @torch.inference_mode()
    def colours(self, frame: int) -> Tensor:
        """One of the frames that were prepared last, as RGB from 0 to 1 (3, size, size); on a lane alone."""
        assert self._lane is not None, "on a CPU the pictures themselves are at hand"
        means, stds = statistics(self.device)
        return (self._frames_f3hw[frame] * stds.view(3, 1, 1) + means.view(3, 1, 1)) / 255
