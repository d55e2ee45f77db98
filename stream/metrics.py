"""The daemon's figures for Prometheus: `Metrics` turns a `Status` into them at each scrape, and keeps the histograms.

Owns: the names, types and buckets of all metrics, and how long each stage took, by camera. Thread: any thread
scrapes; the pub thread observes. Never: waits for another thread, or keeps figures of a camera that is gone.

Names begin with `sam2_stream_`, those of the process (`process_*`) excepted. A camera that is removed takes its series
along. Where one of the same name came again between two scrapes, its counters go on from where they stood: a counter
never falls while its series exists.
"""

from __future__ import annotations

import bisect
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from stream.frame import CameraCondition, ObjectState, StageTimes
from stream.status import CameraStatus, Status

PREFIX = "sam2_stream_"
BOUNDS_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGES = ("decode", "wait", "infer", "publish")
OUTCOMES = ("ok", "refused", "busy", "unknown", "stale", "forbidden", "limited", "stopping", "malformed")
RELOADS = ("ok", "refused")
PRODUCING = (CameraCondition.ONLINE, CameraCondition.UNPROMPTED, CameraCondition.LOST)
MAX_CAMERAS = 1024  # with histograms; of more, the one observed first is forgotten
OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
CAMERA_COUNTERS: tuple[tuple[str, str, Callable[[CameraStatus], int]], ...] = (
    ("frames_decoded", "Pictures that came from the camera.", lambda camera: camera.num_decoded),
    ("frames_published", "Pictures whose masks were published.", lambda camera: camera.num_published),
    ("reconnects", "Times that the source was opened again.", lambda camera: camera.num_reconnects),
    (
        "capture_threads_abandoned",
        "Capture threads that never came back from a call.",
        lambda camera: camera.num_abandoned,
    ),
)


class Histogram:
    """How many durations fell under each bound, and their sum. Written under the lock of `Metrics`."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def put(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as the exposition wants them."""
        total, found = 0, []
        for bound_s, count in zip((*BOUNDS_S, float("inf")), self.counts, strict=True):
            total += count
            found.append((str(bound_s) if bound_s < float("inf") else "+Inf", float(total)))
        return found


class Rising:
    """Counts that go on from where they stood when what counts began anew. Written under the lock of `Metrics`."""

    __slots__ = ("_before", "_now")

    def __init__(self) -> None:
        self._before: dict[tuple[str, ...], tuple[int, int]] = {}  # by series: the count, what is added to it
        self._now: dict[tuple[str, ...], tuple[int, int]] = {}

    def value(self, series: tuple[str, ...], count: int) -> int:
        last, added = self._before.get(series, (0, 0))
        self._now[series] = count, added + (last if count < last else 0)
        return sum(self._now[series])

    def end_round(self) -> None:
        """Forget the series that were not asked for since the last time."""
        self._before, self._now = self._now, {}


