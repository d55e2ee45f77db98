"""Folders of PNG: DAVIS and MOSE (one indexed picture each) and SA-V's evaluation sets (a folder for each object).

Owns: which file belongs to which picture of the video. Thread: that of the caller. Never: decodes a picture before it
is asked for, or keeps one.

A picture's place is that of the file with its name in `JPEGImages` beside `Annotations`. Where there is none, it is
the number in its name (`00004.png` is 4); where names have no numbers, its place in the order of names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stream.masksets.indexed import read_binary, read_indexed, size_of
from stream.sequence import LabelledFrame, MaskFileError, MaskSequence

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
OBJECT_FOLDER = re.compile(r"\A\d{3}\Z")
MAX_NUMBER = 10_000_000  # a number beyond it in a file's name is a time, not a place


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Visible files with such an ending, in natural order."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural(path.stem))


def png_in(folder: Path) -> list[Path]:
    return files_in(folder, frozenset({".png"}))


def pictures_beside(folder: Path) -> Path | None:
    """The folder of the video's pictures for a sequence's folder of masks: `JPEGImages*` beside `Annotations*`."""
    for parent in list(folder.parents)[:3]:
        if parent.name.lower().startswith("annotations"):
            inner = folder.relative_to(parent)
            roots = sorted(parent.parent.glob("JPEGImages*"))
            places = [place for root in roots for place in (root / inner, root / folder.name)]
            places += [place for root in roots for place in sorted(root.glob(f"*/{folder.name}"))]
            return next((place for place in places if place.is_dir()), None)
    return None


def places_of(stems: Sequence[str], video: Sequence[str]) -> list[int]:
    """The place of each name in the video, whose names are in order; without a video, by numbers or order."""
    if video:
        known = {stem: place for place, stem in enumerate(video)}
        unknown = next((stem for stem in stems if stem not in known), None)
        if unknown is not None:
            raise MaskFileError(f"mask {unknown} has no picture of its name, expected {video[0]} to {video[-1]}")
        return [known[stem] for stem in stems]
    numbers = [int(match[1]) if (match := re.search(r"(\d+)\Z", stem)) else -1 for stem in stems]
    if min(numbers, default=0) < 0 or max(numbers, default=0) > MAX_NUMBER or len(set(numbers)) < len(numbers):
        return list(range(len(stems)))
    return numbers


class FolderSequence:
    """A sequence of PNG files. Holds paths only; frozen once made, any thread may read.

    `parts` is a folder for each object, or one under None where the pixels' values are ids. `names` are those of the
    video's pictures in order, if they are to be others than what lies beside the folder.
    """

    def __init__(self, folder: Path, parts: Mapping[int | None, Path], names: Sequence[str] = ()) -> None:
        self.folder, self.name = folder, folder.name
        self.footage = pictures_beside(folder)
        self.labels: Mapping[int, str] = {}
        self.parts = dict(parts)
        beside = [path.stem for path in files_in(self.footage, PICTURE_SUFFIXES)] if self.footage else []
        self.names = tuple(names) or tuple(beside)
        files = {part: {path.stem: path for path in png_in(place)} for part, place in parts.items()}
        stems = sorted({stem for found in files.values() for stem in found}, key=natural)
        if not stems:
            raise MaskFileError(f"{folder} holds no PNG, expected one for each picture")
        self.stems = dict(zip(places_of(stems, self.names), stems, strict=True))
        self.annotated: Sequence[int] = tuple(sorted(self.stems))
        self.num_frames = max(len(self.names), self.annotated[-1] + 1)
        self._files = files

    @property
    def size(self) -> tuple[int, int]:
        stem = self.stems[self.annotated[0]]
        return size_of(next(found[stem] for found in self._files.values() if stem in found))

    def frame(self, index: int) -> LabelledFrame:
        stem = self.stems[index]
        if None in self._files:
            return LabelledFrame(index, read_indexed(self._files[None][stem]))
        present = {part: found[stem] for part, found in self._files.items() if part is not None and stem in found}
        return LabelledFrame(index, {part: read_binary(path) for part, path in present.items()})


def folder_sequence(folder: Path) -> FolderSequence | None:
    """The sequence in this folder; None where there is none."""
    if png_in(folder):
        return FolderSequence(folder, {None: folder})
    objects = [place for place in sorted(folder.iterdir()) if place.is_dir() and OBJECT_FOLDER.match(place.name)]
    objects = [place for place in objects if png_in(place)]
    return FolderSequence(folder, {int(place.name): place for place in objects}) if objects else None


def place_like(prediction: MaskSequence, truth: MaskSequence) -> MaskSequence:
    """The prediction with its pictures placed by the names of truth's video, where both are folders and names agree."""
    if not (isinstance(prediction, FolderSequence) and isinstance(truth, FolderSequence) and truth.names):
        return prediction
    if not set(prediction.stems.values()) <= set(truth.names):
        return prediction
    return FolderSequence(prediction.folder, prediction.parts, truth.names)
