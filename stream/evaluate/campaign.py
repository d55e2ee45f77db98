"""`Campaign`: a tracker through all sequences of a data set, scored while it runs.

Owns: the order of sequences, and what is skipped because it is done. The tracker's thread. Never: keeps a mask longer
than its picture; draws a progress bar itself.

    from stream.evaluate import evaluate_tracker, find_material
    summary = evaluate_tracker(tracker, find_material("generated:10"), prompt="click")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines.spec import Engine
from stream.config import EnhanceOptions
from stream.enhance import Enhancer
from stream.evaluate.fitting import shares_no_pixel
from stream.evaluate.marker import Marker
from stream.evaluate.material import Material
from stream.evaluate.progress import Progress
from stream.evaluate.protocol import PromptKind
from stream.evaluate.pursuit import pursue
from stream.evaluate.shelf import Record, Shelf
from stream.evaluate.speed import Pace
from stream.masksets import DavisWriter, ObjectWriter
from stream.quality import SequenceScore, Summary, summarise
from stream.sequence import MaskFileError
from stream.tracker import Tracker


class Campaign:
    """`records` is written by the tracker's thread, one for each sequence that is done."""

    def __init__(
        self,
        tracker: Tracker,
        materials: Sequence[Material],
        *,
        prompt: PromptKind = "mask",
        shelf: Shelf | None = None,
        enhance: EnhanceOptions | None = None,
    ) -> None:
        self.records: list[Record] = []
        self._tracker, self._materials, self._prompt, self._shelf = tracker, materials, prompt, shelf
        self._enhancer = Enhancer(enhance or EnhanceOptions())

    def run(self) -> Iterator[Progress]:
        """Evaluate what is not done yet; one value a picture. Raises `FootageError`, `MaskFileError`, `ShelfError`."""
        num_pictures, num_done = sum(material.truth.num_frames for material in self._materials), 0
        for material in self._materials:
            record = self._shelf.find(material.name) if self._shelf is not None else None
            if record is None:
                for place in self._evaluate(material):
                    yield Progress(material.name, num_done + min(place, material.truth.num_frames), num_pictures)
            else:
                self.records.append(record)
            num_done += material.truth.num_frames
            yield Progress(material.name, num_done, num_pictures)

    def _evaluate(self, material: Material) -> Iterator[int]:
        marker, pace, writer = Marker(material.truth), Pace(), self._writer(material)
        for place, sight in enumerate(pursue(self._tracker, material, self._prompt, enhancer=self._enhancer), start=1):
            pace = pace.and_sight(sight)
            marker.put(sight)
            if writer is not None:
                writer.put(sight.picture.index, sight.found.masks, size=material.truth.size, name=sight.picture.name)
            yield place
        record = Record(name=material.name, score=marker.finish(), pace=pace)
        if self._shelf is not None:
            self._shelf.put(record)
        self.records.append(record)

    def _writer(self, material: Material) -> DavisWriter | ObjectWriter | None:
        if self._shelf is None:
            return None
        kind = DavisWriter if shares_no_pixel(material.truth) else ObjectWriter
        return kind(self._shelf.masks(material.name))


def evaluate_tracker(
    tracker: Tracker | Engine, materials: Sequence[Material], *, prompt: PromptKind = "mask"
) -> Summary:
    """Quality over all these sequences; objects that the tracker knew are forgotten.

    Raises `FootageError`, `MaskFileError`, also where nothing can be measured.
    """
    campaign = Campaign(tracker if isinstance(tracker, Tracker) else Tracker(tracker), materials, prompt=prompt)
    for _ in campaign.run():
        continue
    summary = summarise(scores_of(campaign.records))
    if summary is None:
        raise MaskFileError(f"{len(materials)} sequences without an object to score; expected three annotated pictures")
    return summary


def scores_of(records: Sequence[Record]) -> list[SequenceScore]:
    """Of the sequences that could be scored."""
    return [record.score for record in records if record.score is not None]
