"""`Shelf`: the folder that an evaluation leaves, and from which it goes on after it was interrupted.

Owns: the names and formats of its files. One thread at a time. Never: deletes anything, or takes over a result that was
made with other settings.

    OUT/<sequence>/00000.png               the masks, indexed as in DAVIS where the truth is, or
    OUT/<sequence>/<object>/00000.png      a picture for each object where true masks may overlap, as in SA-V
    OUT/.evaluation/settings.json          `Settings`: model, weights, backend, prompt, ...
    OUT/.evaluation/<sequence>.json        `Record`: scores and speed; written last, so a sequence that has one is done
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engines.whole_file import moved_in
from stream.evaluate.speed import Pace
from stream.quality import SequenceScore

RECORDS = ".evaluation"
SETTINGS = "settings.json"


class ShelfError(ValueError):
    """The folder cannot be used; the text is one line that names it and what was expected."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the results depend on, and what they were measured on."""

    model: str
    weights: str  # the checkpoint's SHA-256, see `engines.weights.checkpoint_name`
    backend: str
    device: str
    dtype: str
    prompt: str
    memory_policy: str
    refine: str
    enhance: str
    data: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence that is done; `score` is None where too few pictures are annotated to measure anything."""

    name: str
    score: SequenceScore | None
    pace: Pace


class Shelf:
    """Nothing in it changes; the folder does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, settings: Settings) -> None:
        """Make the folder, or check that it is this evaluation's. Raises `ShelfError`."""
        path = self.folder / RECORDS / SETTINGS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.exists() and any(self.folder.iterdir()):
                raise ShelfError(
                    f"{self.folder}: holds something else; expected a new or empty folder, or one to go on with"
                )
            if path.exists():
                self._compare(settings, msgspec.json.decode(path.read_bytes(), type=Settings))
            else:
                path.parent.mkdir(exist_ok=True)
                write_json(path, settings)
        except msgspec.DecodeError as error:
            raise ShelfError(f"{path}: {error}; expected the settings of an evaluation") from error
        except OSError as error:
            raise ShelfError(f"{error.filename}: {error.strerror}; expected a folder that can be written") from error

    def masks(self, name: str) -> Path:
        """Where the masks of a sequence are."""
        return self.folder / name

    def find(self, name: str) -> Record | None:
        """The sequence's record, if it is done. Raises `ShelfError` for a damaged one."""
        path = self.folder / RECORDS / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ShelfError(f"{path}: {error}; remove it to evaluate {name} again") from error

    def put(self, record: Record) -> None:
        """The sequence is done. Raises `ShelfError`."""
        try:
            write_json(self.folder / RECORDS / f"{record.name}.json", record)
        except OSError as error:
            raise ShelfError(f"{error.filename}: {error.strerror}; expected a folder that can be written") from error

    def _compare(self, wanted: Settings, found: Settings) -> None:
        for name in Settings.__struct_fields__:
            if getattr(wanted, name) != getattr(found, name):
                raise ShelfError(
                    f"{self.folder}: was made with {name} {getattr(found, name)!r}, not {getattr(wanted, name)!r}; "
                    "expected the same settings, or another folder"
                )


def write_json(path: Path, value: Any) -> None:
    """The whole file or none. Raises OSError."""
    with moved_in(path) as beside:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
