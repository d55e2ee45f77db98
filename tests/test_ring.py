"""FrameRing: the newest picture wins, a leased slot is never written, and every loss is counted."""

from __future__ import annotations

import threading
import time
import zlib

import numpy as np
import pytest

from stream.frame import Stamp
from stream.ring import FrameRing, Lease

HEIGHT, WIDTH = 12, 16
POISON = 0xA5


def stamp(seq: int) -> Stamp:
    return Stamp("cam", 0, seq, "cam_optical_frame", None, arrival_utc_ns=seq, arrival_ns=seq, decoded_ns=seq)


def picture(seq: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), seq % 251, np.uint8)


def take(ring: FrameRing) -> Lease:
    lease = ring.take()
    assert lease is not None
    return lease


def test_the_newest_picture_wins_and_the_replaced_one_is_counted() -> None:
    ring = FrameRing("cam")
    assert ring.take() is None and not ring.has_unread
    for seq in range(4):
        assert ring.write(picture(seq), stamp(seq))
    lease = take(ring)
    assert lease.frame.stamp.seq == 3
    assert (lease.frame.height, lease.frame.width) == (HEIGHT, WIDTH)
    assert (lease.frame.image_hwc == 3).all()
    assert ring.take() is None, "a picture is taken once"
    assert (ring.num_written, dict(ring.num_dropped)) == (4, {"replaced": 3})
    lease.release()
    assert ring.num_leased == 0


def test_a_leased_slot_is_never_written() -> None:
    ring = FrameRing("cam")
    ring.write(picture(0), stamp(0))
    leases = [take(ring)]
    ring.write(picture(1), stamp(1))
    leases.append(take(ring))
    for lease in leases:
        lease.frame.image_hwc[:] = POISON
    for seq in range(2, 50):
        assert ring.write(picture(seq), stamp(seq)), "two leases leave room for the writer"
    assert all((lease.frame.image_hwc == POISON).all() for lease in leases)
    for lease in leases:
        lease.release()


def test_too_many_leases_cost_new_pictures_and_never_leased_ones() -> None:
    ring = FrameRing("cam", num_slots=5)
    leases = []
    for seq in range(5):
        assert ring.write(picture(seq), stamp(seq))
        leases.append(take(ring))
    assert not ring.write(picture(5), stamp(5))
    assert ring.claim(HEIGHT, WIDTH) is None
    assert dict(ring.num_dropped) == {"no_slot": 2}
    assert [int(lease.frame.image_hwc[0, 0, 0]) for lease in leases] == [0, 1, 2, 3, 4]
    leases[2].release()
    assert ring.write(picture(6), stamp(6))
    assert take(ring).frame.stamp.seq == 6


def test_an_unread_picture_stays_when_the_next_finds_no_slot() -> None:
    ring = FrameRing("cam", num_slots=3)
    leases = []
    for seq in range(2):
        ring.write(picture(seq), stamp(seq))
        leases.append(take(ring))
    assert ring.write(picture(2), stamp(2))
    assert not ring.write(picture(3), stamp(3))
    assert take(ring).frame.stamp.seq == 2


def test_a_lease_is_released_once() -> None:
    ring = FrameRing("cam")
    ring.write(picture(0), stamp(0))
    lease = take(ring)
    lease.release()
    with pytest.raises(AssertionError, match="cam seq 0 was released twice"):
        lease.release()


def test_a_slot_is_decoded_into_without_a_copy_and_reused() -> None:
    ring = FrameRing("cam")
    addresses = set()
    for seq in range(20):
        slot_hwc = ring.claim(HEIGHT, WIDTH)
        assert slot_hwc is not None and slot_hwc.flags.c_contiguous
        again = ring.claim(HEIGHT, WIDTH)
        assert again is slot_hwc, "an uncommitted claim is claimed again"
        slot_hwc[:] = seq
        ring.commit(stamp(seq))
        lease = take(ring)
        assert lease.frame.image_hwc is slot_hwc
        addresses.add(slot_hwc.ctypes.data)
        lease.release()
    assert len(addresses) <= ring.num_slots


