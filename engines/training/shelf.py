"""Real textures at hand while training: a bank's cut-outs and pictures, read once.

Owns what has been read; written by the thread that draws. Never gives anything of a clip that is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.synthetic.bank import Entry, read_index, read_texture
from engines.synthetic.texture import Image

NUM_CUTOUTS = 6
NUM_PICTURES = 2
MIN_QUALITY = 8.0
"""Grey levels that a cut-out differs by from what is around it; below, its outline is no outline."""


class Shelf:
    """A bank whose textures are drawn at random."""

    def __init__(self, bank: Path, *, leave_out: tuple[str, ...] = ()) -> None:
        self._bank = bank
        self.entries = read_index(bank, leave_out=leave_out)
        self._pictures = [entry for entry in self.entries if entry.kind == "picture"]
        cutouts = [entry for entry in self.entries if entry.kind != "picture" and entry.quality >= MIN_QUALITY]
        if not cutouts or not self._pictures:
            raise ValueError(f"{bank} has {len(cutouts)} cut-outs and {len(self._pictures)} pictures; needs both")
        kinds = sorted({entry.kind for entry in cutouts})
        self._cutouts = [[entry for entry in cutouts if entry.kind == kind] for kind in kinds]
        self._read: dict[str, Image] = {}

    def draw(self, rng: np.random.Generator) -> tuple[Image, ...]:
        """Some cut-outs (BGRA), of every kind as many, and pictures (BGR) for one scene."""
        kinds = [self._cutouts[int(i)] for i in rng.integers(len(self._cutouts), size=NUM_CUTOUTS)]
        chosen = [kind[int(rng.integers(len(kind)))] for kind in kinds]
        chosen += [self._pictures[int(i)] for i in rng.integers(len(self._pictures), size=NUM_PICTURES)]
        return tuple(self._texture(entry) for entry in chosen)

    def _texture(self, entry: Entry) -> Image:
        if entry.file not in self._read:
            self._read[entry.file] = read_texture(self._bank, entry)
        return self._read[entry.file]
