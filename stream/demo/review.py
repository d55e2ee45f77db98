"""What is done with the received pictures once the daemon has gone: score them, draw them, write the film.

Owns: the film while it is written. Runs in the demo's main thread. Never: believes that a picture is the one its
`seq` says: the number burnt into it must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import SyntheticClip, read_counter
from stream.demo.plan import DemoError
from stream.demo.receiver import Sample
from stream.demo.score import Quality, Scorer
from stream.movie import MovieWriter
from stream.overlay import WHITE, draw_overlay, draw_status

NUM_CELLS = 9

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture with its masks drawn, and what to say of each object."""

    image_hwc: Image
    sample: Sample
    ious: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """The verdict, and drawn pictures spread evenly over the run."""

    quality: Quality | None
    num_filmed: int
    num_unscored: int
    """Pictures of passes that lost their first picture."""
    cells: tuple[Cell, ...]


class Reviewer:
    """Written by the thread that calls `run`."""

    def __init__(self, clip: SyntheticClip | None) -> None:
        self._clip = clip
        self._scorer = Scorer(clip.spec.num_objects if clip else 0)
        self._scored_epoch: int | None = None
        self._num_unscored = 0

    def run(self, samples: Sequence[Sample], path: Path) -> Review:
        """Score and draw all samples, in order, into a film at `path`; raises DemoError, MovieError."""
        pictured = [index for index, sample in enumerate(samples) if sample.jpeg is not None]
        if not pictured:
            raise DemoError("masks came, but not one picture with them")
        chosen = {pictured[round(place)] for place in np.linspace(0, len(pictured) - 1, NUM_CELLS)}
        cells: list[Cell] = []
        with MovieWriter(path) as movie:
            for index, sample in enumerate(samples):
                cell = self._review(sample)
                if cell is None:
                    continue
                movie.put(draw_status(cell.image_hwc, _status(cell)), sample.masks.arrival_ns)
                if index in chosen:
                    cells.append(cell)
        return Review(self._scorer.quality, movie.num_pictures, self._num_unscored, tuple(cells))

    def _review(self, sample: Sample) -> Cell | None:
        image_hwc = decode_picture(sample)
        truth_nhw = self._truth(sample, image_hwc)
        ious = [] if truth_nhw is None else self._score(sample, truth_nhw, image_hwc)
        if image_hwc is None:
            return None
        for truth_hw in () if truth_nhw is None else truth_nhw:
            _outline(image_hwc, truth_hw)
        return Cell(draw_overlay(image_hwc, sample.masks.masks()), sample, tuple(ious))

    def _truth(self, sample: Sample, image_hwc: Image | None) -> NDArray[np.bool_] | None:
        """The true masks of the picture, whose burnt-in number must be the one that its `seq` says."""
        if self._clip is None:
            return None
        masks = sample.masks
        index = self._index(sample)
        if image_hwc is not None and (number := read_counter(image_hwc)) != index:
            raise DemoError(f"picture {masks.seq} of epoch {masks.epoch} shows the number {number}, expected {index}")
        return self._clip.masks(index)

    def _score(self, sample: Sample, truth_nhw: NDArray[np.bool_], image_hwc: Image | None) -> list[float]:
        """Each object's IoU; nothing in a pass that lost its first picture."""
        masks_nhw = np.stack([sample.masks.mask(number + 1) for number in range(len(truth_nhw))])
        if self._index(sample) == 0:
            self._scored_epoch = sample.masks.epoch
            self._scorer.start_pass(masks_nhw)
        if self._scored_epoch != sample.masks.epoch:
            self._num_unscored += 1
            return []
        return self._scorer.put(masks_nhw, truth_nhw, image_hwc)

    def _index(self, sample: Sample) -> int:
        """Which of the clip's pictures it is: an epoch is one pass of the whole clip."""
        assert self._clip is not None, "only a clip has numbered pictures"
        return sample.masks.seq - sample.masks.epoch * self._clip.spec.num_frames


def decode_picture(sample: Sample) -> Image | None:
    """The picture as BGR; None where it did not come."""
    if sample.jpeg is None:
        return None
    image_hwc = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image_hwc is None or image_hwc.shape[:2] != (sample.masks.height, sample.masks.width):
        raise DemoError(f"the picture of seq {sample.masks.seq} is not a JPEG of the size of its masks")
    return np.asarray(image_hwc, np.uint8)


def describe(sample: Sample, ious: Sequence[float]) -> list[str]:
    """A few words on each object, in the order of the message."""
    words = [f"{item.id} {item.state.value}" for item in sample.masks.objects]
    return [f"{word}, IoU {value:.2f}" for word, value in zip(words, ious, strict=True)] if ious else words


def _status(cell: Cell) -> str:
    return "   ".join([f"picture {cell.sample.masks.seq}", *describe(cell.sample, cell.ious)])


def _outline(image_hwc: Image, truth_hw: NDArray[np.bool_]) -> None:
    """The true outline as a thin white line, in place; the masks go over it."""
    contours, _ = cv2.findContours(truth_hw.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image_hwc, contours, -1, WHITE, 1, cv2.LINE_AA)
