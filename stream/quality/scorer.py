"""`SequenceScorer`: measures a sequence picture by picture.

Owns: the running figures of one sequence. Thread: the one that made it. Never: keeps masks of more than two pictures.

An object of truth is scored from the picture after the one that shows it first: there a tracker is given it, as DAVIS
gives the first picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stream.quality.blob import EMPTY, Blob, blob_of, iou, num_both
from stream.quality.boundary import boundary_f
from stream.quality.identity import Identity
from stream.quality.precision import Detections
from stream.quality.score import ObjectScore, SequenceScore
from stream.quality.stability import Stability
from stream.sequence import LabelledFrame, MaskFileError

Blobs = dict[int, Blob]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a sequence before its first picture."""

    name: str
    size: tuple[int, int]
    labels: Mapping[int, str] = field(default_factory=dict)  # of truth; none at all: labels do not count
    predicted_labels: Mapping[int, str] = field(default_factory=dict)
    pairs: Mapping[int, int] | None = None  # truth's id to the prediction's; None: they are the same


class ObjectTally:
    """Lists that grow by an entry for each picture. Written by the scorer's thread."""

    def __init__(self, object_id: int) -> None:
        self.frames: list[int] = []
        self.j: list[float] = []
        self.f: list[float] = []
        self.counts: list[tuple[int, int, int]] = []
        self.identity = Identity(object_id)
        self.stability = Stability()


class SequenceScorer:
    """Written by the thread that made it: `num_missing` and the running figures."""

    def __init__(self, scene: Scene, *, skip_ends: bool = True) -> None:
        self.scene, self._skip_first = scene, skip_ends
        self.num_missing = 0
        self._frames: list[int] = []
        self._tallies: dict[int, ObjectTally] = {}
        self._predicted: set[int] = set()
        self._detections: dict[str, Detections] = {}

    def put(self, truth: LabelledFrame, prediction: LabelledFrame | None, *, is_scored: bool = True) -> None:
        """The next picture. `is_scored=False`: an end of the sequence; what appears there is known from then on."""
        theirs = {object_id: self._cut(mask_hw, "truth") for object_id, mask_hw in truth.masks.items()}
        known = list(self._tallies)
        appeared = [object_id for object_id, blob in theirs.items() if blob.area and object_id not in self._tallies]
        self._tallies.update({object_id: ObjectTally(object_id) for object_id in appeared})
        if not is_scored:
            return
        self._frames.append(truth.index)
        self.num_missing += prediction is None
        frame = prediction or LabelledFrame(truth.index, {})
        ours = {object_id: self._cut(mask_hw, "prediction") for object_id, mask_hw in frame.masks.items()}
        self._predicted.update(object_id for object_id, blob in ours.items() if blob.area)
        for object_id in known if self._skip_first else self._tallies:
            self._put_object(object_id, truth.index, theirs=theirs, ours=ours)
        self._put_detections(theirs, ours, frame.confidences)

    def score(self) -> SequenceScore:
        """After the last picture."""
        judged = {object_id: tally for object_id, tally in sorted(self._tallies.items()) if tally.frames}
        matched = {self._predicted_id(object_id) for object_id in self._tallies}
        return SequenceScore(
            name=self.scene.name, height=self.scene.size[0], width=self.scene.size[1], frames=tuple(self._frames),
            objects=tuple(self._object_score(object_id, tally) for object_id, tally in judged.items()),
            detections=self._detections, num_missing=self.num_missing,
            unmatched=tuple(sorted(self._predicted - matched)), hidden=tuple(sorted(self._tallies.keys() - judged)),
        )  # fmt: skip

    def _cut(self, mask_hw: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], whose: str) -> Blob:
        if mask_hw.shape != self.scene.size:
            found, expected = " x ".join(map(str, mask_hw.shape)), " x ".join(map(str, self.scene.size))
            raise MaskFileError(
                f"{whose} of {self.scene.name} has a mask of {found} pixels, expected truth's {expected}"
            )
        return blob_of(mask_hw)

    def _predicted_id(self, object_id: int) -> int | None:
        return object_id if self.scene.pairs is None else self.scene.pairs.get(object_id)

    def _put_object(self, object_id: int, index: int, *, theirs: Blobs, ours: Blobs) -> None:
        tally, truth = self._tallies[object_id], theirs.get(object_id, EMPTY)
        predicted_id = self._predicted_id(object_id)
        prediction = EMPTY if predicted_id is None else ours.get(predicted_id, EMPTY)
        tally.frames.append(index)
        tally.j.append(iou(prediction, truth))
        tally.f.append(boundary_f(prediction, truth, self.scene.size))
        tally.counts.append((num_both(prediction, truth), prediction.area, truth.area))
        others = {other: iou(prediction, blob) for other, blob in theirs.items() if other != object_id and blob.area}
        tally.identity.put(index, tally.j[-1], others, is_visible=truth.area > 0)
        tally.stability.put(prediction, truth)

    def _put_detections(self, theirs: Blobs, ours: Blobs, confidences: Mapping[int, float]) -> None:
        truth = [(self._label(object_id), blob) for object_id, blob in theirs.items() if blob.area]
        names = self._predicted_names()
        found = [(names.get(object_id, ""), object_id, blob) for object_id, blob in ours.items() if blob.area]
        for label in sorted({item[0] for item in truth} | {item[0] for item in found}):
            blobs = [blob for name, blob in truth if name == label]
            mine = [(confidences.get(object_id, 1.0), blob) for name, object_id, blob in found if name == label]
            ious = [[iou(blob, other) for other in blobs] for _, blob in mine]
            ious_dt = np.asarray(ious, np.float64).reshape(len(mine), len(blobs))
            self._detections.setdefault(label, Detections()).put([sure for sure, _ in mine], ious_dt)

    def _label(self, object_id: int) -> str:
        return self.scene.labels.get(object_id, "")

    def _predicted_names(self) -> dict[int, str]:
        """Labels of the prediction's objects; where it has none, that of the object to which it belongs."""
        if not self.scene.labels:
            return {}
        pairs = self.scene.pairs or {object_id: object_id for object_id in self.scene.labels}
        inherited = {predicted: self._label(object_id) for object_id, predicted in pairs.items()}
        return inherited | {object_id: label for object_id, label in self.scene.predicted_labels.items() if label}

    def _object_score(self, object_id: int, tally: ObjectTally) -> ObjectScore:
        tally.identity.finish()
        both, predicted, truth = zip(*tally.counts, strict=True)
        jitter, jitter_truth = tally.stability.means() or (None, None)
        return ObjectScore(
            id=object_id, predicted_id=self._predicted_id(object_id), label=self._label(object_id),
            frames=tuple(tally.frames), j=tuple(tally.j), f=tuple(tally.f),
            num_both=both, num_predicted=predicted, num_truth=truth,
            num_switches=tally.identity.num_switches, returns=tuple(tally.identity.returns),
            jitter=jitter, jitter_truth=jitter_truth,
        )  # fmt: skip
