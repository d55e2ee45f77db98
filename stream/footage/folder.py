"""`PictureFolder`: pictures in files of their own, as a video.

Owns: reading them, one by one. Runs in the thread that asks. Never: stops at a picture that cannot be read: it is left
out and told, and the others keep their numbers.

OpenCV reads the pictures: it honours EXIF orientation and reduces 16-bit and grey pictures to 8-bit BGR.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from stream.sequence import FootageError, Image, Picture

log = logging.getLogger(__name__)

PERIOD_NS = round(1e9 / 30)  # files have no time of their own


class PictureFolder:
    """Written by the thread that reads: `remarks`."""

    fps: float | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.remarks: tuple[str, ...] = ()
        self._paths = tuple(paths)

    @property
    def num_frames(self) -> int:
        return len(self._paths)

    def index_at(self, time_ns: int) -> int:
        """The first picture that is not earlier."""
        return min(len(self._paths), max(0, -(-time_ns // PERIOD_NS)))

    def pictures(self, start: int = 0, *, time_ns: int | None = None) -> Iterator[Picture]:
        """From this picture on. A file that cannot be read is left out, with a remark; if none can, `FootageError`."""
        self.remarks, num_read = (), 0
        for index, path in enumerate(self._paths[start:], start):
            image_hwc = _read(path)
            if image_hwc is None:
                self._remark(f"{path}: this picture cannot be read and is left out")
                continue
            num_read += 1
            yield Picture(index, index * PERIOD_NS, image_hwc, path.stem)
        if not num_read and start < len(self._paths):
            raise FootageError(f"{self._paths[start].parent}: not one picture can be read, expected at least one")

    def _remark(self, text: str) -> None:
        log.warning("%s", text)
        self.remarks = (*self.remarks, text)[:100]


def _read(path: Path) -> Image | None:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        image_hwc = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if image_hwc is None else np.asarray(image_hwc, np.uint8)
