"""The sheet: held-out pictures before and after, side by side.

Owns: which pictures are shown, and how. Runs in the training thread. Never: chooses only what became better: a third of
the rows are the worst that is left.

Green outlines are the truth, magenta ones what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stream.evaluate import Material, PromptKind
from stream.evaluate.pursuit import pursue
from stream.quality import SequenceScore
from stream.sequence import Bits, Image
from stream.tracker import Tracker

TRUTH = (80, 220, 60)  # BGR
FOUND = (200, 40, 255)
WIDTH = 320
HEADER, GAP = 22, 4
NUM_GAINS, NUM_WORST = 4, 2
INK, PAPER = (30, 30, 30), 245
Key = tuple[str, int, int]  # clip, object, picture


@dataclass(frozen=True, slots=True)
class Moment:
    """An object on a picture."""

    clip: str
    object_id: int
    index: int
    before: float  # J
    after: float


def choose(before: Sequence[SequenceScore], after: Sequence[SequenceScore]) -> list[Moment]:
    """The greatest gains, then the lowest J that are left; of each object one picture in either part."""
    every = list(_moments(before, after))
    gains = _one_each(sorted(every, key=lambda m: m.before - m.after), NUM_GAINS)
    shown = {(m.clip, m.index) for m in gains}
    left = [m for m in sorted(every, key=lambda m: m.after) if (m.clip, m.index) not in shown]
    return gains + _one_each(left, NUM_WORST)


def _moments(before: Sequence[SequenceScore], after: Sequence[SequenceScore]) -> list[Moment]:
    old = dict(_by_key(before))
    return [Moment(*key, old[key], j) for key, j in _by_key(after) if key in old]


def _by_key(scores: Sequence[SequenceScore]) -> list[tuple[Key, float]]:
    return [
        ((score.name, item.id, index), j)
        for score in scores
        for item in score.objects
        for index, j in zip(item.frames, item.j, strict=True)
    ]


def _one_each(moments: Sequence[Moment], count: int) -> list[Moment]:
    chosen: dict[tuple[str, int], Moment] = {}
    for moment in moments:
        chosen.setdefault((moment.clip, moment.object_id), moment)
    return list(chosen.values())[:count]


def draw_sheet(
    trackers: Sequence[Tracker],
    clips: Sequence[Material],
    scores: tuple[Sequence[SequenceScore], Sequence[SequenceScore]],
    *,
    prompt: PromptKind,
) -> Image:
    """Runs both trackers, before and after, over the clips that are shown."""
    moments = choose(*scores)
    rows: dict[Moment, Image] = {}
    for clip in [clip for clip in clips if clip.name in {m.clip for m in moments}]:
        here = [m for m in moments if m.clip == clip.name]
        found = [_found(tracker, clip, here, prompt=prompt) for tracker in trackers]
        rows |= {moment: _row(clip, moment, [masks[moment] for masks in found]) for moment in here}
    return np.concatenate([_title(), *(rows[moment] for moment in moments)])


def _found(
    tracker: Tracker, clip: Material, moments: Sequence[Moment], *, prompt: PromptKind
) -> dict[Moment, tuple[Image, Bits]]:
    """Picture and mask of each moment."""
    last, found = max(m.index for m in moments), {}
    for sight in pursue(tracker, clip, prompt):
        for moment in [m for m in moments if m.index == sight.picture.index]:
            nothing = np.zeros(clip.truth.size, np.bool_)
            found[moment] = sight.picture.image_hwc, sight.found.masks.get(moment.object_id, nothing)
        if sight.picture.index >= last:
            break
    return found


def _row(clip: Material, moment: Moment, found: Sequence[tuple[Image, Bits]]) -> Image:
    truth = clip.truth.frame(moment.index).masks.get(moment.object_id, np.zeros(clip.truth.size, np.bool_))
    texts = [f"{moment.clip}, object {moment.object_id}, picture {moment.index}"]
    texts += [f"before: J {moment.before:.2f}", f"after: J {moment.after:.2f}"]
    cells = [_cell(found[0][0], truth, None)] + [_cell(image, truth, mask) for image, mask in found]
    columns = [np.concatenate([_caption(text), cell]) for text, cell in zip(texts, cells, strict=True)]
    row = np.full((len(columns[0]) + GAP, 3 * (WIDTH + GAP), 3), PAPER, np.uint8)
    for place, column in enumerate(columns):
        row[: len(column), place * (WIDTH + GAP) : place * (WIDTH + GAP) + WIDTH] = column
    return row


def _cell(image_hwc: Image, truth: Bits, found: Bits | None) -> Image:
    height = round(WIDTH * image_hwc.shape[0] / image_hwc.shape[1])
    cell = np.asarray(cv2.resize(image_hwc, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    for mask, colour in ((truth, TRUTH), (found, FOUND)):
        if mask is not None:
            scaled = cv2.resize(mask.astype(np.uint8) * 255, (WIDTH, height), interpolation=cv2.INTER_LINEAR)
            outlines, _ = cv2.findContours(
                (np.asarray(scaled) > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(cell, outlines, -1, colour, 2, cv2.LINE_AA)
    return cell


def _caption(text: str) -> Image:
    strip = np.full((HEADER, WIDTH, 3), PAPER, np.uint8)
    cv2.putText(strip, text[:46], (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
    return strip


def _title() -> Image:
    text = "held-out clips; green: truth, magenta: found; the greatest gains first, then the worst that is left"
    strip = np.full((HEADER, 3 * (WIDTH + GAP), 3), PAPER, np.uint8)
    cv2.putText(strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return strip
