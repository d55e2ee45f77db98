"""Small sequences for the tests of `evaluate`; as a program, an evaluation that is killed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
from pocket import pocket_engine

from engines.synthetic import ClipSpec, SyntheticClip
from stream.evaluate import Campaign, Material, Settings, Shelf, clip_material
from stream.masksets import DavisWriter
from stream.sequence import LabelledFrame
from stream.tracker import Tracker

SETTINGS = Settings(
    model="pocket", weights="seed 0", backend="eager", device="cpu", dtype="float32", prompt="mask",
    memory_policy="sam2", refine="off", enhance="off", data="three clips",
)  # fmt: skip


def small_clip(seed: int = 0, num_frames: int = 8) -> SyntheticClip:
    return SyntheticClip(ClipSpec(seed, num_frames=num_frames, height=96, width=112))


def three_clips() -> list[Material]:
    return [clip_material(small_clip(seed)) for seed in range(3)]


def write_davis(root: Path, name: str, clip: SyntheticClip, *, every: int = 1) -> None:
    """JPEGImages/480p and Annotations/480p, as DAVIS has them."""
    pictures, writer = root / "JPEGImages" / "480p" / name, DavisWriter(root / "Annotations" / "480p" / name)
    pictures.mkdir(parents=True)
    for index in range(clip.spec.num_frames):
        cv2.imwrite(str(pictures / f"{index:05d}.jpg"), clip.frame(index))
        if index % every == 0:
            masks = dict(enumerate(clip.masks(index), start=1))
            writer.put(index, masks, size=(clip.spec.height, clip.spec.width))


class Written:
    """True masks that a test has made up."""

    def __init__(self, frames: Sequence[LabelledFrame], size: tuple[int, int], num_frames: int) -> None:
        self.name, self.size, self.num_frames = "written", size, num_frames
        self.labels: Mapping[int, str] = {}
        self._frames = {frame.index: frame for frame in frames}

    @property
    def annotated(self) -> Sequence[int]:
        return tuple(self._frames)

    def frame(self, index: int) -> LabelledFrame:
        return self._frames[index]


def main(out: str) -> None:
    shelf = Shelf(Path(out))
    shelf.open(SETTINGS)
    for progress in Campaign(Tracker(pocket_engine()), three_clips(), shelf=shelf).run():
        print(progress.sequence, progress.num_done, flush=True)
        if (progress.sequence, progress.num_done) == ("generated-1", 12):  # the fourth picture of the second of three
            sys.stdin.read()  # until somebody kills it


if __name__ == "__main__":
    main(sys.argv[1])