class Metrics(Collector):
    """Every field is written under `_lock`.

    `status` is asked at each scrape, in the thread that scrapes. `versions` are those of the programs below, such as
    {"torch": "2.11.0"}: labels of `sam2_stream_build_info`.
    """

    def __init__(self, status: Callable[[], Status], versions: Mapping[str, str] | None = None) -> None:
        self._status = status
        self._versions = {"python": platform.python_version(), **(versions or {})}
        self._lock = threading.Lock()
        self._histograms: dict[str, dict[str, Histogram]] = {}  # by camera, by stage; "" is all of them together
        self._rising = Rising()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, camera: str, times: StageTimes) -> None:
        """One published picture."""
        with self._lock:
            stages = self._histograms.get(camera)
            if stages is None:
                while len(self._histograms) >= MAX_CAMERAS:
                    del self._histograms[next(iter(self._histograms))]
                stages = self._histograms[camera] = {stage: Histogram() for stage in ("", *STAGES)}
            stages[""].put(times.total_s)
            for stage, seconds in zip(
                STAGES, (times.decode_s, times.wait_s, times.infer_s, times.publish_s), strict=True
            ):
                stages[stage].put(seconds)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The text of one scrape and its content type; OpenMetrics for whom accepts that."""
        if OPENMETRICS in accept:
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(self._registry), PLAIN

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        status = self._status()
        with self._lock:
            known = {camera.name for camera in status.cameras}
            self._histograms = {name: stages for name, stages in self._histograms.items() if name in known}
            metrics = [*self._of_daemon(status), *self._of_cameras(status.cameras), *self._of_stages()]
        return iter(metrics)

    def _of_daemon(self, status: Status) -> Iterator[Metric]:
        build = {
            "version": status.software, "model": status.model, "backend": status.backend, "device": status.device,
            "dtype": status.dtype, **self._versions,
        }  # fmt: skip
        yield InfoMetricFamily(f"{PREFIX}build", "What runs here, and on what.", value=build)
        yield _gauge("live", "1 while every loop turns.", status.is_live)
        yield _gauge(
            "ready", "1 while the model is loaded and a camera produces, or none is configured.", status.is_ready
        )
        yield _gauge("problem", "1 while the operator must mend something; /status says what.", bool(status.problem))
        yield _gauge("cameras", "Cameras that the daemon has.", len(status.cameras))
        yield _gauge("cameras_watched", "Cameras whose pictures somebody takes.", status.num_watched)
        commands = dict.fromkeys(OUTCOMES, 0) | status.num_commands
        yield _outcomes("commands", "Commands by outcome.", commands)
        reloads = dict.fromkeys(RELOADS, 0) | status.num_reloads
        yield _outcomes("config_reloads", "Times that the configuration was read again, by outcome.", reloads)

    def _of_cameras(self, cameras: tuple[CameraStatus, ...]) -> Iterator[Metric]:
        yield from _states_of(cameras)
        for name, text, count in CAMERA_COUNTERS:
            family = CounterMetricFamily(PREFIX + name, text, labels=["camera"])
            for camera in cameras:
                family.add_metric([camera.name], self._rising.value((name, camera.name), count(camera)))
            yield family
        dropped = CounterMetricFamily(
            f"{PREFIX}frames_dropped", "Pictures that were lost, by reason.", labels=["camera", "reason"]
        )
        for camera in cameras:
            for reason, number in camera.num_dropped.items():
                labels = camera.name, reason
                dropped.add_metric(labels, self._rising.value(("frames_dropped", *labels), number))
        yield dropped
        self._rising.end_round()

    def _of_stages(self) -> Iterator[Metric]:
        total = HistogramMetricFamily(
            f"{PREFIX}frame_latency_seconds", "From a picture's arrival to its masks' publication.", labels=["camera"]
        )
        stage = HistogramMetricFamily(
            f"{PREFIX}frame_stage_seconds",
            "Time of a picture in each stage: decode, wait for the model, infer, publish.",
            labels=["camera", "stage"],
        )
        for camera, histograms in self._histograms.items():
            for name, histogram in histograms.items():
                family, labels = (stage, [camera, name]) if name else (total, [camera])
                family.add_metric(labels, histogram.buckets(), histogram.sum_s)
        yield total
        yield stage


def _states_of(cameras: tuple[CameraStatus, ...]) -> Iterator[Metric]:
    up = _family("camera_up", "1 while pictures arrive from the camera.")
    condition = _family("camera_condition", "1 for what the camera is now, 0 for what it is not.", "condition")
    epoch = _family("camera_epoch", "Rises whenever the memory of the camera's objects was dropped.")
    seen = _family("last_frame_timestamp_seconds", "Unix time at which the last picture was decoded.")
    age = _family("last_frame_age_seconds", "Time since the last picture was decoded.")
    objects = _family("objects", "Objects by state, on the camera's last processed picture.", "state")
    info = InfoMetricFamily(f"{PREFIX}camera", "What the camera sends.", labels=["camera"])
    for camera in cameras:
        up.add_metric([camera.name], camera.condition in PRODUCING)
        epoch.add_metric([camera.name], camera.epoch)
        for name in CameraCondition:
            condition.add_metric([camera.name, name], camera.condition == name)
        for state in ObjectState:
            objects.add_metric([camera.name, state], sum(item.state == state for item in camera.objects))
        info.add_metric(
            [camera.name],
            {
                "codec": camera.codec,
                "decoder": camera.decoder,
                "clock_source": camera.clock_source,
                "size": f"{camera.width}x{camera.height}",
            },
        )
        if camera.last_frame_age_s is not None:
            age.add_metric([camera.name], camera.last_frame_age_s)
            seen.add_metric([camera.name], time.time() - camera.last_frame_age_s)
    yield from (up, condition, epoch, seen, age, objects, info)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=["camera", *labels])


def _outcomes(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=["outcome"])
    for outcome, count in counts.items():
        family.add_metric([outcome], count)
    return family
