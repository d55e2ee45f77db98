"""Does the daemon grow? Two RTSP cameras, people who click, a viewer and a scraper, for an hour.

Two GStreamer servers send generated clips in a loop (H.264, real time); one of them is killed and comes back every ten
minutes. A daemon in a process of its own follows two objects a camera on nano. Meanwhile a subscriber takes masks and
pictures, every 20 s a command adds, corrects, undoes or removes an object, and `/metrics` is read every sample. What
is sampled: resident memory, threads, open files, pictures in and out, age, drops, reconnects. The last line is one
JSON object; flat means a slope near zero from the tenth minute on.

    python benchmarks/soak.py [--minutes 60] [--save FILE]      # needs the apt packages of tests/rtsp.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from daemon_rig import DaemonProcess, daemon, prompts, write_clip
from rtsp import RtspServer

from engines.synthetic import ClipSpec
from stream.client import FrameMessage, MasksMessage, Subscriber
from stream.controller import CommandRefused, Controller, control_endpoint

SAMPLE_S, COMMAND_S, OUTAGE_S, WARM_UP_S = 10.0, 20.0, 600.0, 600.0
HTTP_PORT = 19464


class Watcher:
    """A subscriber with pictures, in a thread of its own; counts what came. Written by that thread."""

    def __init__(self, endpoint: str) -> None:
        self.num_masks, self.num_frames, self.num_lost = 0, 0, 0
        self.ages_ms: list[float] = []
        self.run = 0
        self._endpoint = endpoint
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        with Subscriber(self._endpoint, newest_only=False, frames=True, timeout_s=0.5) as subscriber:
            while not self._stopping.is_set():
                try:
                    message = subscriber.receive().message
                except TimeoutError:
                    continue
                self.num_frames += isinstance(message, FrameMessage)
                if isinstance(message, MasksMessage):
                    self.num_masks += 1
                    self.ages_ms = [*self.ages_ms[-999:], message.age_ms()]
                self.num_lost = sum(subscriber.counts(name).num_lost for name in ("one", "two"))


class Person:
    """Adds, corrects, undoes and removes an object, one command after the other."""

    def __init__(self, controller: Controller) -> None:
        self.num_commands, self.num_refused = 0, 0
        self._controller = controller
        self._steps = self._orders()

    def act(self) -> None:
        self.num_commands += 1
        try:
            next(self._steps)()
        except (CommandRefused, TimeoutError) as error:
            self.num_refused += 1
            print(f"command {self.num_commands}: {error}", file=sys.stderr)

    def _orders(self) -> Any:
        control, camera = self._controller, 0
        while True:
            camera = 1 - camera
            name = ("one", "two")[camera]
            yield lambda name=name: control.add(name, points=[(320, 240, 1)], object_id=9, label="clicked")
            yield lambda name=name: control.refine(name, 9, points=[(330, 250, 1), (10, 10, 0)])
            yield lambda name=name: control.undo(name)
            yield lambda name=name: control.remove(name, 9)


def sample(pid: int, started_s: float) -> dict[str, float]:
    """What the process holds, and what it says of itself."""
    statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/status", timeout=10) as answer:
        status = json.load(answer)
    with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/metrics", timeout=10) as answer:
        num_lines = len(answer.read().splitlines())
    found: dict[str, float] = {
        "seconds": time.monotonic() - started_s,
        "rss_mb": int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "metric_lines": num_lines,
        "objects": status["num_objects"],
    }
    for camera in status["cameras"]:
        found |= {f"{camera['name']}_{key}": camera[key] for key in ("fps_in", "fps_out", "num_reconnects")}
        found[f"{camera['name']}_dropped"] = sum(camera["num_dropped"].values())
        found[f"{camera['name']}_published"] = camera["num_published"]
    return found


def slope(samples: list[dict[str, float]], key: str) -> float:
    """Per hour, by least squares, after the warm-up."""
    late = [s for s in samples if s["seconds"] >= min(WARM_UP_S, samples[-1]["seconds"] / 3)]
    if len(late) < 2:
        return 0.0
    return float(np.polyfit([s["seconds"] / 3600 for s in late], [s[key] for s in late], 1)[0])


def soak(running: DaemonProcess, servers: list[RtspServer], seconds: float) -> dict[str, Any]:
    samples: list[dict[str, float]] = []
    with Subscriber(running.endpoint, [], timeout_s=60) as subscriber:
        while subscriber.info is None or not subscriber.info.control:
            subscriber.receive()
        control = control_endpoint(running.endpoint, subscriber.info)
    with Watcher(running.endpoint) as watcher, Controller(control) as controller:
        person = Person(controller)
        started_s = time.monotonic()
        jobs: list[tuple[float, Callable[[], object]]] = [
            (SAMPLE_S, lambda: samples.append(sample(running.process.pid, started_s))),
            (COMMAND_S, person.act),
            (OUTAGE_S, lambda: outage(servers[1])),
        ]
        due = [period for period, _ in jobs]
        while (now := time.monotonic() - started_s) < seconds:
            for index, (period, job) in enumerate(jobs):
                if now >= due[index]:
                    job()
                    due[index] += period
            if running.process.poll() is not None:
                raise SystemExit(f"the daemon ended with {running.process.returncode} after {now:.0f} s")
            time.sleep(0.5)
        ages = np.percentile(watcher.ages_ms, (50, 99)).round(1).tolist()
        return {
            "minutes": round(seconds / 60, 1), "samples": samples, "commands": person.num_commands,
            "commands_refused": person.num_refused, "masks_received": watcher.num_masks,
            "frames_received": watcher.num_frames, "masks_lost_on_the_way": watcher.num_lost,
            "age_ms_p50_p99_of_the_last_1000": ages,
            "slopes_per_hour": {key: round(slope(samples, key), 2) for key in ("rss_mb", "threads", "files")},
        }  # fmt: skip


def outage(server: RtspServer) -> None:
    """As when the power fails for three seconds."""
    server.kill()
    time.sleep(3)
    server.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specs = [ClipSpec(seed=seed, num_frames=300, num_objects=2, width=640, height=480) for seed in (11, 12)]
        clips = [write_clip(folder / f"{i}.mkv", spec, codec="ffv1", fps=10) for i, spec in enumerate(specs)]
        with RtspServer(folder / "0.mkv", loop=True) as one, RtspServer(folder / "1.mkv", loop=True) as two:
            config = f'http = "127.0.0.1:{HTTP_PORT}"\nstate = "{folder}/state"\n'
            for camera, server, clip in zip(("one", "two"), (one, two), clips, strict=True):
                config += f'[[camera]]\nname = "{camera}"\nsource = "{server.url}"\n{prompts(clip)}'
            with daemon(folder, config) as running:
                result = soak(running, [one, two], 60 * options.minutes)
                code, seconds = running.end()
                result |= {"exit_code": code, "stop_s": round(seconds, 2)}
    result |= {"machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"}
    result["samples"] = [{key: round(value, 2) for key, value in one.items()} for one in result["samples"][::6]]
    text = json.dumps(result)
    if options.save:
        options.save.write_text(text + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}))


if __name__ == "__main__":
    main()
