"""A daemon that is stopped, killed, or cannot write: what it tracks survives."""

from __future__ import annotations

import signal
import time

import pytest

from faults.conftest import LOCKED, Record, World
from faults.lab import HEALTHY, Lab
from faults.record import Row
from faults.story import Story

CAMERA = "forgetful"


def test_a_short_stop_is_forgiven_and_a_long_one_forgets(lab: Lab, world: World, record: Record) -> None:
    with world.cameras({"/cam": {"offset": 12000}}) as server:
        start_s = time.monotonic()
        lab.put(CAMERA, server.url("/cam"), offset=12000, memory_gap_s=3.0)
        lab.witness.next(CAMERA, start_s, num=8)
        for stopped_s in (1.0, 5.0):
            epoch = lab.witness.last(CAMERA).masks.epoch
            back_s = stop(lab, stopped_s)
            fresh = lab.witness.next(CAMERA, back_s, num=10)
            lab.witness.next(HEALTHY, back_s, num=5)
            lab.check(CAMERA, fresh[0].masks.arrival_ns / 1e9)
            forgets = stopped_s > 3.0
            assert fresh[-1].masks.epoch == epoch + forgets
            assert len({item.masks.epoch for item in lab.witness.seen(HEALTHY, start_s)}) == 1
            told = "a gap over memory_gap_s (here 3 s): memory dropped, epoch rises" if forgets else "memory kept"
            row = Row(
                f"daemon: SIGSTOP for {stopped_s:g} s", f"up to date at once; {told}",
                fresh[0].received_s - back_s, lab.num_lost(CAMERA, back_s),
            )  # fmt: skip
            record(row, "camera with memory_gap_s = 30: memory kept")
        lab.check(HEALTHY, start_s)
        lab.drop(CAMERA)


def stop(lab: Lab, seconds_s: float) -> float:
    """Stop the daemon for so long; the moment when it went on."""
    lab.signal(signal.SIGSTOP)
    time.sleep(seconds_s)
    lab.signal(signal.SIGCONT)
    return time.monotonic()


def test_a_killed_daemon_goes_on_with_its_objects(story: Story, record: Record) -> None:
    told = story.result("killed")
    promise = "same objects, also those added by command; IoU >= 0.7 at once; epoch rises"
    row = Row("daemon: kill -9 and started again", promise, told["recovered_s"], told["lost"])
    record(row, "subscribers find it again by themselves", limit_s=60.0)


def test_a_full_disk_stops_no_mask(story: Story, record: Record) -> None:
    told = story.result("full")
    if not told:
        pytest.skip("needs root, to mount a small file system")
    promise = "said once, masks go on, the old file stays; saved within 10 s once there is room"
    row = Row("disk full while saving state", promise, told["recovered_s"], 0)
    record(row, told["others"], limit_s=60.0)


def test_a_password_mended_at_the_camera_is_found(lab: Lab, locked: float, record: Record) -> None:
    recovered_s = lab.witness.next(LOCKED, locked, num=10, limit_s=100)[0].received_s - locked
    assert recovered_s > 30.0, "a camera that refuses is not tried more often than once a minute"
    lab.check(LOCKED, locked)
    row = Row("wrong password, mended at the camera", "tried again each minute, found then", recovered_s)
    record(row, "cameras come and go by HUP meanwhile: its wait goes on", limit_s=100.0)
