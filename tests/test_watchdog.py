"""The watchdog and the health endpoints of a real daemon: whichever thread hangs, systemd hears no more."""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from unit_rig import ROOT, Service, service

from stream.client import Subscriber

PERIOD_S = 1.2
CONFIG = """
bind = ["ipc://RUN/masks"]
device = "cpu"
http = "127.0.0.1:{port}"
[[camera]]
name = "door"
source = "testsrc://?width=320&height=240&fps={fps}&seed=1"
[[camera.prompt]]
object_id = 1
points = [[160, 120, 1]]
"""


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ask_until(port: int, path: str, code: int, *, limit_s: float = 60.0) -> str:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found, text = ask(port, path)
        if found == code:
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} did not become {code} within {limit_s} s, but is {found}: {text}")


@pytest.mark.parametrize(("hung", "named"), [("gpu", "gpu"), ("pub", "pub"), ("control", "control"), ("cam", "main")])
def test_systemd_hears_no_more_when_a_thread_hangs(tmp_path: Path, hung: str, named: str, unused_tcp_port: int) -> None:
    program = [sys.executable, str(ROOT / "tests" / "hanging_daemon.py"), hung]
    config = CONFIG.format(port=unused_tcp_port, fps=5)
    with service(tmp_path, config, watchdog_s=PERIOD_S, program=program) as running:
        running.wait_for("READY=1")
        for _ in range(3):
            running.wait_for("WATCHDOG=1")
        running.process.send_signal(signal.SIGUSR1)
        assert running.systemd.silent_for("WATCHDOG=1", 1.5 * PERIOD_S), "a hung thread keeps systemd waiting"
        told = ask_until(unused_tcp_port, "/live", 503)
        assert told.startswith("hanging: ") and named in told, "and /live names it"
        assert running.process.poll() is None, "nobody but systemd ends it"
        running.process.send_signal(signal.SIGTERM)
        if hung == "cam":  # that is the main thread itself: only a second signal ends it
            time.sleep(0.5)
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == (128 + signal.SIGTERM if hung == "cam" else 75), "nor is it waited for"


def figures(port: int) -> dict[str, float]:
    """Sample by `name{label="value",...}`, without the prefix."""
    found = {}
    for metric in text_string_to_metric_families(ask(port, "/metrics")[1]):
        for sample in metric.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("sam2_stream_") + f"{{{labels}}}"] = sample.value
    return found


def wait_for_pictures(running: Service, port: int, number: int) -> dict[str, float]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = figures(port)
        if found["frames_published_total{camera=door}"] >= number:
            return found
        assert running.process.poll() is None, running.log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"not {number} pictures within 60 s: {found}")


def test_the_endpoints_tell_what_a_subscriber_saw(tmp_path: Path, unused_tcp_port: int) -> None:
    port = unused_tcp_port
    with service(tmp_path, CONFIG.format(port=port, fps=10), watchdog_s=PERIOD_S) as running:
        running.wait_for("READY=1")
        assert ask(port, "/live") == (200, "live\n")
        assert ask_until(port, "/ready", 200).startswith("ready")
        endpoint = f"ipc://{tmp_path}/run/sam2-stream/masks"
        key = "{camera=door}"
        with Subscriber(endpoint, newest_only=False, timeout_s=60) as reader:
            messages = [message for message, _ in zip(reader, range(20), strict=False)]
            last = messages[-1]
            found = wait_for_pictures(running, port, last.serial)
            scraped_ns = time.monotonic_ns()
            later = next(message for message in reader if message.published_ns > scraped_ns)
        assert [message.serial for message in messages] == list(range(messages[0].serial, last.serial + 1))
        assert last.serial <= found["frames_published_total" + key] <= later.serial
        assert found["frame_latency_seconds_count" + key] == found["frames_published_total" + key]
        assert found["frame_stage_seconds_count{camera=door,stage=infer}"] == found["frame_latency_seconds_count" + key]
        lost = found["frames_decoded_total" + key] - found["frames_published_total" + key]
        num_dropped = sum(value for name, value in found.items() if name.startswith("frames_dropped_total{camera=door"))
        assert -1 <= lost - num_dropped <= 4, "a picture that came is published, counted as dropped, or on its way"
        assert found["camera_up" + key] == 1 and 0 < found["last_frame_age_seconds" + key] < 30
        assert abs(found["last_frame_timestamp_seconds" + key] - time.time()) < 60
        states = ("tracked", "reacquired", "occluded", "lost")
        assert sum(found[f"objects{{camera=door,state={state}}}"] for state in states) == 1
        assert found["process_resident_memory_bytes{}"] > 50e6 and found["ready{}"] == found["live{}"] == 1

        status = json.loads(ask(port, "/status")[1])
        [camera] = status["cameras"]
        assert (
            camera["name"] == "door" and camera["num_published"] >= last.serial and status["pid"] == running.process.pid
        )
        assert (camera["width"], camera["height"]) == (320, 240) and status["run"] == last.run
        assert [item["id"] for item in camera["objects"]] == [item.id for item in last.objects] == [1]
        assert running.stop() == 0
