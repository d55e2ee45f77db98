"""`sam2-stream prompt`, `camera` and `status`: commands to a running daemon, and what it says of itself.

Owns: the options of these commands, and what they print. Runs in the main thread. Never: talks to a socket itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.failure import CommandFailed, told
from stream.cli.reading import DEFAULT, Endpoint, Key
from stream.cli.signals import stopping_event
from stream.config import marks_from_flags

if TYPE_CHECKING:
    from stream.controller import Controller, Reply

commands = typer.Typer()

PROMPTS = ("add", "refine", "remove", "rename", "reset", "undo")
CAMERAS = ("add", "remove", "pause", "resume", "list")
WATCH_S = 1.0
Control = Annotated[str | None, typer.Option(help="Where the daemon takes commands; what it says itself unless given.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Fail after so many seconds without an answer.")]
Point = Annotated[
    list[str] | None,
    typer.Option(help="A pixel on the object (label 0: beside it). May be repeated.", metavar="x,y[,label]"),
]
Box = Annotated[str | None, typer.Option(help="A box around the object, in pixels.", metavar="x0,y0,x1,y1")]
Mask = Annotated[Path | None, typer.Option(help="A picture of the camera's size, non-zero on the object.")]
Id = Annotated[int | None, typer.Option("--id", min=0, help="Which object; the daemon chooses for `add` unless given.")]


@commands.command()
def prompt(
    words: Annotated[list[str], typer.Argument(metavar="[ENDPOINT] CAMERA ACTION", show_default=False)],
    object_id: Id = None,
    point: Point = None,
    box: Box = None,
    mask: Mask = None,
    label: Annotated[str | None, typer.Option(help="What the object is called.")] = None,
    new_id: Annotated[int | None, typer.Option(min=0, help="Another id, for `rename`.")] = None,
    control: Control = None,
    key: Key = None,
    timeout: Timeout = 5.0,
) -> None:
    """Add, correct or remove objects: ACTION is add, refine, remove, rename, reset or undo."""
    endpoint, (camera, action) = _words(words, "CAMERA ACTION", PROMPTS, place=1)
    marks = marks_from_flags(point or (), box)
    given = {"--point, --box, --mask": bool(marks or mask), "--label": label is not None,
             "--new-id": new_id is not None, "--id": object_id is not None}  # fmt: skip
    _check_options(action, given)
    if mask is not None:
        marks["mask"] = _read_mask(mask)
    new: dict[str, Any] = marks | ({} if label is None else {"label": label})
    calls: dict[str, Callable[[Controller], Reply]] = {
        "add": lambda daemon: daemon.add(camera, object_id=object_id, **new),
        "refine": lambda daemon: daemon.refine(camera, _id(object_id), **marks),
        "remove": lambda daemon: daemon.remove(camera, _id(object_id)),
        "rename": lambda daemon: daemon.rename(camera, _id(object_id), new_id=new_id, label=label),
        "reset": lambda daemon: daemon.reset(camera),
        "undo": lambda daemon: daemon.undo(camera),
    }
    with _controller(endpoint, control, key=key, timeout_s=timeout) as controller:
        reply = calls[action](controller)
    done = {"add": "added", "refine": "refined", "remove": "removed", "rename": "renamed"}
    what = f"object {reply.object_id} {done[action]}" if action in done else f"{action} done"
    typer.echo(f"{camera}: {what}" + (f" ({reply.note})" if reply.note else ""))


@commands.command()
def camera(
    words: Annotated[list[str], typer.Argument(metavar="[ENDPOINT] ACTION [NAME [SOURCE]]", show_default=False)],
    rtsp_transport: Annotated[str, typer.Option(help="tcp or udp, for `add`.")] = "tcp",
    max_fps: Annotated[float | None, typer.Option(help="Take at most so many pictures a second, for `add`.")] = None,
    control: Control = None,
    key: Key = None,
    timeout: Timeout = 5.0,
) -> None:
    """Cameras of a running daemon: ACTION is add NAME SOURCE, remove NAME, pause NAME, resume NAME, or list.

    SOURCE is a URL, or - to read one from the standard input, where other users do not see its password.
    """
    action = next((word for word in words[:2] if "://" not in word), "")
    expected = {"add": "add NAME SOURCE", "list": "list"}.get(action, f"{action or 'ACTION'} NAME")
    endpoint, (_, *names) = _words(words, expected, CAMERAS, place=0)
    if rtsp_transport not in ("tcp", "udp"):
        raise CommandFailed(f"--rtsp-transport = '{rtsp_transport}': expected tcp or udp", 2)
    with _controller(endpoint, control, key=key, timeout_s=timeout) as controller:
        if action == "list":
            for known in controller.status().cameras:
                typer.echo(f"{known.name}: {known.condition}, {known.source}")
            return
        options = {"rtsp_transport": rtsp_transport, "max_fps": max_fps} if action == "add" else {}
        if names[1:] == ["-"]:  # so that no password stands in a process title
            names[1] = sys.stdin.readline().strip()
        reply = getattr(controller, f"{action}_camera")(*names, **options)
    done = {"add": "added", "remove": "removed", "pause": "paused", "resume": "resumed"}[action]
    typer.echo(f"{names[0]}: {done}" + (f" ({reply.note})" if reply.note else ""))


@commands.command()
def status(
    endpoint: Endpoint = DEFAULT,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it anew every second, until INT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object; with --watch one a line.")] = False,
    control: Control = None,
    key: Key = None,
    timeout: Timeout = 5.0,
) -> None:
    """How a running daemon is: its cameras, frame rates, ages, drops and objects."""
    with stopping_event() as stopping, _controller(endpoint, control, key=key, timeout_s=timeout) as controller:
        _show(controller, as_json=json)
        while watch and not stopping.wait(WATCH_S):
            try:
                _show(controller, as_json=json, is_anew=True)
            except TimeoutError as error:  # it may come back
                typer.echo(f"sam2-stream: {error}", err=True)


def _show(controller: Controller, *, as_json: bool, is_anew: bool = False) -> None:
    import msgspec

    from stream.cli.status_table import make_console, render

    now = controller.status()
    if as_json:
        typer.echo(msgspec.json.encode(now).decode())
        return
    console = make_console()
    if is_anew and console.is_terminal:
        console.clear()
    console.print(render(now))


@contextmanager
def _controller(endpoint: str, control: str | None, *, key: Path | None, timeout_s: float) -> Iterator[Controller]:
    """Inside, commands go to the daemon that publishes there; what it refuses ends the program with its words."""
    from stream.client import Subscriber
    from stream.controller import CommandRefused, Controller, control_endpoint
    from stream.keys import ClientKeys

    with told(CommandRefused, ValueError, OSError):
        keys = ClientKeys.load(key) if key else None
        if control is None:
            with Subscriber(endpoint, [], keys=keys, timeout_s=timeout_s) as subscriber:
                subscriber.receive()
                control = control_endpoint(endpoint, subscriber.info)
        with Controller(control, keys=keys, timeout_s=timeout_s) as controller:
            yield controller


def _words(words: Sequence[str], expected: str, actions: Sequence[str], *, place: int) -> tuple[str, list[str]]:
    """The endpoint, and the words after it; the one at `place` is an action."""
    endpoint, rest = (words[0], list(words[1:])) if "://" in words[0] else (DEFAULT, list(words))
    action = rest[place] if len(rest) > place else ""
    if action not in actions:
        raise CommandFailed(f"{' '.join(rest) or 'nothing'}: expected {expected}, with one of {', '.join(actions)}", 2)
    if len(rest) != len(expected.split()):
        raise CommandFailed(f"{' '.join(rest)}: expected {expected}", 2)
    return endpoint, rest


def _check_options(action: str, given: dict[str, bool]) -> None:
    """Each action takes some of the options, and needs some."""
    marks, label, new_id, object_id = given
    takes = {"add": (marks, label, object_id), "refine": (marks, object_id), "remove": (object_id,),
             "rename": (label, new_id, object_id)}.get(action, ())  # fmt: skip
    needs = {"add": (marks,), "refine": (marks, object_id), "remove": (object_id,), "rename": (object_id,)}
    for option in (option for option, is_given in given.items() if is_given and option not in takes):
        raise CommandFailed(f"{action} does not take {option}; expected {', '.join(takes) or 'no such option'}", 2)
    for option in (option for option in needs.get(action, ()) if not given[option]):
        raise CommandFailed(f"{action}: expected {option}", 2)
    if action == "rename" and not (given[label] or given[new_id]):
        raise CommandFailed("rename: expected --label or --new-id", 2)


def _id(object_id: int | None) -> int:
    assert object_id is not None, "the options were checked before"
    return object_id


def _read_mask(path: Path) -> Any:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise CommandFailed(f"--mask = '{path}': expected a picture such as PNG", 2)
    return picture > 0
