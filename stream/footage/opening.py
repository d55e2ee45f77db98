"""`open_footage`: what a path or a pattern of names leads to.

Owns: telling videos, folders and patterns apart. Any thread. Never: opens a camera or an address of the network.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from stream.footage.folder import PictureFolder
from stream.footage.order import IMAGE_SUFFIXES, is_pattern, is_picture, list_pictures, natural_order
from stream.footage.video import VideoFile
from stream.sequence import FootageError


def open_footage(path: str | os.PathLike[str]) -> VideoFile | PictureFolder:
    """A video file, a folder of pictures, a pattern such as "shots/*.png", or a single picture.

    Raises `FootageError`: one line that names the path and what was expected.
    """
    text = os.fspath(path)
    if is_pattern(text):
        found = sorted(filter(is_picture, map(Path, glob.glob(text))), key=natural_order)
        if not found:
            raise FootageError(f"{text}: no picture has such a name, expected a pattern that fits one")
        return PictureFolder(_name(found[0].parent), found)
    place = Path(text)
    if place.is_dir():
        found = list_pictures(place)
        if not found:
            raise FootageError(f"{text}: the folder holds no picture, expected {', '.join(IMAGE_SUFFIXES)}")
        return PictureFolder(_name(place), found)
    if not place.exists():
        raise FootageError(f"{text}: there is no such file, expected a video, a folder of pictures or a pattern")
    if is_picture(place):
        return PictureFolder(place.stem, [place])
    return VideoFile(place)


def _name(folder: Path) -> str:
    return folder.resolve().name or "pictures"
