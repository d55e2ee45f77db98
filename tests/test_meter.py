"""The meter: how many, and how often of late."""

from __future__ import annotations

from stream.meter import NUM_KEPT, Meter

S = 1_000_000_000


def test_a_steady_rate_is_measured() -> None:
    meter = Meter()
    for number in range(100):
        meter.put(number * S // 20)
    assert meter.count == 100
    assert abs(meter.rate(99 * S // 20) - 20) < 0.01


def test_only_what_was_of_late_counts() -> None:
    meter = Meter(window_s=2)
    for number in range(100):
        meter.put(number * S // 20)
    for number in range(20):
        meter.put(5 * S + number * S // 5)
    assert abs(meter.rate(5 * S + 19 * S // 5) - 5) < 0.01


def test_it_falls_when_events_cease() -> None:
    meter = Meter(window_s=5)
    for number in range(40):
        meter.put(number * S // 20)
    last = 39 * S // 20
    assert meter.rate(last + S) == 1.0
    assert meter.rate(last + 6 * S) == 0.0


def test_nothing_and_one_are_no_rate() -> None:
    meter = Meter()
    assert meter.rate(0) == 0.0
    meter.put(S)
    assert meter.rate(S) == 0.0


def test_it_does_not_grow() -> None:
    meter = Meter(window_s=1e6)
    for number in range(10 * NUM_KEPT):
        meter.put(number * S // 1000)
    assert len(meter._times_ns) == NUM_KEPT
    assert abs(meter.rate(10 * NUM_KEPT * S // 1000) - 1000) < 1