def test_a_new_size_gets_new_memory_and_leases_keep_the_old() -> None:
    ring = FrameRing("cam")
    ring.write(picture(1), stamp(1))
    old = take(ring)
    for seq in range(2, 9):
        ring.write(picture(seq, HEIGHT * 2, WIDTH + 3), stamp(seq))
    new = take(ring)
    assert old.frame.image_hwc.shape == (HEIGHT, WIDTH, 3) and (old.frame.image_hwc == 1).all()
    assert new.frame.image_hwc.shape == (HEIGHT * 2, WIDTH + 3, 3) and (new.frame.image_hwc == 8).all()


def test_the_doorbell_rings_at_every_picture() -> None:
    doorbell = threading.Event()
    rings = [FrameRing("a", doorbell=doorbell), FrameRing("b", doorbell=doorbell)]
    for ring in rings:
        doorbell.clear()
        ring.write(picture(0), stamp(0))
        assert doorbell.is_set()


def test_waiting_is_counted_from_the_first_unread_picture() -> None:
    ring = FrameRing("cam")
    assert ring.waiting_since_ns is None
    before_ns = time.monotonic_ns()
    ring.write(picture(0), stamp(0))
    since_ns = ring.waiting_since_ns
    assert since_ns is not None and since_ns >= before_ns
    ring.write(picture(1), stamp(1))
    assert ring.waiting_since_ns == since_ns, "a busy camera does not lose its place in the queue"
    take(ring).release()
    assert ring.waiting_since_ns is None


def test_offline_the_writer_waits_until_the_picture_was_taken() -> None:
    ring = FrameRing("cam")
    assert ring.wait_taken(0.0), "nothing is unread yet"
    num_pictures, seen = 200, []

    def read() -> None:
        while len(seen) < num_pictures:
            ring.doorbell.wait(1.0)
            ring.doorbell.clear()
            lease = ring.take()
            if lease is not None:
                seen.append(lease.frame.stamp.seq)
                lease.release()

    reader = threading.Thread(target=read)
    reader.start()
    for seq in range(num_pictures):
        ring.write(picture(seq), stamp(seq))
        assert ring.wait_taken(5.0)
    reader.join(5.0)
    assert seen == list(range(num_pictures)) and not ring.num_dropped
    ring.write(picture(0), stamp(0))
    start_ns = time.monotonic_ns()
    assert not ring.wait_taken(0.05)
    assert time.monotonic_ns() - start_ns < 1e9


def test_no_torn_picture_under_a_hammering_writer_and_two_slow_leases() -> None:
    """Content, size and stamp belong together, whoever is faster; each lease is checked twice."""
    ring, done, pictures = FrameRing("cam"), threading.Event(), []
    rng = np.random.default_rng(0)
    for size in ((48, 64), (48, 64), (48, 64), (30, 40)):
        pictures.append(rng.integers(0, 256, (*size, 3), np.uint8))
    checksums = [zlib.crc32(image) for image in pictures]

    def write() -> None:
        for seq in range(20_000):
            ring.write(pictures[seq % len(pictures)], stamp(seq))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    held: list[Lease] = []
    last_seq, num_read = -1, 0
    while not done.is_set() or ring.has_unread:
        lease = ring.take()
        if lease is None:
            continue
        seq = lease.frame.stamp.seq
        assert seq > last_seq
        assert zlib.crc32(lease.frame.image_hwc) == checksums[seq % len(pictures)]
        last_seq, num_read = seq, num_read + 1
        held.append(lease)
        if len(held) == 2:
            oldest = held.pop(0)
            assert zlib.crc32(oldest.frame.image_hwc) == checksums[oldest.frame.stamp.seq % len(pictures)]
            oldest.release()
    writer.join(5.0)
    assert last_seq == 19_999 and num_read > 10
    assert ring.num_dropped.get("no_slot", 0) == 0
    assert ring.num_written == num_read + ring.num_dropped["replaced"]
