"""Which videos the words of a command line name: files, folders of pictures, folders of videos, patterns.

Owns: the videos' names, which results are filed under. Any thread. Never: opens a video.

A folder that holds pictures is one video. Else it stands for the videos in it, and for its folders that hold pictures
(as DAVIS's JPEGImages does). A pattern of pictures is one video, any other one stands for what it fits.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream.footage import IMAGE_SUFFIXES, list_pictures, natural_order
from stream.segment.request import SegmentError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv",
    ".3gp", ".ogv", ".vob", ".mxf", ".h264", ".264", ".hevc", ".265",
)  # fmt: skip
RESULTS = (".overlay.mp4", ".mask.mp4", ".cutout.webm")  # of an earlier run into the folder of the videos itself


@dataclass(frozen=True, slots=True)
class Clip:
    """One video: its name, and what `open_footage` takes."""

    name: str
    source: str


def find_clips(words: Sequence[str]) -> list[Clip]:
    """The videos in order, none twice, each with a name of its own. Raises `SegmentError` where a word names none."""
    sources = list(dict.fromkeys(source for word in words for source in _sources(word)))
    taken: set[str] = set()
    clips = []
    for source in sources:
        name = _free_name(source, taken)
        taken.add(name.lower())  # some file systems do not tell upper from lower case
        clips.append(Clip(name, source))
    return clips


def _sources(word: str) -> Iterable[str]:
    path = Path(word)
    if path.is_dir():
        return _in_folder(path)
    if path.exists() or not glob.has_magic(word):
        return [word]  # should it be missing, that is told when its turn comes
    found = sorted((Path(place) for place in glob.glob(word) if not place.endswith(RESULTS)), key=natural_order)
    if not found:
        raise SegmentError(f"{word}: nothing has such a name, expected a pattern that fits a file or folder")
    if all(place.suffix.lower() in IMAGE_SUFFIXES and place.is_file() for place in found):
        return [word]
    return [source for place in found for source in (_in_folder(place) if place.is_dir() else [str(place)])]


def _in_folder(folder: Path) -> list[str]:
    if list_pictures(folder):
        return [str(folder)]
    inside = sorted((place for place in folder.iterdir() if not place.name.startswith(".")), key=natural_order)
    videos = [str(place) for place in inside if is_video(place) and not place.name.endswith(RESULTS)]
    folders = [str(place) for place in inside if place.is_dir() and list_pictures(place)]
    if not videos and not folders:
        raise SegmentError(f"{folder}: no picture and no video in it, expected some ({', '.join(VIDEO_SUFFIXES[:6])})")
    return videos + folders


def is_video(path: Path) -> bool:
    """Whether this is a file with the ending of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _free_name(source: str, taken: set[str]) -> str:
    """From the file or folder; where that name is taken, with the folder before it, then with a number."""
    path = Path(source)
    if glob.has_magic(source) and not path.exists():
        path = path.parent.resolve()
    stem = path.resolve().name if path.is_dir() else path.stem
    folder = path.resolve().parent.name
    numbered = (f"{stem}-{number}" for number in range(2, len(taken) + 3))
    for candidate in (stem, f"{folder}-{stem}", *numbered):
        name = re.sub(r"[^\w.-]+", "_", candidate).strip("_.-")[:100] or "clip"
        if name.lower() not in taken:
            return name
    raise AssertionError("one of so many numbers is free")
