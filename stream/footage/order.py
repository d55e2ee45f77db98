"""Which pictures a folder or a pattern of names holds, and in which order: 2.png before 10.png.

Owns: the endings of pictures. Pure functions; any thread. Never: descends into sub-folders, or reads a picture.
"""

from __future__ import annotations

import glob
from pathlib import Path

from stream.capture.images import natural_order
from stream.sequence import FootageError

__all__ = ["IMAGE_SUFFIXES", "is_pattern", "list_pictures", "natural_order"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def is_pattern(text: str) -> bool:
    """Whether the text has wildcards, and no file has it as its name."""
    return glob.has_magic(text) and not Path(text).exists()


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in natural order; hidden files are none. Raises `FootageError` for an unreadable one."""
    try:
        return sorted(filter(is_picture, path.iterdir()), key=natural_order)
    except OSError as error:
        raise FootageError(f"{path}: {(error.strerror or 'unreadable').lower()}, expected a folder") from error


def is_picture(path: Path) -> bool:
    """Whether this is a file with the ending of a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
