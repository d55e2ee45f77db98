"""`Tracker`: follows objects through the frames of any number of cameras.

Owns: the engine, the memory bank, object ids and their pending prompts. One thread uses it: the worker's, or yours.
Never: knows a thread, a socket or a camera's `seq`; grows with the number of frames.

    from stream.tracker import Tracker
    tracker = Tracker.load("nano")
    tracker.add(1, points=[(640, 360, 1)])      # x, y in pixels of the next frame; label 1 = on the object, 0 = off it
    masks = tracker.step(frame_hwc)             # uint8 BGR -> Masks

Algorithm: Ravi et al., SAM 2: Segment Anything in Images and Videos (2024), as in
`sam2.sam2_video_predictor.SAM2VideoPredictor`.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.build import BACKENDS, EngineRequest, open_engine
from engines.spec import Engine
from stream.config import RefineOptions
from stream.device import OptionError, resolve_device, resolve_dtype
from stream.frame import Masks
from stream.guidance import CameraPolicy, Guidance, TrackerOptions
from stream.history import History
from stream.memory import MemoryBank, RowMemory
from stream.policy import PolicyName
from stream.prepare import Upload, check_picture
from stream.prompt import Prompt, PromptError, check_inside, checked_id, checked_prompt
from stream.readout import Readout
from stream.recall import Recall
from stream.refine import Refinement
from stream.step import Steps
from stream.turn import Equipment, Snapshot, TrackedObject, Turn
from stream.verdict import PendingMasks

__all__ = ["Tracker", "TrackerOptions", "load_engine"]

Image = NDArray[np.uint8]
Bits = NDArray[np.bool_]
Points = Sequence[tuple[float, float, int]]
Box = Sequence[float]


def load_engine(
    model: str,
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "eager",
) -> Engine:
    """The programs of `"nano"` or of a SAM 2 model such as `"sam2.1-hiera-tiny"`, ready to run.

    `device`: auto, cpu, cuda, cuda:N. `dtype`: auto, fp32, bf16, fp16. `backend`: eager, compiled, tensorrt,
    tensorrt-rtx; the last two use the plans that `sam2-stream engines build` left, and compiled for the rest. Raises
    `engines.weights.WeightsError` about the checkpoint, `engines.spec.BackendMissing` about what is not installed,
    `OptionError` naming another argument and what was expected.
    """
    if backend not in BACKENDS:
        raise OptionError(f"backend is {backend!r}; expected {', '.join(BACKENDS)}")
    where, weights = resolve_device(device), None if checkpoint is None else Path(checkpoint)
    return open_engine(EngineRequest(model, weights, where, resolve_dtype(dtype, where), backend))


class Tracker:
    """All fields are written by the one thread that uses the tracker."""

    def __init__(self, engine: Engine, options: TrackerOptions | None = None) -> None:
        self.engine = engine
        self.options = options or TrackerOptions()
        limit = engine.spec.num_memories
        if not 1 <= self.options.max_cond_frames <= limit:
            raise OptionError(f"max_cond_frames is {self.options.max_cond_frames}; expected 1 to {limit}")
        self._bank = MemoryBank(
            engine.spec, device=engine.device, dtype=engine.memory_dtype, max_cond=self.options.max_cond_frames
        )
        self.steps = Steps(engine, self._bank)
        self._history = History()
        ways = Upload(engine.spec.image_size, engine.device), Readout(engine.device)
        self._guidance = Guidance(CameraPolicy.checked(self.options.memory_policy, self.options.camera_motion))
        self._refined = Refinement()
        self._equipment = Equipment(engine, self._bank, self.steps, self._history, *ways, self._guidance, self._refined)
        self._objects: dict[tuple[str, int], TrackedObject] = {}

    @classmethod
    def load(
        cls,
        model: str,
        checkpoint: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "eager",
    ) -> Tracker:
        """A tracker with default options; arguments and errors as for `load_engine`."""
        return cls(load_engine(model, checkpoint, device=device, dtype=dtype, backend=backend))

    @property
    def image_size(self) -> int:
        """Pixels; pictures of any size are resized to image_size x image_size for the model."""
        return self.engine.spec.image_size

    @property
    def num_objects(self) -> int:
        """Objects of all cameras."""
        return len(self._objects)

    @property
    def logits_nhw(self) -> Tensor:
        """Low-resolution logits of the last turn's objects, oldest first; the next turn writes over them."""
        return self.steps.results.part(0, self.num_objects)[0]

    def object_ids(self, camera: str = "") -> tuple[int, ...]:
        """Ids of a camera's objects, oldest first."""
        return tuple(item.object_id for item in self._objects.values() if item.camera == camera)

    def waiting_ids(self, camera: str = "") -> tuple[int, ...]:
        """Ids of a camera's objects with a prompt that waits for the next frame."""
        return tuple(i for (name, i), item in self._objects.items() if name == camera and (item.added or item.refined))

    def add(
        self, object_id: int, *, points: Points = (), box: Box | None = None, mask: Bits | None = None, camera: str = ""
    ) -> None:
        """Prompt an object on the next frame, without regard to its memory; an unknown id is a new object.

        Give points (x, y, label), a box (x0, y0, x1, y1), both, or a mask (height, width), in pixels of that frame.
        It replaces what was asked for this object since the last frame. Raises `PromptError`.
        """
        key = (camera, checked_id(object_id))
        prompt = checked_prompt(points=points, box=box, mask=mask)
        if key not in self._objects:
            self._objects[key] = TrackedObject(*key, self._bank.acquire())
        self._objects[key].added, self._objects[key].refined = prompt, None

    def refine(
        self, object_id: int, *, points: Points = (), box: Box | None = None, mask: Bits | None = None, camera: str = ""
    ) -> None:
        """Correct an object on the next frame, starting from its mask there; arguments as for `add`.

        It replaces an earlier correction for the same frame, and corrects an `add` for it. Raises `PromptError`, also
        for an unknown id.
        """
        self._find(object_id, camera).refined = checked_prompt(points=points, box=box, mask=mask)

    def remove(self, object_id: int, *, camera: str = "") -> None:
        """Forget an object. Raises `PromptError` for an unknown id."""
        self._forget(self._find(object_id, camera))

    def rename(self, object_id: int, new_id: int, *, camera: str = "") -> None:
        """Give an object another id; its memory stays. Raises `PromptError` for an unknown id or one in use."""
        item, new_id = self._find(object_id, camera), checked_id(new_id)
        if (camera, new_id) in self._objects:
            raise PromptError(f"object id {new_id} is in use; expected an id that no object has")
        item.object_id = new_id
        self._objects = {(entry.camera, entry.object_id): entry for entry in self._objects.values()}

    def set_policy(self, object_id: int, policy: PolicyName | None, *, camera: str = "") -> None:
        """Keep an object's memory so; None: as its camera's. Raises `PromptError` for an unknown id."""
        self._find(object_id, camera).policy = None if policy is None else CameraPolicy.checked(policy).memory_policy

    def set_camera_policy(self, camera: str, memory_policy: PolicyName | None, *, camera_motion: bool = False) -> None:
        """How this camera's memory is kept, from its next picture on; None: as the options say. `OptionError`."""
        self._guidance.set(camera, memory_policy and CameraPolicy.checked(memory_policy, camera_motion))

    def refine_masks(self, options: RefineOptions | None, *, object_id: int | None = None, camera: str = "") -> None:
        """How masks are refined before they leave: a camera's, or one object's (None: as its camera's)."""
        self._refined.set(options, camera, None if object_id is None else self._find(object_id, camera).finish)

    def snapshot(self, object_id: int, *, camera: str = "") -> Snapshot:
        """A copy of all that is known of an object. Raises `PromptError` for an unknown id."""
        return Snapshot.of(self._find(object_id, camera), self._bank, self._guidance)

    def restore(self, object_id: int, snapshot: Snapshot, *, camera: str = "") -> None:
        """Make an object what it was; an unknown id is a new object. For it no time has passed since."""
        key = camera, checked_id(object_id)
        if key in self._objects and snapshot.memory is None:
            self._forget(self._objects[key])  # as it was before its first picture
        if key not in self._objects:
            self._objects[key] = TrackedObject(*key, self._bank.acquire())
        snapshot.put_back(self._objects[key], self._bank, self._guidance)

    def remembers(self, camera: str, mark: Hashable) -> bool:
        """Whether the picture that `launch` was given as `mark` is still kept."""
        return self._history.find(camera, mark) is not None

    def prompt_past(self, object_id: int, prompt: Prompt, mark: Hashable, *, camera: str, refine: bool) -> bool:
        """`add`, or `refine`, on a picture that is remembered; at once, see `stream.recall`.

        False, and nothing has changed, when the picture or the object's mask there is not known any more.
        """
        key, picture = (camera, checked_id(object_id)), self._history.find(camera, mark)
        if picture is None:
            return False
        recall = Recall(self.engine, self._bank, self._history, camera, picture)
        if refine:
            item = self._find(object_id, camera)
            is_done = item.added is None and recall.refine(item.row, item, prompt, as_cond=self.options.refine_as_cond)
            item.motion, item.finish.before_hw = (None, None) if is_done else (item.motion, item.finish.before_hw)
            return is_done
        if key in self._objects and self._bank.num_frames(self._objects[key].row) < recall.distance:
            self._forget(self._objects[key])  # it is younger than the picture
        if key not in self._objects:
            self._objects[key] = TrackedObject(*key, self._bank.acquire())
        item = self._objects[key]
        item.added = item.refined = item.motion = item.finish.before_hw = None
        recall.add(item.row, item, prompt)
        return True

    def forget_pictures(self, camera: str) -> None:
        """Keep no pictures of this camera any more, until `launch` is given a mark again."""
        self._history.drop(camera)

    def accepts(self, memory: RowMemory) -> bool:
        """Whether a memory from elsewhere fits this model and its options."""
        return self._bank.accepts(memory)

    def reset(self, camera: str | None = None) -> None:
        """Forget all objects, or those of one camera."""
        self._guidance.drop(camera)
        for item in [o for o in self._objects.values() if camera in (None, o.camera)]:
            self._forget(item)

    def step(self, frame_hwc: Image, *, time_ns: int | None = None) -> Masks:
        """Process one picture (height, width, 3) uint8 BGR and wait for its masks.

        `time_ns` (monotonic, default now) decides when an object counts as lost. Raises ValueError for a picture of a
        wrong shape or type, `PromptError` for a prompt outside it; that prompt is dropped and nothing else changes.
        """
        return self.launch({"": frame_hwc}, {"": time.monotonic_ns() if time_ns is None else time_ns})[""].resolve()

    def wait_room(self) -> None:
        """Wait until the device has not more than one turn to compute; on a CPU, not at all."""
        self._equipment.readout.wait_room()

    def launch(
        self, images: Mapping[str, Image], times_ns: Mapping[str, int], *, marks: Mapping[str, Hashable] | None = None
    ) -> dict[str, PendingMasks]:
        """Process one picture of each given camera as one batch, without waiting; see `step` for errors.

        A camera without objects is not encoded, unless `marks` names its picture: then it is kept for `prompt_past`.
        """
        marks = marks or {}
        for camera, image in images.items():
            check_picture(image)
            for error in self._misfits(camera, image.shape[0], image.shape[1]):
                raise error
        for camera in images.keys() - marks.keys():
            self._history.count(camera)
        cameras_in_use = {item.camera for item in self._objects.values()} | marks.keys()
        busy = [camera for camera in images if camera in cameras_in_use]
        pending = {camera: PendingMasks.nothing(*images[camera].shape[:2]) for camera in images}
        most = self.engine.frame_buckets[-1]
        for part in (busy[start : start + most] for start in range(0, len(busy), most)):
            kept = {camera: marks[camera] for camera in part if camera in marks}
            pending |= self._turn({camera: images[camera] for camera in part}, times_ns, kept)
        return pending

    def _turn(
        self, images: dict[str, Image], times_ns: Mapping[str, int], marks: Mapping[str, Hashable]
    ) -> dict[str, PendingMasks]:
        objects = [item for camera in images for item in self._objects.values() if item.camera == camera]
        turn = Turn(self._equipment, images=images, objects=objects, marks=marks)
        turn.run(refine_as_cond=self.options.refine_as_cond)
        return turn.read_out(times_ns)

    def drop_misfits(self, camera: str, height: int, width: int) -> list[PromptError]:
        """Drop prompts that do not fit the camera's next picture, and new objects with them: the errors."""
        return list(self._misfits(camera, height, width))

    def _misfits(self, camera: str, height: int, width: int) -> Iterator[PromptError]:
        for item in [o for o in self._objects.values() if o.camera == camera]:
            try:
                for prompt in filter(None, (item.added, item.refined)):
                    check_inside(prompt, height, width)
            except PromptError as error:
                self._drop_prompts(item)
                yield error

    def _drop_prompts(self, item: TrackedObject) -> None:
        item.added = item.refined = None
        if self._bank.age(item.row) == 0:
            self._forget(item)

    def _forget(self, item: TrackedObject) -> None:
        del self._objects[item.camera, item.object_id]
        self._bank.release(item.row)

    def _find(self, object_id: int, camera: str) -> TrackedObject:
        item = self._objects.get((camera, checked_id(object_id)))
        if item is None:
            known = ", ".join(map(str, self.object_ids(camera))) or "none"
            raise PromptError(f"there is no object {object_id!r}; known ids: {known}")
        return item
