"""Pictures on their way to a device, and results on their way back; a lane without a device stands in for a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_engine import FakeEngine
from lanes import LateEvent, LateLane

from stream.prepare import Upload, prepare_frames
from stream.prepare.fused import FusedResize, bicubic_weights, fused_resize
from stream.prepare.picture import STD_RGB, resize_in_steps
from stream.prepare.upload import MIN_BLOCK_BYTES, NUM_BLOCKS
from stream.readout import MAX_AHEAD, Readout, read_out
from stream.tracker import Tracker

CPU = torch.device("cpu")
SIZE = 48
HAS_TRITON = importlib.util.find_spec("triton") is not None


def picture(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def levels_between(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).abs() * torch.tensor(STD_RGB).view(3, 1, 1) * 255).max())


# --- upload ----------------------------------------------------------------------------------------------------------


def test_pictures_through_a_lane_become_what_they_become_on_a_cpu() -> None:
    upload = Upload(SIZE, CPU, lane=LateLane())
    for turn in range(5):
        images = [picture(turn), picture(turn + 100, 48, 48), picture(turn + 200, 200, 31)][: 1 + turn % 3]
        found = upload.prepare(images, count=4)
        assert found.shape == (4, 3, SIZE, SIZE) and found.dtype is torch.float32
        for frame, image in zip(found, images, strict=False):
            assert levels_between(frame, prepare_frames([image], SIZE, CPU)[0]) < 1.01


def test_a_picture_has_left_its_slot_when_prepare_returns() -> None:
    lane = LateLane()
    upload, image = Upload(SIZE, CPU, lane=lane), picture(1)
    before = upload.prepare([image], count=1).clone()
    image.fill(0)
    lane.run(1000)
    assert torch.equal(upload.prepare([picture(1)], count=1), before)


def test_a_block_is_written_again_only_after_its_upload_has_passed() -> None:
    upload = Upload(SIZE, CPU, lane=LateLane())
    sent: list[LateEvent] = []
    for turn in range(6):
        upload.prepare([picture(turn)], count=1)
        block = upload._blocks[turn % NUM_BLOCKS]
        assert isinstance(block.sent, LateEvent)
        sent.append(block.sent)
        waited = [event.num_waits for event in sent]
        assert waited == [1] * max(0, turn + 1 - NUM_BLOCKS) + [0] * min(turn + 1, NUM_BLOCKS)


def test_blocks_grow_by_doubling_and_then_stay() -> None:
    lane = LateLane()
    upload = Upload(SIZE, CPU, lane=lane)
    large = picture(1, 700, 1000)  # 2.1 MB
    for _ in range(6):
        found = upload.prepare([large, picture(2)], count=2)
        assert levels_between(found[0], prepare_frames([large], SIZE, CPU)[0]) < 1.01
    assert lane.num_bytes_pinned == [MIN_BLOCK_BYTES] * 2 + [4 * MIN_BLOCK_BYTES] * 2


def test_on_a_cpu_there_is_no_lane_and_frames_beyond_the_pictures_repeat_the_first() -> None:
    images = [picture(1), picture(2, 48, 48)]
    found = Upload(SIZE, CPU).prepare(images, count=4)
    wanted = prepare_frames(images, SIZE, CPU)
    assert torch.equal(found, torch.stack([wanted[0], wanted[1], wanted[0], wanted[0]]))


# --- read-out --------------------------------------------------------------------------------------------------------


def results(seed: int, num: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(num, 12, 12, generator=random), torch.randn(num, generator=random), torch.rand(num)


def test_results_through_a_lane_are_those_of_a_cpu_and_there_after_the_event_alone() -> None:
    readout = Readout(CPU, lane=LateLane())
    parts, sizes = [results(1), results(2, 3)], [(30, 41), (24, 16)]
    blocks, wanted = readout.launch(parts, sizes), read_out(parts, sizes)
    assert all((block.packed_nhb == 77).all() for block in blocks), "the copy has not arrived yet"
    for block, right in zip(blocks, wanted, strict=True):
        stats, packed = block.wait()
        np.testing.assert_allclose(stats, right.stats_ns, rtol=1e-5)
        np.testing.assert_array_equal(packed, right.packed_nhb)
    assert readout.launch([], []) == []


def test_a_pinned_block_is_used_again_as_soon_as_nobody_holds_a_result_in_it() -> None:
    lane = LateLane()
    readout = Readout(CPU, lane=lane)
    first = readout.launch([results(1)], [(30, 41)])
    kept = first[0].wait()[1].copy()
    for seed in range(20):
        readout.launch([results(seed)], [(30, 41)])[0].wait()
    np.testing.assert_array_equal(first[0].packed_nhb, kept)
    assert readout.num_blocks == len(lane.num_bytes_pinned) == 2
    del first
    held = [readout.launch([results(seed)], [(30, 41)]) for seed in range(5)]
    assert readout.num_blocks == 5
    wanted = [read_out([results(seed)], [(30, 41)])[0].packed_nhb for seed in range(5)]
    assert all((block.wait()[1] == bits).all() for (block,), bits in zip(held, wanted, strict=True))


def test_result_blocks_grow_by_doubling_and_smaller_ones_are_not_used_again() -> None:
    lane = LateLane()
    readout = Readout(CPU, lane=lane)
    for size in ((30, 41), (2160, 3840), (30, 41), (2160, 3840)):
        (block,) = readout.launch([results(1)], [size])
        np.testing.assert_array_equal(block.wait()[1], read_out([results(1)], [size])[0].packed_nhb)
        del block
    assert lane.num_bytes_pinned == [1 << 20, 1 << 21] and readout.num_blocks == 1


def test_the_host_waits_for_the_turn_before_the_last_and_for_no_other() -> None:
    readout = Readout(CPU, lane=LateLane())
    events: list[LateEvent] = []
    for turn in range(5):
        readout.wait_room()
        (block,) = readout.launch([results(turn)], [(30, 41)])
        assert isinstance(block.event, LateEvent)
        events.append(block.event)
        waited = [event.num_waits for event in events]
        assert waited == [1] * max(0, turn + 1 - MAX_AHEAD) + [0] * min(turn + 1, MAX_AHEAD)


def test_a_tracker_on_a_lane_gives_the_masks_of_one_without() -> None:
    def masks(*, lane: LateLane | None) -> list[np.ndarray]:
        tracker = Tracker(FakeEngine())
        if lane is not None:
            ways = Upload(tracker.image_size, CPU, lane=lane), Readout(CPU, lane=lane)
            tracker._equipment = dataclasses.replace(tracker._equipment, upload=ways[0], readout=ways[1])
        tracker.add(1, points=[(5, 5, 1)])
        found = []
        for seed in range(4):
            tracker.wait_room()
            found.append(tracker.step(picture(seed)).packed_nhb)
        return found

    np.testing.assert_array_equal(masks(lane=LateLane()), masks(lane=None))


# --- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 17, 47, 48, 49, 96, 200, 1080])
def test_the_kernels_weights_are_those_of_torchs_antialiased_filter(length: int) -> None:
    first, weights = bicubic_weights(length, SIZE)
    dense = torch.zeros(SIZE, length)
    for tap, row in enumerate(weights):
        for place, (start, weight) in enumerate(zip(first.tolist(), row.tolist(), strict=True)):
            dense[place, min(start + tap, length - 1)] += weight
    lines = torch.rand(5, length, generator=torch.Generator().manual_seed(length)) * 255
    wanted = F.interpolate(lines[None, None], size=(5, SIZE), mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(lines @ dense.T, wanted, rtol=0, atol=0.01)


def test_without_triton_pictures_are_resized_in_steps() -> None:
    if HAS_TRITON:
        pytest.skip("triton is installed here")
    assert fused_resize(SIZE, CPU) is None


def interpret() -> None:
    """The body of the interpreter's process: the largest difference in grey levels for each size, as JSON."""
    size, found = 16, {}
    fused = FusedResize(size, CPU)
    for height, width in ((20, 30), (16, 16), (10, 11), (1, 1)):
        image = torch.from_numpy(picture(height, height, width))
        ours, wanted = torch.zeros(2, 3, size, size)
        fused(image, ours)
        resize_in_steps(image, wanted)
        found[f"{width}x{height}"] = levels_between(ours, wanted)
    print(json.dumps(found))


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton (pip install triton; torch for CUDA brings it)")
def test_the_kernel_resizes_as_torch_does_in_steps_within_a_grey_level() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "import test_upload; test_upload.interpret()"]
    output = subprocess.check_output(command, env=environment, cwd=Path(__file__).parent, text=True, timeout=100)
    differences = json.loads(output)
    assert max(differences.values()) < 1.01, differences
