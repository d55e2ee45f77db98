"""stream.metrics: figures that Prometheus understands, that agree with the status, and that do not grow."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from stream.frame import CameraCondition, StageTimes
from stream.metrics import MAX_CAMERAS, Metrics
from stream.status import CameraStatus, ObjectStatus, Status

DOOR = CameraStatus(
    name="door", source="rtsp://10.0.0.2/a", condition="online", epoch=2, seq=99, width=1920, height=1080,
    codec="h264 (High)", decoder="ffmpeg", clock_source="arrival", last_frame_age_s=0.25, num_decoded=100,
    num_published=90, num_reconnects=3, num_abandoned=1, num_dropped={"replaced": 7, "corrupt": 3},
    objects=(ObjectStatus(id=1), ObjectStatus(id=2, state="lost"), ObjectStatus(id=3)),
)  # fmt: skip
YARD = CameraStatus(name="yard", source="rtsp://10.0.0.3/a", condition="offline", reason="connection refused")
STATUS = Status(
    software="0.3.0", model="nano", backend="eager", device='cuda:0 (an "odd" \\ name\nof two lines)', dtype="bf16",
    is_live=True, is_ready=True, num_watched=4, num_published=90, num_commands={"ok": 5, "limited": 1},
    num_reloads={"ok": 2}, cameras=(DOOR, YARD),
)  # fmt: skip
TIMES = StageTimes(decode_s=0.004, wait_s=0.006, infer_s=0.030, publish_s=0.001, total_s=0.041)
Samples = dict[str, float]


class Daemon:
    """Whose status may be changed."""

    def __init__(self, status: Status = STATUS) -> None:
        self.status = status
        self.metrics = Metrics(lambda: self.status, {"torch": "2.11.0"})

    def change(self, **changes: Any) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    def families(self) -> list[Metric]:
        return list(parse_plain(self.metrics.exposition()[0].decode()))

    def scrape(self) -> Samples:
        """Sample by `name{label="value",...}`, without the prefix."""
        return {key: sample.value for metric in self.families() for key, sample in keyed(metric)}


def keyed(metric: Metric) -> Iterator[tuple[str, Any]]:
    for sample in metric.samples:
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        yield sample.name.removeprefix("sam2_stream_") + (f"{{{labels}}}" if labels else ""), sample


def test_every_figure_of_the_status_is_told() -> None:
    daemon = Daemon()
    daemon.metrics.observe("door", TIMES)
    samples = daemon.scrape()
    expected = {
        "live": 1, "ready": 1, "problem": 0, "cameras": 2, "cameras_watched": 4,
        "commands_total{outcome=ok}": 5, "commands_total{outcome=limited}": 1, "commands_total{outcome=busy}": 0,
        "config_reloads_total{outcome=ok}": 2, "config_reloads_total{outcome=refused}": 0,
        "camera_up{camera=door}": 1, "camera_up{camera=yard}": 0,
        "camera_condition{camera=door,condition=online}": 1, "camera_condition{camera=door,condition=offline}": 0,
        "camera_condition{camera=yard,condition=online}": 0, "camera_condition{camera=yard,condition=offline}": 1,
        "camera_epoch{camera=door}": 2, "last_frame_age_seconds{camera=door}": 0.25,
        "objects{camera=door,state=tracked}": 2, "objects{camera=door,state=lost}": 1,
        "objects{camera=door,state=occluded}": 0, "objects{camera=yard,state=tracked}": 0,
        "frames_decoded_total{camera=door}": 100, "frames_published_total{camera=door}": 90,
        "frames_dropped_total{camera=door,reason=replaced}": 7, "frames_dropped_total{camera=door,reason=corrupt}": 3,
        "reconnects_total{camera=door}": 3, "capture_threads_abandoned_total{camera=door}": 1,
        "camera_info{camera=door,clock_source=arrival,codec=h264 (High),decoder=ffmpeg,size=1920x1080}": 1,
        "frame_latency_seconds_count{camera=door}": 1, "frame_latency_seconds_sum{camera=door}": 0.041,
        "frame_latency_seconds_bucket{camera=door,le=0.035}": 0, "frame_latency_seconds_bucket{camera=door,le=0.05}": 1,
        "frame_latency_seconds_bucket{camera=door,le=+Inf}": 1,
        "frame_stage_seconds_sum{camera=door,stage=decode}": 0.004,
        "frame_stage_seconds_sum{camera=door,stage=wait}": 0.006,
        "frame_stage_seconds_sum{camera=door,stage=infer}": 0.030,
        "frame_stage_seconds_bucket{camera=door,le=0.005,stage=publish}": 1,
    }  # fmt: skip
    assert {key: samples.get(key) for key in expected} == expected
    assert "last_frame_age_seconds{camera=yard}" not in samples, "there was no picture yet"
    assert sum(value for key, value in samples.items() if key.startswith("camera_condition{camera=door")) == 1
    assert samples["process_resident_memory_bytes"] > 1e6 and samples["process_cpu_seconds_total"] > 0
    [build] = [sample for metric in daemon.families() for sample in metric.samples if "build" in sample.name]
    assert build.labels.keys() == {"version", "model", "backend", "device", "dtype", "python", "torch"}
    assert build.labels["device"] == STATUS.device and build.labels["torch"] == "2.11.0", "odd characters are escaped"


@pytest.mark.parametrize("condition", list(CameraCondition))
def test_a_camera_is_up_while_its_pictures_arrive(condition: CameraCondition) -> None:
    daemon = Daemon()
    daemon.change(cameras=(msgspec.structs.replace(DOOR, condition=condition),))
    samples = daemon.scrape()
    assert samples["camera_up{camera=door}"] == (condition in ("online", "unprompted", "lost"))
    assert samples[f"camera_condition{{camera=door,condition={condition}}}"] == 1


def test_names_types_units_and_texts_follow_the_conventions_of_prometheus() -> None:
    daemon = Daemon()
    daemon.metrics.observe("door", TIMES)
    names = [metric.name for metric in daemon.families()]
    assert len(names) == len(set(names))
    for metric in daemon.families():
        assert re.fullmatch(r"(sam2_stream|process)_[a-z][a-z0-9_]*", metric.name)
        assert metric.documentation.endswith(".") and metric.samples, metric
        assert not re.search(r"_(ms|millis|milliseconds|ns|us|minutes|kb|mb|percent|count|sum|bucket)$", metric.name)
        assert metric.type in ("counter", "gauge", "histogram")
        seconds = [sample for sample in metric.samples if re.search("latency|stage|age|timestamp|cpu", sample.name)]
        assert all("_seconds" in sample.name for sample in seconds)
        for sample in metric.samples:
            assert sample.name.endswith("_total") == (metric.type == "counter")
            assert sample.labels.keys() <= {
                "camera", "condition", "state", "reason", "outcome", "stage", "le", "codec", "decoder", "clock_source",
                "size", "version", "model", "backend", "device", "dtype", "python", "torch",
            }  # fmt: skip


def test_openmetrics_is_given_to_whom_accepts_it() -> None:
    daemon = Daemon()
    daemon.metrics.observe("door", TIMES)
    plain, plain_type = daemon.metrics.exposition("text/html, */*;q=0.1")
    assert plain_type == "text/plain; version=0.0.4; charset=utf-8" and b"# EOF" not in plain
    text, text_type = daemon.metrics.exposition("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.4")
    assert text_type.startswith("application/openmetrics-text; version=1.0.0;")
    families = {metric.name: metric for metric in parse_openmetrics(text.decode())}  # a strict parser
    assert families["sam2_stream_frame_stage_seconds"].type == "histogram"
    assert families["sam2_stream_build"].type == "info"


def test_a_camera_that_is_gone_takes_its_series_along() -> None:
    daemon = Daemon()
    for camera in ("door", "yard"):
        daemon.metrics.observe(camera, TIMES)
    assert any("yard" in key for key in daemon.scrape())
    daemon.change(cameras=(DOOR,))
    daemon.metrics.observe("yard", TIMES)  # published a moment before it was removed
    assert not any("yard" in key for key in daemon.scrape())
    daemon.change(cameras=(DOOR, YARD))
    daemon.metrics.observe("yard", TIMES)
    assert daemon.scrape()["frame_latency_seconds_count{camera=yard}"] == 1


def test_a_counter_never_falls_while_its_series_exists() -> None:
    """A camera of the same name came anew between two scrapes."""
    daemon, key, reason = Daemon(), "frames_decoded_total{camera=door}", "frames_dropped_total{camera=door,reason=lost}"
    found = []
    for num_decoded, num_lost in ((0, 0), (60, 5), (100, 9), (5, 0), (20, 2), (3, 2), (3, 3)):
        camera = msgspec.structs.replace(DOOR, num_decoded=num_decoded, num_dropped={"lost": num_lost})
        daemon.change(cameras=(camera,))
        samples = daemon.scrape()
        found.append((samples[key], samples[reason]))
    assert found == [(0, 0), (60, 5), (100, 9), (105, 9), (120, 11), (123, 11), (123, 12)]
    daemon.change(cameras=())
    daemon.scrape()
    daemon.change(cameras=(camera,))
    assert daemon.scrape()[key] == 3, "a series that was gone begins anew"


def test_names_that_come_and_go_take_no_memory_without_scrapes() -> None:
    daemon = Daemon()
    for number in range(MAX_CAMERAS + 2):
        daemon.metrics.observe(f"camera{number}", TIMES)
    names = [f"camera{number}" for number in (0, 1, 2, MAX_CAMERAS + 1)]
    daemon.change(cameras=tuple(CameraStatus(name=name, source="") for name in names))
    samples = daemon.scrape()
    kept = [name for name in names if f"frame_latency_seconds_count{{camera={name}}}" in samples]
    assert kept == ["camera2", f"camera{MAX_CAMERAS + 1}"], "of too many, those that came first are forgotten"


def test_nothing_is_lost_while_it_is_observed_and_scraped_at_once() -> None:
    daemon, num = Daemon(), 2000
    observers = [
        threading.Thread(target=lambda: [daemon.metrics.observe("door", TIMES) for _ in range(num)]) for _ in range(3)
    ]
    for observer in observers:
        observer.start()
    counts = [daemon.scrape().get("frame_latency_seconds_count{camera=door}", 0.0) for _ in range(10)]
    for observer in observers:
        observer.join()
    assert counts == sorted(counts)
    samples = daemon.scrape()
    assert samples["frame_latency_seconds_count{camera=door}"] == 3 * num
    assert samples["frame_stage_seconds_bucket{camera=door,le=+Inf,stage=wait}"] == 3 * num
    assert samples["frame_latency_seconds_sum{camera=door}"] == pytest.approx(3 * num * TIMES.total_s)


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, "0.005"), (0.005, "0.005"), (0.0051, "0.01"), (99.0, "+Inf")])
def test_a_duration_counts_from_its_bucket_on(seconds: float, bound: str) -> None:
    daemon = Daemon()
    daemon.metrics.observe("door", StageTimes(*[seconds] * 5))
    buckets = {key: value for key, value in daemon.scrape().items() if key.startswith("frame_latency_seconds_bucket")}
    below = [float(key.partition("le=")[2][:-1]) for key, value in buckets.items() if value == 1]
    assert min(below) == float(bound) and len(buckets) == 15 and sum(buckets.values()) == len(below)
