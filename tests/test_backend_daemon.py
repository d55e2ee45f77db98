"""A real daemon tells everywhere which backend it runs on, and never what it was merely configured to."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import msgspec
from daemon_rig import daemon

from stream.client import Info, MasksMessage, Message, StateMessage, Subscriber
from stream.controller import Controller
from stream.status import Status

LIMIT_S = 60.0
CAMERA = """
[[camera]]
name = "a"
source = "testsrc://?width=320&height=240&fps=4"
"""


def latest(endpoint: str) -> dict[type[Message], Message]:
    """Of masks, state and info one each, of a daemon that runs."""
    found: dict[type[Message], Message] = {}
    with Subscriber(endpoint, newest_only=False, timeout_s=LIMIT_S) as subscriber:
        while MasksMessage not in found:
            message = subscriber.receive().message
            found[type(message)] = message
        found |= {StateMessage: subscriber.states["a"], Info: subscriber.info}
    return found


def test_masks_states_info_status_and_metrics_tell_the_backend_in_use(tmp_path: Path, unused_tcp_port: int) -> None:
    http = f"127.0.0.1:{unused_tcp_port}"
    with (
        daemon(tmp_path, f'http = "{http}"\ndtype = "fp32"\n{CAMERA}') as running,
        Controller(f"{running.endpoint}-control", timeout_s=LIMIT_S) as control,
    ):
        found = latest(running.endpoint)
        told = control.status()
        with urlopen(f"http://{http}/status", timeout=LIMIT_S) as answer:
            served = msgspec.json.decode(answer.read(), type=Status)
        with urlopen(f"http://{http}/metrics", timeout=LIMIT_S) as answer:
            metrics = answer.read().decode()
    backends = {told.backend, served.backend, *(message.backend for message in found.values())}  # type: ignore[attr-defined]
    assert backends in ({"compiled"}, {"eager"}), "one, and not auto"
    [backend] = backends
    assert told.dtype == "float32" and told.choice.startswith(f"{backend}, ") and "against fp32 IoU" in told.choice
    assert told.problem == ""
    [build] = [line for line in metrics.splitlines() if line.startswith("sam2_stream_build_info{")]
    assert f'backend="{backend}"' in build and 'dtype="float32"' in build
    assert f"nano on cpu: {told.choice}" in running.log.read_text(encoding="utf-8")


def test_a_backend_that_is_named_and_not_installed_ends_the_daemon_with_the_command(tmp_path: Path) -> None:
    with daemon(tmp_path, f'backend = "tensorrt"\ndevice = "cpu"\n{CAMERA}') as running:
        assert running.process.wait(LIMIT_S) == 78
        said = [
            line for line in running.log.read_text(encoding="utf-8").splitlines() if line.startswith("sam2-stream:")
        ]
    assert len(said) == 1 and "backend is 'tensorrt'" in said[0] and "pip install" in said[0]
