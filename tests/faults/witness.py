"""The witness: receives everything that a daemon publishes, reads every number, and judges every mask.

A masks message is joined with its picture (same camera, epoch, seq); the number burnt into that picture says when it
was exposed and what is truly in it.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.synthetic import read_counter
from faults import scene
from stream.client import FrameMessage, Info, MasksMessage, Message, StateMessage, Subscriber

NEXT = (-1, 1)  # the pictures before and after
FAR = (-6, 6)  # the objects are a third of themselves elsewhere
EARLY_S = 0.02  # two processes read the same clock, and a timer may fire a little early
SMEARED = 25.0  # grey levels in the worst block; what the encoders lose stays below 12


@dataclass(frozen=True, slots=True)
class Sighting:
    """A masks message with its picture; `number` as read from the picture, None where that cannot be read."""

    masks: MasksMessage
    number: int | None
    damage: float
    received_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the masks of a stretch of time were worth."""

    num: int
    num_judged: int  # by the number of their picture, or of the pictures before and after
    iou: float  # mean, against the truth of their own pictures
    iou_of_next: float  # mean, against the truth of the picture before, or after; the better of the two
    worst_lead: float  # over the truth some pictures away; of the message for which that is least
    damage: float  # of the worst picture


class Witness:
    """Lists grow by the thread `witness` alone; tests read them. `errors` are messages that broke the specification."""

    def __init__(self, endpoint: str) -> None:
        self.masks: dict[str, list[MasksMessage]] = {}
        self.sightings: dict[str, list[Sighting]] = {}
        self.states: dict[str, list[tuple[float, StateMessage]]] = {}
        self.info: Info | None = None
        self.errors: list[Exception] = []
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._endpoint = endpoint
        self._pending: dict[tuple[int, str, int, int], MasksMessage] = {}
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        with Subscriber(self._endpoint, newest_only=False, frames=True, timeout_s=0.2) as subscriber:
            while not self._stopping.is_set():
                try:
                    message = subscriber.receive().message
                except TimeoutError:
                    continue
                except Exception as error:
                    self.errors.append(error)
                    continue
                with self._news:
                    self._note(message)
                    self._news.notify_all()

    def _note(self, message: Message) -> None:
        if isinstance(message, MasksMessage):
            self._pending[message.run, message.camera, message.epoch, message.seq] = message
            self.masks.setdefault(message.camera, []).append(message)
        elif isinstance(message, FrameMessage):
            masks = self._pending.pop((message.run, message.camera, message.epoch, message.seq), None)
            if masks is None:
                self.errors.append(AssertionError(f"a picture without masks: {message.camera} seq {message.seq}"))
                return
            picture = np.asarray(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
            number = read_counter(picture)
            damage = 255.0 if number is None else scene.damage(picture, number)
            self.sightings.setdefault(message.camera, []).append(Sighting(masks, number, damage, time.monotonic()))
        elif isinstance(message, StateMessage):
            self.states.setdefault(message.camera, []).append((time.monotonic(), message))
        elif isinstance(message, Info):
            self.info = message

    def wait(self, is_so: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> float:
        """Until it is so; the seconds that took."""
        start = time.monotonic()
        with self._news:
            if not self._news.wait_for(is_so, limit_s):
                states = {camera: states[-1][1].reason for camera, states in self.states.items()}
                raise AssertionError(f"not within {limit_s} s: {what}; states {states}; errors {self.errors}")
        return time.monotonic() - start

    def seen(self, camera: str, since_s: float, until_s: float = float("inf")) -> list[Sighting]:
        """Sightings of pictures that arrived in this stretch of time (monotonic)."""
        items = self.sightings.get(camera, [])
        return [item for item in list(items) if since_s * 1e9 <= item.masks.arrival_ns < until_s * 1e9]

    def next(self, camera: str, since_s: float, *, num: int = 1, limit_s: float = 30.0) -> list[Sighting]:
        """The first sightings of pictures that arrived after that moment, once there are `num`."""
        self.wait(lambda: len(self.seen(camera, since_s)) >= num, f"{num} pictures of {camera}", limit_s=limit_s)
        return self.seen(camera, since_s)[:num]

    def last(self, camera: str) -> Sighting:
        return self.sightings[camera][-1]

    def state(self, camera: str) -> StateMessage | None:
        return self.states[camera][-1][1] if camera in self.states else None

    def wait_refused(self, camera: str) -> None:
        """Until its last state says that the camera refused the name or password; a time may hold the digits, too."""

        def is_refused() -> bool:
            state = self.state(camera)
            return state is not None and "(401)" in state.reason

        self.wait(is_refused, f"{camera} refuses")

    def wait_state(self, camera: str, condition: str, *, since_s: float = 0.0, limit_s: float = 30.0) -> StateMessage:
        """The first state of that condition received after that moment."""

        def found() -> list[StateMessage]:
            states = self.states.get(camera, [])
            return [state for when_s, state in states if when_s >= since_s and state.condition == condition]

        self.wait(lambda: bool(found()), f"{camera} {condition}", limit_s=limit_s)
        return found()[0]

    def first_with_objects_s(self, camera: str, since_s: float) -> float:
        """When the first picture with objects arrived (monotonic); prompts given by command come later."""
        return next(item for item in self.seen(camera, since_s) if item.masks.objects).masks.arrival_ns / 1e9

    @property
    def cameras(self) -> list[str]:
        """The daemon's, as it says."""
        return [] if self.info is None else [camera.name for camera in self.info.cameras]

    # --- judging -----------------------------------------------------------------------------------------------------

    def judge(self, camera: str, since_s: float, until_s: float = float("inf")) -> Verdict:
        """The masks of a stretch of time against the truth of their own pictures, and of the neighbours."""
        masks = [item for item in self.masks.get(camera, []) if since_s * 1e9 <= item.arrival_ns < until_s * 1e9]
        sightings = self.seen(camera, since_s, until_s)
        numbers = numbers_by_seq(sightings)
        pairs = [(item, number) for item in masks if (number := numbers(item)) is not None and item.objects]
        own_n = overlaps(pairs, 0)
        return Verdict(
            num=len(masks),
            num_judged=len(pairs),
            iou=float(own_n.mean()) if pairs else 0.0,
            iou_of_next=max(float(overlaps(pairs, shift).mean()) for shift in NEXT) if pairs else 1.0,
            worst_lead=min(float((own_n - overlaps(pairs, shift)).min()) for shift in FAR) if pairs else -1.0,
            damage=max((item.damage for item in sightings), default=0.0),
        )

    def check_order(
        self, camera: str, since_s: float, until_s: float = float("inf"), *, exposed_s: Callable[[int], float],
        is_frozen: bool = False,
    ) -> None:  # fmt: skip
        """Every picture shows its number, in order, none under another's seq, none before it was exposed."""
        sightings = self.seen(camera, since_s, until_s)
        for item in sightings:
            assert item.number is not None, f"{camera} seq {item.masks.seq}: the picture shows no number"
            early_s = exposed_s(item.number) - item.masks.arrival_ns / 1e9
            assert early_s < EARLY_S, f"{camera} seq {item.masks.seq} came {early_s:.3f} s before it was taken"
        for before, after in itertools.pairwise(sightings):
            assert before.number is not None and after.number is not None
            steps = after.masks.seq - before.masks.seq
            assert steps > 0, f"{camera}: seq {after.masks.seq} after {before.masks.seq}"
            passed = after.number - before.number
            where = (
                f"{camera}: seq {before.masks.seq} shows {before.number}, seq {after.masks.seq} shows {after.number}"
            )
            assert passed >= (0 if is_frozen else steps), where


def numbers_by_seq(sightings: Sequence[Sighting]) -> Callable[[MasksMessage], int | None]:
    """A message's number: its picture's own, or what pictures before and after it leave no doubt about."""
    found = {(item.masks.run, item.masks.seq): item.number for item in sightings if item.number is not None}
    keys = sorted(found)

    def number(message: MasksMessage) -> int | None:
        key = (message.run, message.seq)
        if key in found:
            return found[key]
        at = bisect.bisect(keys, key)
        if not 0 < at < len(keys):
            return None
        before, after = keys[at - 1], keys[at]
        steps, passed = after[1] - before[1], found[after] - found[before]
        if before[0] != after[0] or steps <= 0 or passed % steps:
            return None
        return found[before] + (passed // steps) * (message.seq - before[1])

    return number


def overlaps(pairs: Sequence[tuple[MasksMessage, int]], shift: int) -> NDArray[np.float64]:
    """Of each message with the truth of the picture so many numbers away."""
    return np.array([overlap(message, number + shift) for message, number in pairs], np.float64)


def overlap(message: MasksMessage, number: int) -> float:
    """Mean IoU of a message's objects with the truth of a number."""
    values = []
    for item in message.objects:
        mask, truth = message.mask(item.id), scene.truth(number, item.id, (message.width, message.height))
        union = int((mask | truth).sum())
        values.append(float((mask & truth).sum()) / union if union else 1.0)
    return float(np.mean(values))
