"""The command line of `run SOURCE` made into a `Config`, through the same checks as a file.

Owns: how points, boxes and masks are written on the command line. Runs in whichever thread calls it, at start.
Never: opens a camera.

    --point x,y[,label]      a point of object 1 (label 1 = on the object, 0 = not on it); more points refine it
    --box x0,y0,x1,y1        a box around object 1
    --mask FILE              a mask of object 1: a picture whose non-zero pixels are the object
    --point 2:x,y            the same for object 2, and so on: a number and a colon before the value
    --label 2:NAME           what object 2 is called
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream.config.checks import Place
from stream.config.load import ENHANCE, REFINE, enhance_options, parse_config, refine_options
from stream.config.treatment import EnhanceOptions, RefineOptions
from stream.config.values import COMMAND_LINE, Config

_CAMERA_KEYS = ("name", "pace", "loop", "max_fps", "rtsp_transport", "memory_policy", "camera_motion")
_TABLES = {"refine": tuple(REFINE), "enhance": tuple(ENHANCE)}  # of a camera, and the options that belong there


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """What stood on the command line, unread."""

    points: Sequence[str] = ()
    boxes: Sequence[str] = ()
    masks: Sequence[str] = ()
    labels: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any((self.points, self.boxes, self.masks, self.labels))


@dataclass(frozen=True, slots=True)
class _FlagPlace(Place):
    """A place on the command line: errors name the option rather than the key of a file."""

    def at(self, key: str | int) -> Place:
        return (
            self
            if isinstance(key, int) or key in ("camera", "prompt", *_TABLES)
            else _FlagPlace(self.file, self.folder, _option(key))
        )


def _option(key: str) -> str:
    names = {"points": "--point", "source": "SOURCE", "object_id": "object id"}
    return names.get(key, "--" + key.replace("_", "-"))


def config_from_flags(source: str, flags: PromptFlags, *, options: Mapping[str, object]) -> Config:
    """`options` are settings by their names in a file, None where the option was not given; raises `ConfigError`."""
    place = _FlagPlace(COMMAND_LINE, Path())
    given = {key: value for key, value in options.items() if value is not None}
    camera = {key: given.pop(key) for key in _CAMERA_KEYS if key in given}
    for name, keys in _TABLES.items():
        camera[name] = {key: given.pop(key) for key in keys if key in given}
    camera.setdefault("name", camera_name(source))
    camera |= {"source": source, "prompt": list(_prompts(flags, place).values())}
    return parse_config({**given, "camera": [camera]}, place)


def treatment_from_flags(options: Mapping[str, object]) -> tuple[RefineOptions, EnhanceOptions]:
    """The options of a command line that are about masks and pictures, None where one was not given; raises
    `ConfigError` that names the option.
    """
    place = _FlagPlace(COMMAND_LINE, Path())
    refine, enhance = ({k: options[k] for k in keys if options.get(k) is not None} for keys in _TABLES.values())
    return refine_options(refine, place), enhance_options(enhance, place)


def marks_from_flags(points: Sequence[str], box: str | None) -> dict[str, Any]:
    """Points and box of one object, as `prompt` takes them, in pixels; raises `ConfigError`."""
    place = _FlagPlace(COMMAND_LINE, Path())
    marks: dict[str, Any] = {}
    if points:
        expected = "x,y or x,y,label in pixels, label 1 = on the object, 0 = beside it"
        marks["points"] = [_numbers(text, (2, 3), place=place.at("points"), expected=expected) for text in points]
        for text, point in zip(points, marks["points"], strict=True):
            if point[2:] not in ([], [0], [1]):
                place.at("points").refuse(text, expected)
    if box is not None:
        expected = "x0,y0,x1,y1 in pixels, with x0 < x1 and y0 < y1"
        marks["box"] = _numbers(box, (4,), place=place.at("box"), expected=expected)
        if not (marks["box"][0] < marks["box"][2] and marks["box"][1] < marks["box"][3]):
            place.at("box").refuse(box, expected)
    return marks


def camera_name(source: str) -> str:
    """A name for a camera that was given none: of the file, of the webcam, of the stream's path."""
    if source.isdecimal():
        return f"webcam{source}"
    path = re.sub(r"^\w+://([^/]*@)?", "", source).partition("?")[0].rstrip("/")
    stem = Path(path).stem if "://" not in source else Path(path).name
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("_.-")[:64] or "camera"


def _prompts(flags: PromptFlags, place: Place) -> dict[int, dict[str, Any]]:
    prompts: dict[int, dict[str, Any]] = {}
    for text in flags.points:
        object_id, value = _split(text)
        point = _numbers(
            value, (2, 3), place=place.at("points"), expected="x,y or x,y,label in pixels, or ID:x,y,label"
        )
        _of(prompts, object_id).setdefault("points", []).append(
            [*point[:2], *(int(n) if n in (0, 1) else n for n in point[2:])]
        )
    for key, texts in (("box", flags.boxes), ("mask", flags.masks), ("label", flags.labels)):
        for text in texts:
            object_id, value = _split(text)
            if key in _of(prompts, object_id):
                place.at(key).refuse(text, f"one {key} for object {object_id}; another object is written ID:{key}")
            expected = "x0,y0,x1,y1 in pixels, or ID:x0,y0,x1,y1"
            _of(prompts, object_id)[key] = (
                _numbers(value, (4,), place=place.at(key), expected=expected) if key == "box" else value
            )
    return prompts


def _of(prompts: dict[int, dict[str, Any]], object_id: int) -> dict[str, Any]:
    return prompts.setdefault(object_id, {"object_id": object_id})


def _split(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d+):(.*)", text, re.DOTALL)
    return (int(match[1]), match[2]) if match else (1, text)


def _numbers(text: str, lengths: tuple[int, ...], *, place: Place, expected: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        place.refuse(text, expected)
    if len(numbers) not in lengths:
        place.refuse(text, expected)
    return numbers
