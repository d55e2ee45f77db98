"""Where masks are written picture by picture: a folder of indexed PNG, folders for each object, or JSON lines.

Owns: the files while they are written. Thread: the one that made the writer. Never: holds more than one picture, or
leaves a picture or line that is half written and looks whole.

To go on after a kill: PNG are whole or not there, and the same picture written again gives the same bytes; lines from
`resume_at` on are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from stream.masksets.indexed import indexed_of, write_indexed
from stream.masksets.lines import RleLine, scan
from stream.sequence import Bits

ENCODER = msgspec.json.Encoder()


class DavisWriter:
    """Indexed PNG with the palette of DAVIS, `00000.png` or by the name of the video's picture. Holds no state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, index: int, masks: Mapping[int, Bits], *, size: tuple[int, int], name: str = "") -> Path:
        """Where objects overlap, the lowest id is written; ids are 1 to 254, or `MaskFileError`."""
        path = self.folder / f"{name or f'{index:05d}'}.png"
        write_indexed(path, indexed_of(masks, size))
        return path


class ObjectWriter:
    """A folder for each object, `000/00000.png`, as SA-V's evaluation has them: ids 0 to 999, which may overlap."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, index: int, masks: Mapping[int, Bits], *, size: tuple[int, int], name: str = "") -> None:
        for object_id, mask_hw in masks.items():
            folder = self.folder / f"{object_id:03d}"
            folder.mkdir(exist_ok=True)
            write_indexed(folder / f"{name or f'{index:05d}'}.png", indexed_of({1: mask_hw}, size))


class RleWriter:
    """JSON lines. Written by the thread that made it: `last_index`, the last picture in the file."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        """A new file, in place of one that may be there; or its lines of pictures before `resume_at`, to go on."""
        self.path = path
        self.last_index: int | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        end = self._end_before(resume_at) if resume_at is not None and path.exists() else 0
        self._file = path.open("r+b" if end else "wb", buffering=0)
        self._file.truncate(end)
        self._file.seek(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, line: RleLine) -> None:
        """One unbuffered write; pictures come in order."""
        last = self.last_index
        assert last is None or line.index > last, f"picture {line.index} after {last}, expected a later one"
        data = memoryview(ENCODER.encode(line) + b"\n")
        while data:
            data = data[self._file.write(data) :]
        self.last_index = line.index

    def close(self) -> None:
        self._file.close()

    def _end_before(self, resume_at: int) -> int:
        end = 0
        for _, line_end, head in scan(self.path):
            if head.index >= resume_at:
                break
            end, self.last_index = line_end, head.index
        return end
