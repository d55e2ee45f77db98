"""`ClipRun`: one video from its first picture to its last, or from where it was killed.

Owns: the order of reading, prompting, tracking, writing and keeping. Runs in the thread that owns the tracker. Never:
holds more than two pictures, or goes on with anything that an undisturbed run would not have had.

After every chunk of pictures all results are complete and the tracker's memory is on the disk. A run that was killed
goes on there: what it had written since is written again, the same. A film's parts are as long as chunks, so that its
bytes are the same, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from stream.enhance import Enhancer
from stream.footage import PictureFolder, VideoFile, open_footage
from stream.prompt import PromptError
from stream.segment.keeping import Keeper, KeptObject, State, Summary
from stream.segment.outputs import Found, Outputs
from stream.segment.plan import Plan, check_reached, plan_of
from stream.segment.prompts import GivenPrompt
from stream.segment.request import SegmentError, Task
from stream.segment.snapshots import SnapshotError, decode_snapshot, encode_snapshot
from stream.sequence import Picture
from stream.tracker import Tracker
from stream.verdict import PendingMasks

__all__ = ["ClipRun", "Progress", "Summary"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video is; `num_total` is None where the file does not tell how long it is."""

    name: str
    num_done: int
    num_total: int | None


class ClipRun:
    """Written by the thread that calls `run`. The tracker is opened once all else is known to be right."""

    def __init__(
        self, task: Task, open_tracker: Callable[[], Tracker], tell: Callable[[Progress], None] | None = None
    ) -> None:
        self._task, self._open_tracker, self._tell = task, open_tracker, tell
        self._enhance = Enhancer(task.settings.enhance).apply
        self._num_seen = 0  # pictures of the video, as far as it was read
        self._num_done = 0
        self._first_index: int | None = None
        self._last: tuple[int, int] | None = None  # number and time of the last processed picture
        self._size: tuple[int, int] | None = None  # of the first one

    def run(self) -> Summary:
        """The summary; that of an earlier run if it came to the end. Raises one of `stream.segment.crew.RUN_ERRORS`."""
        keeper = Keeper(self._task)
        if self._task.settings.overwrite:
            keeper.clear()
        done = keeper.done()
        if done is not None:
            return done
        state = keeper.state()
        footage = open_footage(self._task.source)
        plan = plan_of(self._task, footage)
        self._tracker, self._begun = self._prepared(), time.monotonic()
        keeper.begin()
        if state is not None:
            self._restore(state)
        with closing(Outputs(self._task, state)) as outputs:
            self._process(plan, footage, keeper=keeper, outputs=outputs)
            outputs.seal()
            outputs.finish()
        summary = self._summary(plan, footage)
        keeper.finish(summary)
        return summary

    def _prepared(self) -> Tracker:
        """A tracker that knows nothing of an earlier video; each is a camera of its own."""
        tracker, settings = self._open_tracker(), self._task.settings
        tracker.reset()
        tracker.set_camera_policy(self._task.name, settings.memory_policy, camera_motion=settings.camera_motion)
        tracker.refine_masks(settings.refine, camera=self._task.name)
        return tracker

    @property
    def _engine(self) -> str:
        engine = self._tracker.engine
        return f"{engine.spec.name} on {engine.device}, {engine.backend}"

    def _process(self, plan: Plan, footage: VideoFile | PictureFolder, *, keeper: Keeper, outputs: Outputs) -> None:
        """One picture is computed while the one before is written, where the device is another than the CPU."""
        total, waiting = plan.num_wanted(footage.num_frames), None
        self._say(total)
        for picture in self._wanted(plan, footage):
            pending = self._launch(plan, picture)
            if waiting is not None:
                self._put(outputs, plan, waiting)
            waiting = (picture, pending)
            self._num_done += 1
            if self._num_done % self._task.settings.chunk == 0:
                self._put(outputs, plan, waiting)
                waiting = None
                outputs.seal()
                self._keep(keeper, outputs, picture)
            self._say(total)
        if waiting is not None:
            self._put(outputs, plan, waiting)
        if self._last is None:
            raise SegmentError(f"{self._task.source}: it ends before picture {plan.start}, expected an earlier start")

    def _wanted(self, plan: Plan, footage: VideoFile | PictureFolder) -> Iterator[Picture]:
        """The pictures that are processed, after those that were."""
        if self._last is None:
            pictures = footage.pictures(plan.start)
        else:
            pictures = footage.pictures(self._last[0], time_ns=self._last[1])
        for picture in pictures:
            if plan.ends_at(picture.index):
                return
            self._num_seen = picture.index + 1
            if plan.wants(picture.index) and (self._last is None or picture.index > self._last[0]):
                self._first_index = picture.index if self._first_index is None else self._first_index
                self._size = self._size or (picture.image_hwc.shape[0], picture.image_hwc.shape[1])
                yield picture
                self._last = picture.index, picture.time_ns
        if self._last is not None:
            check_reached(plan, self._task, self._num_seen)

    def _launch(self, plan: Plan, picture: Picture) -> PendingMasks:
        name, size = self._task.name, (picture.image_hwc.shape[0], picture.image_hwc.shape[1])
        try:
            for given in plan.prompts.get(picture.index, ()):
                self._prompt(given, size)
            return self._tracker.launch({name: self._enhance(picture.image_hwc)}, {name: picture.time_ns})[name]
        except PromptError as error:
            raise SegmentError(f"{self._task.source}, picture {picture.index}: {error}") from error

    def _prompt(self, given: GivenPrompt, size: tuple[int, int]) -> None:
        prompt = given.load(size)
        is_known = given.object_id in self._tracker.object_ids(self._task.name)
        put = self._tracker.refine if is_known and prompt.mask_hw is None else self._tracker.add
        put(given.object_id, points=prompt.points, box=prompt.box, mask=prompt.mask_hw, camera=self._task.name)

    def _put(self, outputs: Outputs, plan: Plan, waiting: tuple[Picture, PendingMasks]) -> None:
        picture, masks = waiting[0], waiting[1].resolve()
        outputs.put(Found(picture, masks, masks.masks_nhw, plan.labels))

    # --- what survives a kill ----------------------------------------------------------------------------------------

    def _keep(self, keeper: Keeper, outputs: Outputs, last: Picture) -> None:
        assert self._first_index is not None and self._size is not None, "a picture was processed"
        tracker, camera = self._tracker, self._task.name
        snapshots = [(each, tracker.snapshot(each, camera=camera)) for each in tracker.object_ids(camera)]
        objects = tuple(KeptObject(id=each, snapshot=encode_snapshot(found)) for each, found in snapshots)
        keeper.keep(
            State(
                fingerprint=keeper.fingerprint, first_index=self._first_index, last_index=last.index,
                last_time_ns=last.time_ns, num_pictures=self._num_done, seconds=time.monotonic() - self._begun,
                size=self._size, objects=objects, parts=outputs.parts, engine=self._engine,
            )
        )  # fmt: skip

    def _restore(self, state: State) -> None:
        """As after the picture that the state was kept after."""
        self._num_done, self._first_index, self._size = state.num_pictures, state.first_index, state.size
        self._last = state.last_index, state.last_time_ns
        self._begun -= state.seconds  # what runs took that were killed
        if state.engine != self._engine:
            log.warning("%s: begun with %s, goes on with %s", self._task.name, state.engine, self._engine)
        try:
            for kept in state.objects:
                snapshot = decode_snapshot(kept.snapshot)
                if snapshot.memory is not None and not self._tracker.accepts(snapshot.memory):
                    raise SnapshotError("its memory is of another model")
                self._tracker.restore(kept.id, snapshot, camera=self._task.name)
        except SnapshotError as error:
            raise SegmentError(
                f"{self._task.out}: {self._task.name} cannot go on: {error}, expected the program and model that "
                "began it; --overwrite begins anew"
            ) from error

    def _summary(self, plan: Plan, footage: VideoFile | PictureFolder) -> Summary:
        assert self._first_index is not None and self._last is not None, "a picture was processed"
        ids = {prompt.object_id for prompts in plan.prompts.values() for prompt in prompts}
        files = tuple(str(self._task.path(name)) for name in self._task.settings.formats)
        return Summary(
            name=self._task.name, source=self._task.source, num_pictures=self._num_done, first_index=self._first_index,
            last_index=self._last[0], seconds=time.monotonic() - self._begun, num_objects=len(ids), files=files,
            remarks=footage.remarks, engine=self._engine,
        )  # fmt: skip

    def _say(self, num_total: int | None) -> None:
        if self._tell is not None:
            self._tell(Progress(self._task.name, self._num_done, num_total))
