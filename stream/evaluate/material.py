"""`Material`: a video beside its true masks, and where the two are found in the data sets that people have.

Owns: which pictures belong to which masks, and `generated[:N]`. Any thread. Never: reads a picture or a mask before
somebody asks for it.

    DIR/JPEGImages[/480p]/<sequence>/00000.jpg    DIR/Annotations[/480p]/<sequence>/00000.png       DAVIS, MOSE
    DIR/JPEGImages_24fps/<sequence>/00000.jpg     DIR/Annotations_6fps/<sequence>/...               SA-V val, test
    DIR/**/sav_000001.mp4                         beside it sav_000001_manual.json, or _auto.json   SA-V
    generated, generated:50                       clips of `engines.synthetic` that no training has seen
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from engines.synthetic import EVALUATION_SEEDS, ClipSpec, SyntheticClip
from stream.evaluate.generated import GeneratedFootage, GeneratedTruth
from stream.footage import open_footage
from stream.masksets import footage_of, open_masks
from stream.masksets.folders import FolderSequence
from stream.sequence import Footage, MaskFileError, MaskSequence

GENERATED = re.compile(r"generated(?::(\d+))?")
NUM_GENERATED = 20
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
PICTURE_FOLDERS = ("JPEGImages/480p", "JPEGImages/Full-Resolution", "JPEGImages", "JPEGImages_24fps", ".")
NUM_NAMED = 8  # sequences, in an error


@dataclass(frozen=True, slots=True)
class Material:
    """One sequence; its pictures are opened anew at each call."""

    name: str
    open_footage: Callable[[], Footage]
    truth: MaskSequence


Named = TypeVar("Named", Material, MaskSequence)


def find_material(data: str | Path, *, sequences: Sequence[str] = ()) -> list[Material]:
    """The sequences of a data set; all of them unless `sequences` names some.

    Raises `MaskFileError` where there are none, not all that were named, or one without pictures.
    """
    if (generated := GENERATED.fullmatch(str(data))) is not None:
        return choose(generated_material(int(generated[1] or NUM_GENERATED)), sequences, where=str(data))
    truths = choose(open_masks(Path(data)), sequences, where=str(data))
    return [Material(truth.name, _opening(truth, Path(data)), truth) for truth in truths]


def choose(found: list[Named], names: Sequence[str], *, where: str) -> list[Named]:
    """Those with these names, in this order; all where no name is given. Raises `MaskFileError`."""
    by_name = {item.name: item for item in found}
    if unknown := [name for name in names if name not in by_name]:
        known = ", ".join(list(by_name)[:NUM_NAMED]) + (", ..." if len(by_name) > NUM_NAMED else "")
        raise MaskFileError(f"{where}: there is no sequence {unknown[0]!r}; expected one of {known or 'none at all'}")
    return [by_name[name] for name in dict.fromkeys(names)] or found


def generated_material(count: int, *, like: ClipSpec | None = None) -> list[Material]:
    """Clips of the first evaluation seeds, called generated-0 and so on; all but the seed as in `like`."""
    if not 1 <= count <= len(EVALUATION_SEEDS):
        raise MaskFileError(f"generated:{count}: expected 1 to {len(EVALUATION_SEEDS)} clips")
    look = like or ClipSpec(0)
    clips = (SyntheticClip(replace(look, seed=seed)) for seed in EVALUATION_SEEDS[:count])
    return [clip_material(clip, name=f"generated-{place}") for place, clip in enumerate(clips)]


def clip_material(clip: SyntheticClip, *, name: str = "") -> Material:
    """One generated clip; called after its seed unless it is given a name."""
    known = name or f"generated-{clip.spec.seed}"
    return Material(known, partial(GeneratedFootage, clip, known), GeneratedTruth(clip, known))


def find_pictures(masks: MaskSequence, folder: Path | None) -> Path | None:
    """The video or the folder of pictures of a sequence: what lies beside its masks, or what has its name in a folder
    of videos or a data set; None where there is none.
    """
    beside = footage_of(masks)
    if folder is None or not folder.is_dir():
        return beside
    own = masks.folder.resolve() if isinstance(masks, FolderSequence) else None
    return next((path for path in _places(masks.name, folder) if path.resolve() != own), beside)


def _opening(truth: MaskSequence, data: Path) -> Callable[[], Footage]:
    if (path := footage_of(truth) or find_pictures(truth, data)) is None:
        raise MaskFileError(
            f"{data}: no pictures of {truth.name}; expected JPEGImages/{truth.name} or {truth.name}.mp4"
        )
    return partial(open_footage, path)


def _places(name: str, folder: Path) -> Iterator[Path]:
    for inside in PICTURE_FOLDERS:
        yield from (path for path in (folder / inside / name,) if path.is_dir())
        yield from (path for suffix in VIDEO_SUFFIXES if (path := folder / inside / f"{name}{suffix}").is_file())
    videos = (path for suffix in VIDEO_SUFFIXES for path in sorted(folder.rglob(f"*{suffix}")))
    yield from (path for path in videos if path.stem == name)
