"""Points in a video as people write them: `12.5` seconds, `1:30`, `0:01:30.25`, or `300f`, the picture number 300.

Owns: `Moment`, and how it is written. Pure; any thread. Never: opens a video.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EXPECTED = "seconds (12.5), minutes and seconds (1:30), or a picture's number (300f)"
_CLOCK = re.compile(r"(?:(\d+):)??(?:(\d+):)?(\d+(?:\.\d*)?)s?")


class MomentError(ValueError):
    """Not a moment; the text is one line that says what was expected."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture's number, or a time since the beginning."""

    frame: int | None = None
    time_ns: int = 0


BEGINNING = Moment(frame=0)


def moment_of(text: str) -> Moment:
    """The moment that the text names. Raises `MomentError`."""
    written = text.strip().lower()
    if re.fullmatch(r"\d{1,12}f", written):
        return Moment(frame=int(written[:-1]))
    match = _CLOCK.fullmatch(written)
    if match is None or len(written) > 24:
        raise MomentError(f"'{text}' is no moment, expected {EXPECTED}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    if match[2] is not None and seconds >= 60:
        raise MomentError(f"'{text}' has {seconds:g} seconds after the minutes, expected less than 60")
    return Moment(time_ns=round((hours * 3600 + minutes * 60 + seconds) * 1e9))
