"""The cameras: who answers, what it sends, and what about that costs time.

Owns: one short-lived thread a camera while they are looked at (`look-<n>`). Never: shows a password, or looks longer
than told.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from stream.capture import SourceError
from stream.capture.picture import SourceRefused
from stream.capture.probe import StreamFacts, probe
from stream.config import CameraConfig
from stream.doctor.finding import Finding, broken, note, ok

MAX_AT_ONCE = 8
LONG_KEY_INTERVAL_S = 4.0
SHORTER = "set the camera's I-frame interval to 1 or 2 seconds"
NO_B_FRAMES = "switch them off in the camera (profile Baseline, or Main with 0 B-frames)"
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def cameras(configs: Sequence[CameraConfig], *, limit_s: float) -> Iterator[Finding]:
    """All of them, some at a time, in their order."""
    with ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="look") as threads:
        for found in threads.map(lambda config: tuple(camera(config, limit_s=limit_s)), configs):
            yield from found


def camera(config: CameraConfig, *, limit_s: float) -> Iterator[Finding]:
    """One camera."""
    subject = f"camera {config.name}"
    if config.source.startswith("push://"):
        yield note(subject, f"{config.source_shown}: its pictures come from another program, once the daemon runs")
        return
    try:
        facts = probe(config, limit_s=limit_s)
    except SourceRefused as error:
        yield broken(subject, str(error), *_login_fixes(config))
    except SourceError as error:
        yield broken(subject, str(error), *_reach_fixes(config))
    else:
        size, rate = f"{facts.width} x {facts.height}", f", {facts.fps:.3g} a second" if facts.fps else ""
        yield ok(subject, f"{config.source_shown}: {facts.codec}, {size}{rate}, the first after {facts.first_s:.1f} s")
        yield from _costs(subject, facts, limit_s)


def _costs(subject: str, facts: StreamFacts, limit_s: float) -> Iterator[Finding]:
    if not facts.num_packets or facts.codec.startswith("mjpeg"):
        return
    interval_s = facts.key_interval_s
    if interval_s is not None and interval_s <= LONG_KEY_INTERVAL_S:
        yield ok(subject, f"a key frame every {interval_s:.3g} s")
    else:
        seen = f"no two key frames within {limit_s:g} s" if interval_s is None else f"{interval_s:.3g} s to a key frame"
        yield note(subject, f"{seen}: after a reconnect nothing is seen before one comes; {SHORTER}")
    if facts.has_b_frames:
        yield note(subject, f"it sends B-frames, which arrive later than pictures that follow them; {NO_B_FRAMES}")


def _login_fixes(config: CameraConfig) -> tuple[str, ...]:
    name = (config.credential or config.name).removeprefix("camera_")
    file = shlex.quote(f"/etc/sam2-stream/credentials/{name}")
    return (
        f"sudo install -m 600 /dev/stdin {file}  # then type user:password, Enter, Ctrl-D",
        *_configured(config, name),
    )


def _configured(config: CameraConfig, name: str) -> tuple[str, ...]:
    return () if config.credential else (f'credential = "camera_{name}"  # below [[camera]] in the configuration',)


def _reach_fixes(config: CameraConfig) -> tuple[str, ...]:
    scheme, separator, rest = config.source.partition("://")
    if not separator:
        is_webcam = config.source.isdecimal() or config.source.startswith("/dev/")
        return ("v4l2-ctl --list-devices", "sudo usermod -aG video $USER") if is_webcam else ()
    try:
        parts = urlsplit(f"{scheme}://{rest.rpartition('@')[2]}")
        host, port = parts.hostname, parts.port or PORTS.get(scheme)
    except ValueError:
        return ()
    if not host or not port or rest.count("@") > 1:  # where the host begins is not clear, and a password may not show
        return ()
    return f"ping -c 3 {shlex.quote(host)}", f"nc -vz {shlex.quote(host)} {port}"
