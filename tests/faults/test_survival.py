"""A daemon that is stopped, killed, or cannot write: what it tracks survives."""

from __future__ import annotations

import signal
import time

import pytest

from faults.conftest import Record, World
from faults.lab import HEALTHY, Lab
from faults.record import Row
from faults.story import Story

CAMERA = "forgetful"


def test_a_short_stop_is_forgiven_and_a_long_one_forgets(lab: Lab, world: World, record: Record) -> None:
    with world.cameras({"/cam": {"offset": 12000}}) as server:
        start_s = time.monotonic()
        lab.put(CAMERA, server.url("/cam"), offset=12000, memory_gap_s=3.0)
        lab.witness.next(CAMERA, start_s, num=8)
        seconds_s, epochs = (1.0, 5.0), [lab.witness.last(CAMERA).masks.epoch]
        for stopped_s in seconds_s:
            lab.signal(signal.SIGSTOP)
            time.sleep(stopped_s)
            lab.signal(signal.SIGCONT)
            back_s = time.monotonic()
            fresh = lab.witness.next(CAMERA, back_s, num=10)
            epochs.append(fresh[-1].masks.epoch)
            lab.witness.next(HEALTHY, back_s, num=5)
            lab.check(CAMERA, fresh[0].masks.arrival_ns / 1e9)
            lost = lab.num_lost(CAMERA, back_s)
            kept = "memory kept" if stopped_s < 3 else "memory older than memory_gap_s (here 3 s) dropped: epoch rises"
            promise = f"up to date at once, {kept}"
            row = Row(f"daemon: SIGSTOP for {stopped_s:g} s", promise, fresh[0].received_s - back_s, lost)
            record(row, "camera with memory_gap_s = 30: memory kept")
        assert epochs[1] == epochs[0] and epochs[2] > epochs[1], epochs
        assert len({item.masks.epoch for item in lab.witness.seen(HEALTHY, start_s)}) == 1
        lab.check(HEALTHY, start_s)
        lab.drop(CAMERA)


def test_a_killed_daemon_goes_on_with_its_objects(story: Story, record: Record) -> None:
    told = story.result("killed")
    promise = f"same objects, also one added by command; IoU {told['iou']:.2f} afterwards; epoch rises"
    record(
        Row("daemon: kill -9 and started again", promise, told["recovered_s"], told["lost"]),
        "subscribers find it again by themselves",
    )


def test_a_full_disk_stops_no_mask(story: Story, record: Record) -> None:
    told = story.result("full")
    if not told:
        pytest.skip("needs root, to mount a small file system")
    promise = f"said {told['num_said']} time, masks go on, the old file stays; saved once there is room"
    record(Row("disk full while saving state", promise, told["recovered_s"], 0), told["others"])
