"""Which kind of source an address means.

Owns: the table of kinds. Pure; any thread.
Never: reads pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from stream.capture.address import Address, Kind, parse_source
from stream.capture.files import VideoFile
from stream.capture.images import ImageFolder
from stream.capture.picture import Source, SourceError
from stream.capture.push import PushSource
from stream.capture.streams import NetworkStream
from stream.capture.testsrc import TestSource
from stream.capture.webcam import Webcam
from stream.config import CameraConfig

_KINDS: Mapping[Kind, Callable[[Address, CameraConfig], Source]] = {
    Kind.FILE: VideoFile,
    Kind.IMAGES: ImageFolder,
    Kind.WEBCAM: Webcam,
    Kind.STREAM: NetworkStream,
    Kind.TESTSRC: TestSource,
    Kind.PUSH: PushSource,
}


def open_source(config: CameraConfig, allowed: Collection[str] | None = None) -> Source:
    """The camera's source, its address checked and nothing opened yet; raises `SourceError`.

    `allowed` are the schemes that a camera added over the wire may use; None = every kind of source.
    """
    address = parse_source(config.source)
    if allowed is not None and address.scheme not in allowed:
        raise SourceError(f"source '{address.shown}': expected one that begins with {_listed(allowed)}")
    if config.decoder == "nvdec" and address.kind is not Kind.STREAM:
        raise SourceError(f"source '{address.shown}': decoder nvdec is for network streams, expected auto or ffmpeg")
    return _KINDS[address.kind](address, config)


def check_source(config: CameraConfig) -> None:
    """Raise `SourceError` for a source that can never give a picture: for the daemon, before it starts."""
    open_source(config).check()


def _listed(schemes: Collection[str]) -> str:
    return " or ".join(f"{scheme}://" for scheme in schemes) or "nothing: no scheme is allowed"
