"""Checks of one value each: take what stood in the file, give back what the configuration holds, or refuse it.

Owns: the wording of every "expected ...". Pure functions; any thread may call them.
Never: opens a file that it checks, or corrects a value silently.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stream.config.values import SCHEMES, ConfigError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, for the error that names it."""

    file: str
    folder: Path
    key: str = ""

    def at(self, key: str | int) -> Place:
        part = f"[{key}]" if isinstance(key, int) else f".{key}" if self.key else key
        return Place(self.file, self.folder, self.key + part)

    def refuse(self, value: object, expected: str) -> NoReturn:
        raise ConfigError(self.file, self.key, value=value, expected=expected)


Check = Callable[[object, Place], Any]
BEYOND_NEEDS_KEYS = (
    "a loopback address or ipc://PATH; to listen to other machines, make keys and name their folder: "
    "sam2-stream keys new NAME --role view --keys FOLDER, then keys = 'FOLDER' in the configuration"
)


def text(expected: str, pattern: str) -> Check:
    def check(value: object, place: Place) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            place.refuse(value, expected)
        return value

    return check


def choice(*choices: str) -> Check:
    def check(value: object, place: Place) -> str:
        if not isinstance(value, str) or value not in choices:
            place.refuse(value, f"one of {', '.join(choices)}")
        return value

    return check


def number(expected: str, low: float, high: float) -> Check:
    def check(value: object, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            place.refuse(value, expected)
        return float(value)

    return check


def integer(low: int, high: int) -> Check:
    def check(value: object, place: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            place.refuse(value, f"a whole number from {low} to {high}")
        return value

    return check


def flag(value: object, place: Place) -> bool:
    if not isinstance(value, bool):
        place.refuse(value, "true or false")
    return value


def existing_file(value: object, place: Place) -> Path:
    if not isinstance(value, str) or not value:
        place.refuse(value, "the path of a file")
    path = place.folder / value
    if not path.is_file():
        place.refuse(value, f"an existing file ({path} is none)")
    return path


def source(value: object, place: Place) -> str:
    if not isinstance(value, str) or not value:
        place.refuse(value, "a file, a folder of pictures, a webcam (0, /dev/video0) or a URL")
    if "://" in value:
        if value.partition("://")[0] not in SCHEMES:
            place.refuse(value, f"a URL with one of the schemes {', '.join(SCHEMES)}")
        return value
    if value.isdecimal() or value.startswith("/dev/"):
        return value
    path = place.folder / value
    if not path.exists() and not (place.folder / value.partition("?")[0]).is_dir():  # folder?fps=10
        place.refuse(value, f"an existing file or folder, a webcam (0, /dev/video0) or a URL ({path} is none)")
    return str(path)


def endpoint(value: object, place: Place) -> str:
    if not isinstance(value, str):
        place.refuse(value, "an endpoint such as tcp://127.0.0.1:5560")
    if re.fullmatch(r"ipc://[^\0]{1,100}", value):
        return value
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:\[\]]+):(\d{1,5}|\*)", value)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        place.refuse(value, "tcp://127.0.0.1:PORT or ipc://PATH")
    return value


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach the endpoint."""
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_address(value: object, place: Place) -> str:
    if value == "":
        return ""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", value) if isinstance(value, str) else None
    if match is None or int(match[2]) > 65535 or not is_local(f"tcp://{value}"):
        place.refuse(value, "a loopback address and a port, such as 127.0.0.1:9464")
    return match[0]


def folder(value: object, place: Place) -> Path:
    if not isinstance(value, str) or not value:
        place.refuse(value, "the path of a folder")
    return place.folder / value


def list_of(check: Check, expected: str, *, low: int = 0, high: int = 1000) -> Check:
    def check_list(value: object, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            place.refuse(value, expected)
        return tuple(check(item, place.at(index)) for index, item in enumerate(value))

    return check_list


def table(value: object, place: Place, checks: Mapping[str, Check], *, required: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        place.refuse(value, "a table")
    for key, item in value.items():
        if key not in checks:
            near = difflib.get_close_matches(key, checks, n=1)
            keys = f"{near[0]} (there is no key {key})" if near else f"one of the keys {', '.join(checks)}"
            place.at(key).refuse(item, keys)
    for key in required:
        if key not in value:
            place.at(key).refuse(None, "a value (this key is required)")
    return {key: checks[key](item, place.at(key)) for key, item in value.items()}
