"""The status of a daemon as a table that a person can read.

Owns: which figures are shown, and their units. Runs in the main thread. Never: takes a name, label or reason for
markup.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream.status import CameraStatus, ObjectStatus, Status

MIN_WIDTH = 120  # characters, where there is no terminal
COLOURS = {"online": "green", "offline": "red", "frozen": "red", "lost": "yellow", "unprompted": "yellow"}
COLUMNS = ("camera", "condition", "since", "fps in", "fps out", "age", "dropped", "reconnects", "objects")
MAX_OBJECTS = 8  # named in a row


def make_console() -> Console:
    """As wide as the terminal; elsewhere wide enough for a row."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=max(MIN_WIDTH, console.width))


def render(status: Status) -> RenderableType:
    """The daemon in two lines, and one row for each camera."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        is_number = name in ("since", "fps in", "fps out", "age", "dropped", "reconnects")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name == "camera")
    for camera in status.cameras:
        table.add_row(*_row(camera))
    lines: list[RenderableType] = [*_head(status), table]
    return Group(*lines, *([] if status.cameras else [Text("no camera: sam2-stream camera add NAME rtsp://...")]))


def _head(status: Status) -> list[Text]:
    state = "ready" if status.is_ready else "live, not ready" if status.is_live else "not live"
    colour = "green" if status.is_ready else "red"
    where = " ".join(part for part in (status.device, status.dtype) if part) or "not loaded yet"
    name = " ".join(part for part in ("sam2-stream", status.software) if part)
    first = Text.assemble(
        (name, "bold"), " is ", (state, colour), f", up {duration(status.uptime_s)}; ",
        f"{status.model or 'no model'} ({status.backend or 'no back end'}) on {where}",
    )  # fmt: skip
    num_refused = sum(num for code, num in status.num_commands.items() if code != "ok")
    second = Text(
        f"masks sent {status.num_published}, cameras watched {status.num_watched}, objects {status.num_objects}, "
        f"commands done {status.num_commands.get('ok', 0)}, not done {num_refused}, "
        f"memory {status.memory_bytes / (1 << 20):.0f} MiB, process {status.pid}"
    )
    problem = [Text(f"to mend: {status.problem}", style="red")] if status.problem else []
    advice = [Text(f"{camera.name}: {camera.advice}", style="yellow") for camera in status.cameras if camera.advice]
    return [first, second, *problem, *advice]


def _row(camera: CameraStatus) -> list[Text]:
    condition = Text(camera.condition, style=COLOURS.get(camera.condition, ""))
    if camera.reason and camera.condition != "online":
        condition.append(f" ({camera.reason})")
    worst = max(camera.num_dropped, key=lambda reason: camera.num_dropped[reason], default="")
    num_dropped = sum(camera.num_dropped.values())
    return [
        Text(camera.name),
        condition,
        Text(duration(camera.since_s)),
        Text(f"{camera.fps_in:.1f}"),
        Text(f"{camera.fps_out:.1f}"),
        Text("never" if camera.last_frame_age_s is None else duration(camera.last_frame_age_s)),
        Text(f"{num_dropped} ({worst})" if num_dropped else "0"),
        Text(str(camera.num_reconnects)),
        Text(", ".join(map(_object, camera.objects[:MAX_OBJECTS])) + ", ..." * (len(camera.objects) > MAX_OBJECTS)),
    ]


def _object(item: ObjectStatus) -> str:
    name = f"{item.id} {item.label}".rstrip()
    return name if item.state in ("tracked", "reacquired") else f"{name} ({item.state} {duration(item.last_seen_s)})"


def duration(seconds: float) -> str:
    """Two figures at most: 40 ms, 3.2 s, 12 s, 5 min, 3 h 20 min, 4 d 2 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
