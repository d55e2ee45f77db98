"""How a source is written, and how it may be shown.

Owns: the grammar of sources and the hiding of credentials. Pure functions; any thread.
Never: opens a source.

| written | kind |
|---|---|
| `clip.mp4` | a video file |
| `folder`, `folder?fps=10` | a folder of pictures |
| `0`, `/dev/video0?width=1280&height=720&fps=30&format=mjpeg` | a webcam |
| `rtsp://user:password@host/path`, `rtsps://`, `http://`, `https://` | a stream |
| `testsrc://?width=640&height=480&fps=30&frames=300&objects=2&seed=1` | a generated clip |
| `push://NAME?bind=tcp://127.0.0.1:5570` | another program's frames |
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote

from stream.capture.picture import SourceError
from stream.config import redact

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
_EXPECTED = "a file, a folder of pictures, a webcam (0, /dev/video0), rtsp://, http(s)://, testsrc:// or push://"


class Kind(enum.Enum):
    FILE = "file"
    IMAGES = "images"
    WEBCAM = "webcam"
    STREAM = "stream"
    TESTSRC = "testsrc"
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class Address:
    """A source taken apart: `target` is a path, a device, a URL or a name, `shown` what may stand in a log."""

    kind: Kind
    target: str
    shown: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """What stands before `://`, in small letters; "" = a file, a folder or a webcam."""
        return {Kind.TESTSRC: "testsrc", Kind.PUSH: "push"}.get(self.kind) or (
            self.target.partition("://")[0].lower() if self.kind is Kind.STREAM else ""
        )

    def only(self, *keys: str) -> None:
        """Refuse options of other names."""
        for key in self.options:
            if key not in keys:
                expected = f"one of {', '.join(keys)}" if keys else "no options"
                raise SourceError(f"source '{self.shown}': option '{key}', expected {expected}")

    def number(self, key: str, default: float, *, low: float, high: float) -> float:
        """A numeric option."""
        text = self.options.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise SourceError(f"source '{self.shown}': {key}='{text}', expected a number from {low:g} to {high:g}")
        return value

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """A whole-numbered option."""
        value = self.number(key, default, low=low, high=high)
        if value != int(value):
            raise SourceError(f"source '{self.shown}': {key}='{self.options[key]}', expected a whole number")
        return int(value)


def parse_source(text: str) -> Address:
    """Take a source apart; raises `SourceError` for one that is none of the kinds."""
    if "://" in text:
        return _parse_url(text)
    path, options = _split_options(text)
    if path.isdecimal():
        return Address(Kind.WEBCAM, f"/dev/video{int(path)}", text, options)
    if path.startswith("/dev/video"):
        return Address(Kind.WEBCAM, path, text, options)
    if not text:
        raise SourceError(f"source '', expected {_EXPECTED}")
    if Path(path).is_dir() and not Path(text).is_file():
        return Address(Kind.IMAGES, path, text, options)
    return Address(Kind.FILE, text, text)


def url_for_ffmpeg(url: str) -> str:
    """The URL with user and password percent-encoded, so that `/ ? # @ % :` in them do not break it.

    What is already percent-encoded stays. `host:554/a@b` is a path with an `@`, `user:se/cret@host/a` a password with a
    `/`.
    """
    scheme, _, rest = url.partition("://")
    authority = re.match(r"[^/?#]*", rest)
    assert authority is not None, "the pattern also matches nothing"
    is_host = re.fullmatch(r"(\[[^\]]*\]|[^:@]*)(:\d*)?", authority[0]) is not None
    at = authority[0].rfind("@") if "@" in authority[0] else -1 if is_host else rest.rfind("@")
    if at < 0:
        return url
    user, colon, password = rest[:at].partition(":")
    return f"{scheme}://{_encode(user)}{colon}{_encode(password)}@{rest[at + 1 :]}"


def _encode(text: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="%!$&'()*+,;=")


def _parse_url(text: str) -> Address:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme in STREAM_SCHEMES:
        return Address(Kind.STREAM, text, redact(text))
    if scheme not in ("testsrc", "push"):
        raise SourceError(f"source '{redact(text)}', expected {_EXPECTED}")
    name, options = _split_options(rest)
    return Address(Kind.TESTSRC if scheme == "testsrc" else Kind.PUSH, name, text, options)


def _split_options(text: str) -> tuple[str, Mapping[str, str]]:
    path, _, query = text.partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))
