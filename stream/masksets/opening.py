"""`open_masks`: masks of recorded videos, whatever they are stored as.

Owns: which reader a path belongs to. Thread: that of the caller. Never: decodes a mask, or goes deeper than a data
set's layout.

| what | recognised by |
|---|---|
| DAVIS, MOSE | a folder of indexed PNG, a folder of such folders, or a root with `Annotations` (and `480p` in it) |
| SA-V's evaluation sets | a folder for each object, `000/00000.png`, in a folder for each video |
| SA-V's training set | `VIDEO_manual.json` or `VIDEO_auto.json`; a folder's `auto` only where there is no `manual` |
| COCO | a `.json` file: a list of annotations, or an object with `annotations` |
| JSON lines | `.jsonl`, as `sam2-stream segment` writes them |
| recordings | `.masks` |
| one picture | an indexed `.png` |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stream.masksets.coco import coco_sequences
from stream.masksets.folders import folder_sequence, natural
from stream.masksets.indexed import size_of
from stream.masksets.lines import LineSequence
from stream.masksets.picture import PictureSequence
from stream.masksets.recorded import recorded_sequences
from stream.masksets.sav import SUFFIXES as SAV_ENDINGS
from stream.masksets.sav import SavSequence
from stream.sequence import MaskFileError, MaskSequence

KINDS = "DAVIS folders of indexed PNG, SA-V or COCO JSON, JSON lines (.jsonl) or a .masks recording"
FILE_SUFFIXES = (".masks", ".jsonl", ".json")
HEAD_BYTES = 4096


def open_masks(path: Path, *, sequence: str | None = None) -> list[MaskSequence]:
    """Every sequence there, by name, or the one that is asked for. Raises `MaskFileError` with one line."""
    try:
        found = _in_path(path)
    except OSError as exc:
        raise MaskFileError(f"{path} cannot be read: {exc.strerror}") from exc
    if not found:
        raise MaskFileError(f"{path} holds no masks, expected {KINDS}")
    found.sort(key=lambda item: natural(item.name))
    if sequence is not None:
        chosen = [item for item in found if item.name == sequence]
        if not chosen:
            names = ", ".join(item.name for item in found[:8]) + (", ..." if len(found) > 8 else "")
            raise MaskFileError(f"{path} has no sequence {sequence!r}, expected one of {names}")
        found = chosen
    return found


def footage_of(sequence: MaskSequence) -> Path | None:
    """The video or folder of pictures that lies beside the masks, where the layout tells."""
    place = getattr(sequence, "footage", None)
    return place if isinstance(place, Path) else None


def _in_path(path: Path) -> list[MaskSequence]:
    if not path.exists():
        raise MaskFileError(f"{path} does not exist, expected {KINDS}")
    return _in_folder(path) if path.is_dir() else _in_file(path)


def _in_file(path: Path) -> list[MaskSequence]:
    readers: dict[str, Callable[[Path], list[MaskSequence]]] = {
        ".masks": lambda file: [*recorded_sequences(file)],
        ".jsonl": lambda file: [LineSequence(file)],
        ".json": _in_json,
        ".png": lambda file: [PictureSequence(file, size_of(file))],
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise MaskFileError(f"{path} is of no known kind, expected {KINDS}")
    return reader(path)


def _in_json(path: Path) -> list[MaskSequence]:
    """SA-V by its name or its first bytes, lines by a second object in a second line, or COCO."""
    if path.stem.endswith(SAV_ENDINGS):
        return [SavSequence(path)]
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if b'"masklet' in head or b'"video_frame_count"' in head:
        return [SavSequence(path)]
    if head.lstrip().startswith(b'{"index"'):
        return [LineSequence(path)]
    return [*coco_sequences(path)]


def _in_folder(folder: Path) -> list[MaskSequence]:
    inner = _inner(folder)
    if inner is not None:
        return _in_folder(inner)
    own = folder_sequence(folder)
    if own is not None:
        return [own]
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in FILE_SUFFIXES and path.is_file()]
    found = [item for path in _one_of_each(files) for item in _in_file(path)]
    for place in sorted(folder.iterdir()):
        below = folder_sequence(place) if place.is_dir() and not place.name.startswith(".") else None
        found += [below] if below is not None else []
    return found


def _inner(folder: Path) -> Path | None:
    """Where a data set keeps its masks."""
    for pattern in ("Annotations", "Annotations_*", "480p", "Full-Resolution"):
        places = [place for place in sorted(folder.glob(pattern)) if place.is_dir()]
        if places:
            return places[0]
    return None


def _one_of_each(files: list[Path]) -> list[Path]:
    """Without SA-V's automatic masklets where a video has manual ones."""
    names = {path.name for path in files}
    return [path for path in files if path.name.replace("_auto.json", "_manual.json") not in names - {path.name}]
