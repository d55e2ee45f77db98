"""`prompt`, `camera` and `status`: what is typed is what is sent, and every failure is one line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from control_rig import Rig, controlling
from deliveries import publishing, wait_for
from rich.console import Console

from stream import command, wire
from stream.cli.status_table import duration, render
from stream.command import Reply, SentMask
from stream.status import CameraStatus, ObjectStatus, Status

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, Rig]]:
    """Where a daemon publishes, and its control thread."""
    with controlling() as rig, publishing(info=wire.Info(control=rig.endpoint)) as publisher:
        yield publisher.endpoints[0], rig


@pytest.fixture
def endpoint(pair: tuple[str, Rig]) -> Iterator[str]:
    pair[1].obeying.taken.clear()
    yield pair[0]


def taken(pair: tuple[str, Rig]) -> command.Request:
    (request,) = pair[1].obeying.taken
    return request


PROMPTS: dict[str, tuple[str, dict[str, object], str]] = {
    "add by points": (
        "add --point 3,4 --point 5.5,6,0 --label cup",
        {"points": ((3.0, 4.0, 1), (5.5, 6.0, 0)), "label": "cup", "object_id": None},
        "object 3 added",
    ),
    "add by box": ("add --box 1,2,3,4 --id 7", {"box": (1.0, 2.0, 3.0, 4.0), "object_id": 7}, "object 3 added"),
    "refine": ("refine --id 3 --point 1,2,0", {"points": ((1.0, 2.0, 0),), "object_id": 3}, "object 3 refined"),
    "remove": ("remove --id 3", {"object_id": 3}, "object 3 removed"),
    "rename": ("rename --id 2 --new-id 3", {"object_id": 2, "new_id": 3, "label": None}, "object 3 renamed"),
    "label": ("rename --id 3 --label pan", {"label": "pan", "new_id": None}, "object 3 renamed"),
    "reset": ("reset", {}, "reset done"),
    "undo": ("undo", {}, "undo done"),
}


@pytest.mark.parametrize(("words", "fields", "text"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_is_sent_as_it_is_typed(
    call: Callable[..., Outcome], pair: tuple[str, Rig], endpoint: str, words: str, fields: dict[str, object], text: str
) -> None:  # fmt: skip
    code, out, err = call("prompt", endpoint, "cam1", *words.split())
    assert (code, out, err) == (0, f"cam1: {text}\n", "")
    request = taken(pair)
    assert type(request).__name__.lower() == words.split()[0]
    assert {"camera": "cam1"} | fields == {name: getattr(request, name) for name in ("camera", *fields)}


def test_a_mask_is_read_from_a_picture(
    call: Callable[..., Outcome], pair: tuple[str, Rig], endpoint: str, tmp_path: Path
) -> None:
    mask_hw = np.zeros((48, 64), np.uint8)
    mask_hw[3:9, 5:20] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask_hw)
    assert call("prompt", endpoint, "cam1", "add", "--mask", str(tmp_path / "m.png"))[0] == 0
    assert taken(pair).mask == SentMask.of(mask_hw > 0)  # type: ignore[attr-defined]
    code, _, err = call("prompt", endpoint, "cam1", "add", "--mask", str(tmp_path / "none.png"))
    assert code == 2 and "expected a picture" in err


@pytest.mark.parametrize(
    ("words", "fields", "text"),
    [
        ("add new rtsp://h/1 --max-fps 5", {"source": "rtsp://h/1", "max_fps": 5.0, "rtsp_transport": "tcp"}, "added"),
        ("remove cam2", {"camera": "cam2"}, "removed"),
        ("pause cam1", {"camera": "cam1"}, "paused"),
        ("resume cam1", {"camera": "cam1"}, "resumed"),
    ],
)
def test_a_camera_command_is_sent_as_it_is_typed(
    call: Callable[..., Outcome], pair: tuple[str, Rig], endpoint: str, words: str, fields: dict[str, object], text: str
) -> None:  # fmt: skip
    code, out, err = call("camera", endpoint, *words.split())
    assert (code, out, err) == (0, f"{words.split()[1]}: {text}\n", "")
    assert {name: getattr(taken(pair), name) for name in fields} == fields


def test_a_source_may_come_by_the_standard_input(
    call: Callable[..., Outcome], pair: tuple[str, Rig], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("rtsp://joe:geheim@h/1\n"))
    assert call("camera", endpoint, "add", "new", "-") == (0, "new: added\n", "")
    assert taken(pair).source == "rtsp://joe:geheim@h/1"  # type: ignore[attr-defined]


def test_cameras_are_listed(call: Callable[..., Outcome], endpoint: str) -> None:
    assert call("camera", endpoint, "list") == (0, "cam1: offline, testsrc://\ncam2: offline, testsrc://\n", "")


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        ("prompt ENDPOINT cam1 dance", 2, "one of add, refine, remove, rename, reset, undo"),
        ("prompt ENDPOINT cam1", 2, "expected CAMERA ACTION"),
        ("prompt ENDPOINT", 2, "expected CAMERA ACTION"),
        ("prompt ENDPOINT cam1 add more", 2, "expected CAMERA ACTION"),
        ("prompt ENDPOINT cam1 add", 2, "add: expected --point, --box, --mask"),
        ("prompt ENDPOINT cam1 refine --point 1,2", 2, "refine: expected --id"),
        ("prompt ENDPOINT cam1 refine --id 1", 2, "refine: expected --point"),
        ("prompt ENDPOINT cam1 remove", 2, "remove: expected --id"),
        ("prompt ENDPOINT cam1 rename --id 1", 2, "expected --label or --new-id"),
        ("prompt ENDPOINT cam1 reset --id 1", 2, "reset does not take --id"),
        ("prompt ENDPOINT cam1 remove --id 1 --label x", 2, "remove does not take --label; expected --id"),
        ("prompt ENDPOINT cam1 add --point 1", 2, "--point = '1': expected x,y"),
        ("prompt ENDPOINT cam1 add --point 1,2,3", 2, "--point = '1,2,3': expected x,y"),
        ("prompt ENDPOINT cam1 add --point 2:1,2", 2, "--point = '2:1,2': expected x,y"),
        ("prompt ENDPOINT cam1 add --box 3,2,1,4", 2, "with x0 < x1"),
        ("prompt ENDPOINT cam1 add --point nan,2", 1, "$.points[0][0]"),
        ("prompt ENDPOINT cam9 reset", 1, "camera cam9: expected one of: cam1, cam2"),
        ("prompt ENDPOINT cam1 add --box 1,2,3,4 --id x", 2, "--id"),
        ("camera ENDPOINT dance", 2, "one of add, remove, pause, resume, list"),
        ("camera ENDPOINT add new", 2, "expected add NAME SOURCE"),
        ("camera ENDPOINT pause", 2, "expected pause NAME"),
        ("camera ENDPOINT list cam1", 2, "expected list"),
        ("camera ENDPOINT add new file:///etc/passwd", 1, "expected rtsp://, rtsps://, https://"),
        ("camera ENDPOINT add new rtsp://h --rtsp-transport x", 2, "expected tcp or udp"),
        ("status tcp://127.0.0.1:9 --timeout 0.2", 1, "no message from tcp://127.0.0.1:9"),
        ("status ENDPOINT --control tcp://127.0.0.1:9 --timeout 0.2", 1, "no answer from tcp://127.0.0.1:9"),
        ("status nowhere", 1, "expected tcp://HOST:PORT or ipc://PATH"),
        ("status ENDPOINT --key none.key", 1, "none.key"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    call: Callable[..., Outcome], endpoint: str, words: str, exit_code: int, text: str
) -> None:
    code, out, err = call(*words.replace("ENDPOINT", endpoint).split())
    assert (code, out) == (exit_code, "") and text in err, err
    assert err.count("\n") == 1 and err.startswith("sam2-stream: ")


def test_a_daemon_that_takes_no_commands_says_so(call: Callable[..., Outcome]) -> None:
    with publishing() as publisher:
        code, _, err = call("status", publisher.endpoints[0])
        assert code == 1 and "does not say where it takes commands" in err


def test_what_the_daemon_notes_is_told(call: Callable[..., Outcome], pair: tuple[str, Rig], endpoint: str) -> None:
    before = pair[1].obeying.answer
    pair[1].obeying.answer = lambda item: item.answer(Reply(object_id=4, note="the newest picture was taken"))
    try:
        assert call("prompt", endpoint, "cam1", "undo")[1] == "cam1: undo done (the newest picture was taken)\n"
    finally:
        pair[1].obeying.answer = before


# --- status ----------------------------------------------------------------------------------------------------------

FULL = Status(
    software="0.2", run=7, pid=42, uptime_s=3 * 3600 + 20 * 60, model="nano", backend="eager", device="cpu",
    dtype="fp32", is_live=True, is_ready=True, problem="the new configuration was refused", num_watched=2,
    num_published=1000, num_commands={"ok": 5, "busy": 2, "malformed": 1}, num_objects=3, memory_bytes=300 << 20,
    cameras=(
        CameraStatus(
            name="door", source="rtsp://***@h/1", condition="online", since_s=65, fps_in=29.97, fps_out=15.0,
            last_frame_age_s=0.04, num_dropped={"newer": 40, "corrupt": 2}, num_reconnects=3,
            objects=(ObjectStatus(id=1, label="[red]cup[/red]"), ObjectStatus(id=2, state="lost", last_seen_s=12.0)),
        ),
        CameraStatus(name="yard", source="x", condition="offline", reason="no answer for 3 s"),
    ),
)  # fmt: skip


def shown(status: Status, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(render(status))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_table_says_what_a_person_asks_for() -> None:
    text = shown(FULL)
    head, figures, problem, columns, door, yard = text.splitlines()
    assert head == "sam2-stream 0.2 is ready, up 3 h 20 min; nano (eager) on cpu fp32"
    assert figures == (
        "masks sent 1000, cameras watched 2, objects 3, commands done 5, not done 3, memory 300 MiB, process 42"
    )
    assert problem == "to mend: the new configuration was refused"
    assert columns.split() == ["camera", "condition", "since", "fps", "in", "fps", "out", "age", "dropped",
                               "reconnects", "objects"]  # fmt: skip
    assert door.split() == ["door", "online", "65", "s", "30.0", "15.0", "40", "ms", "42", "(newer)", "3", "1",
                            "[red]cup[/red],", "2", "(lost", "12", "s)"]  # fmt: skip
    assert "yard" in yard and "offline (no answer for 3 s)" in yard and "never" in yard


def test_a_daemon_without_cameras_says_what_to_do() -> None:
    assert "camera add NAME" in shown(Status(is_live=True)) and "live, not ready" in shown(Status(is_live=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.04, "40 ms"), (3.21, "3.2 s"), (12.3, "12 s"), (300, "5 min"), (12_000, "3 h 20 min"),
     (360_000, "4 d 4 h")],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_status_is_a_table_or_one_json_object(call: Callable[..., Outcome], endpoint: str) -> None:
    code, out, err = call("status", endpoint)
    assert (code, err) == (0, "") and "cam1" in out and "cam2" in out and "\x1b" not in out
    code, out, err = call("status", endpoint, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert [camera["name"] for camera in json.loads(out)["cameras"]] == ["cam1", "cam2"]


def test_watching_goes_on_until_it_is_interrupted(endpoint: str) -> None:
    line = [sys.executable, "-m", "stream.cli", "status", endpoint, "--watch", "--json", "--timeout", "30"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        wait_for(lambda: process.poll() is not None, 20)
        assert process.returncode == 0, process.stderr
    assert all(len(json.loads(text)["cameras"]) == 2 for text in lines)
