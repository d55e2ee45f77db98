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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.eager import EagerEngine
from engines.spec import Engine
from engines.weights import build_model
from stream.device import OptionError, resolve_device, resolve_dtype
from stream.frame import Masks
from stream.memory import MemoryBank, RowMemory
from stream.prompt import Prompt, PromptError, check_inside, checked_id, checked_prompt
from stream.readout import read_out
from stream.turn import ResultBuffer, TrackedObject, Turn
from stream.verdict import PendingMasks

Image = NDArray[np.uint8]
Points = Sequence[tuple[float, float, int]]
Box = Sequence[float]


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """How memory is kept. Prompts beyond `max_cond_frames` evict the oldest but the first."""

    max_cond_frames: int = 2
    refine_as_cond: bool = False  # official `add_all_frames_to_correct_as_cond`


def load_engine(
    model: str,
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "eager",
) -> Engine:
    """The programs of `"nano"` or of a SAM 2 model such as `"sam2.1-hiera-tiny"`, ready to run.

    `device`: auto, cpu, cuda, cuda:N. `dtype`: auto, fp32, bf16, fp16. `backend`: eager. Raises
    `engines.weights.WeightsError` about the checkpoint, `OptionError` naming another argument and what was expected.
    """
    if backend != "eager":
        raise OptionError(f"backend is {backend!r}; expected 'eager'")
    where = resolve_device(device)
    kind = resolve_dtype(dtype, where)
    network = build_model(model, None if checkpoint is None else Path(checkpoint))
    return EagerEngine(network, name=model, device=where, dtype=kind)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An object as it was; `memory` is None before its first picture."""

    memory: RowMemory | None
    added: Prompt | None
    refined: Prompt | None


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
        self._results = ResultBuffer(engine.spec.low_res_size, engine.device)
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

    def object_ids(self, camera: str = "") -> tuple[int, ...]:
        """Ids of a camera's objects, oldest first."""
        return tuple(item.object_id for item in self._objects.values() if item.camera == camera)

    def add(
        self,
        object_id: int,
        *,
        points: Points = (),
        box: Box | None = None,
        mask: NDArray[np.bool_] | None = None,
        camera: str = "",
    ) -> None:
        """Prompt an object on the next frame, without regard to its memory; an unknown id is a new object.

        Give points (x, y, label), a box (x0, y0, x1, y1), both, or a mask (height, width), in pixels of that frame.
        It replaces what was asked for this object since the last frame.
        Raises `PromptError`.
        """
        key = (camera, checked_id(object_id))
        prompt = checked_prompt(points=points, box=box, mask=mask)
        if key not in self._objects:
            self._objects[key] = TrackedObject(*key, self._bank.acquire())
        self._objects[key].added, self._objects[key].refined = prompt, None

    def refine(
        self,
        object_id: int,
        *,
        points: Points = (),
        box: Box | None = None,
        mask: NDArray[np.bool_] | None = None,
        camera: str = "",
    ) -> None:
        """Correct an object on the next frame, starting from its mask there; arguments as for `add`.

        It replaces an earlier correction for the same frame, and corrects an `add` for the same frame.
        Raises `PromptError`, also for an unknown id.
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

    def snapshot(self, object_id: int, *, camera: str = "") -> Snapshot:
        """A copy of all that is known of an object. Raises `PromptError` for an unknown id."""
        item = self._find(object_id, camera)
        memory = self._bank.export_row(item.row) if self._bank.age(item.row) else None
        return Snapshot(memory, item.added, item.refined)

    def restore(self, object_id: int, snapshot: Snapshot, *, camera: str = "") -> None:
        """Make an object what it was; an unknown id is a new object. For it no time has passed since."""
        key = (camera, checked_id(object_id))
        if key in self._objects and snapshot.memory is None:
            self._forget(self._objects[key])  # as it was before its first picture
        if key not in self._objects:
            self._objects[key] = TrackedObject(*key, self._bank.acquire())
        item = self._objects[key]
        item.added, item.refined = snapshot.added, snapshot.refined
        if snapshot.memory is not None:
            self._bank.import_row(item.row, snapshot.memory)

    def reset(self, camera: str | None = None) -> None:
        """Forget all objects, or those of one camera."""
        for item in list(self._objects.values()):
            if camera is None or item.camera == camera:
                self._forget(item)

    def step(self, frame_hwc: Image, *, time_ns: int | None = None) -> Masks:
        """Process one picture (height, width, 3) uint8 BGR and wait for its masks.

        `time_ns` (monotonic, default now) decides when an occluded object counts as lost. Raises ValueError for a
        picture of a wrong shape or type, `PromptError` for a prompt outside the picture; that prompt is dropped and
        nothing else changes.
        """
        now = time.monotonic_ns() if time_ns is None else time_ns
        return self.launch({"": frame_hwc}, {"": now})[""].resolve()

    def launch(self, images: Mapping[str, Image], times_ns: Mapping[str, int]) -> dict[str, PendingMasks]:
        """Process one picture of each given camera as one batch, without waiting; see `step` for errors.

        A camera without objects is not encoded.
        """
        for camera, image in images.items():
            _check_image(image)
            for error in self._misfits(camera, image.shape[0], image.shape[1]):
                raise error
        cameras_in_use = {item.camera for item in self._objects.values()}
        busy = [camera for camera in images if camera in cameras_in_use]
        pending = {camera: PendingMasks.nothing(*images[camera].shape[:2]) for camera in images}
        most = self.engine.frame_buckets[-1]
        for start in range(0, len(busy), most):
            part = busy[start : start + most]
            pending |= self._turn({camera: images[camera] for camera in part}, times_ns)
        return pending

    def _turn(self, images: dict[str, Image], times_ns: Mapping[str, int]) -> dict[str, PendingMasks]:
        by_camera = {camera: [o for o in self._objects.values() if o.camera == camera] for camera in images}
        objects = [item for group in by_camera.values() for item in group]
        turn = Turn(self.engine, self._bank, self._results, images=images, objects=objects)
        turn.run(refine_as_cond=self.options.refine_as_cond)
        parts, start = [], 0
        for group in by_camera.values():
            parts.append(self._results.part(start, start + len(group)))
            start += len(group)
        sizes = [(image.shape[0], image.shape[1]) for image in images.values()]
        blocks = read_out(parts, sizes)
        return {
            camera: PendingMasks(
                *size, tuple(o.object_id for o in group), tuple(o.visibility for o in group), times_ns[camera], block
            )
            for (camera, group), size, block in zip(by_camera.items(), sizes, blocks, strict=True)
        }

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


def _check_image(image: Image) -> None:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"the picture is {found}; expected uint8 (height, width, 3) in BGR order")
