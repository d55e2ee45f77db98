"""ImageFolder: a folder of pictures (jpg, png, bmp, webp) as a source, in natural order: 2.png before 10.png.

Owns: the order and the rate. Runs in the camera's thread. OpenCV reads the pictures: it honours EXIF orientation,
reduces 16-bit and grey pictures to 8-bit BGR, and needs no container around them.
Never: descends into sub-folders, or stops at a picture that cannot be read: it is counted.

`folder?fps=10` sets the rate of pace=live and of the time stamps (default 30).
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from stream.capture.address import Address
from stream.capture.pacer import Pacer
from stream.capture.picture import Arrival, Items, Loss, Picture, SourceError
from stream.capture.watch import Watch
from stream.config import CameraConfig

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 30.0


class ImageFolder:
    """Written by nobody after construction."""

    retries = False
    can_freeze = False
    codec = decoder = ""

    def __init__(self, address: Address, config: CameraConfig) -> None:
        address.only("fps")
        self._address = address
        self._period_ns = round(1e9 / address.number("fps", DEFAULT_FPS, low=0.01, high=1000))
        self._is_live = config.pace == "live"

    def check(self) -> None:
        """Raise `SourceError` for a folder without pictures."""
        self._paths()

    def pictures(self, watch: Watch) -> Items:
        pacer = Pacer(watch)
        for index, path in enumerate(self._paths()):
            pts_ns = index * self._period_ns
            if watch.is_set() or (self._is_live and not pacer.wait(pts_ns)):
                return
            yield _read(path, pts_ns)

    def _paths(self) -> list[Path]:
        folder, shown = Path(self._address.target), self._address.shown
        try:
            paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
        except OSError as error:
            raise SourceError(f"source '{shown}': {(error.strerror or 'unreadable').lower()}") from None
        if not paths:
            raise SourceError(f"source '{shown}': the folder holds no picture, expected {', '.join(SUFFIXES)}")
        return sorted(paths, key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Numbers in names count as numbers; names that differ only in leading zeros keep a fixed order."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts], path.name


def _read(path: Path, pts_ns: int) -> Picture | Loss:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return Loss("undecodable")
    arrival = Arrival.now()
    try:
        image_hwc = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        image_hwc = None
    if image_hwc is None:
        return Loss("undecodable")
    return Picture.of_array(np.asarray(image_hwc, np.uint8), arrival=arrival, pts_ns=pts_ns)
