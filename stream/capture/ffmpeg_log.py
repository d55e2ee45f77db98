"""What FFmpeg says while it works for one camera: heard by that camera's thread, and never printed as it is.

Owns: PyAV's log settings, the words that mean damage, and the hiding of addresses. Any thread; each hears its own.
Never: lets a line of FFmpeg out with an address in it, which may hold a password.

Lost RTP packets show in nothing else that PyAV gives: `packet.is_corrupt` and `frame.is_corrupt` stay False while an
H.264 picture is smeared over half its height (seen with FFmpeg 8.1), because the decoder conceals what is missing. The
demuxer knows, and says "RTP: missed 3 packets" within the very call that returns the damaged picture or the one before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import av.logging

log = logging.getLogger(__name__)

Line = tuple[int, str, str]  # FFmpeg's level, its part ("rtsp", "h264", "tls"), the text
_DAMAGE = re.compile(
    r"RTP: missed|error while decoding|concealing|missing reference|find ref with POC|undecodable NALU"
    r"|decode_slice_header error|cabac_init_idc|Packet corrupt|corrupted macroblock",
    re.IGNORECASE,
)


class _Quiet(logging.Handler):
    """Takes what FFmpeg says outside of `listening`."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, without_addresses(record.getMessage()))


_FFMPEG = logging.getLogger("libav")
_FFMPEG.addHandler(_Quiet())
_FFMPEG.propagate = False
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)  # two cameras may say the same


@contextmanager
def listening() -> Iterator[list[Line]]:
    """Within, what FFmpeg says in this thread is appended to the list; empty it often."""
    with av.logging.Capture() as lines:
        yield lines


def take_damage(lines: list[Line]) -> bool:
    """Whether the lines tell of a lost packet or a damaged picture; empties them."""
    for _, part, text in lines:
        log.debug("%s: %s", part, without_addresses(text.strip()))
    is_damaged = any(_DAMAGE.search(text) for _, _, text in lines)
    lines.clear()
    return is_damaged


def refusal(lines: list[Line]) -> str:
    """What FFmpeg, not the server, refused: a certificate, a handshake, a protocol; in our words, "" = nothing."""
    if any("not on whitelist" in text for _, _, text in lines):
        return "it leads to another protocol, which is not followed; expected the address where it ends"
    text = " ".join(text for _, part, text in lines if part == "tls")
    if "does not match hostname" in text:
        return "its certificate is for another host name (TLS)"
    if "failed verification" in text:
        return "its certificate is not trusted (TLS)"
    if re.search(r"unexpected TLS packet|handshake|alert|wrong version", text, re.IGNORECASE):
        return "it does not speak TLS as expected"
    return ""


def without_addresses(text: str) -> str:
    """The text with every URL cut to its scheme."""
    return re.sub(r"(\w+)://.*", r"\1://***", text, flags=re.DOTALL)
