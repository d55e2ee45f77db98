"""Every command as a method: what a caller writes, made into the typed request that is sent.

Owns: the arguments of each command and how they are converted. Runs in any thread; it has no state. Never: touches a
socket: `stream.controller` asks, and waits or awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Literal, TypedDict, TypeVar, Unpack

from stream import command
from stream.command import Request, Seen, SentMask
from stream.mask_codec import Bools
from stream.message import Picture

Point = tuple[float, float] | tuple[float, float, int]
T = TypeVar("T")


class Marks(TypedDict, total=False):
    """What shows an object: points (x, y) or (x, y, label) and a box, or a mask; on the picture `seen`."""

    points: Iterable[Point]
    box: tuple[float, float, float, float] | None
    mask: Bools | None
    seen: Seen | Picture | None


class NewObject(Marks, total=False):
    object_id: int | None
    label: str


class Commands(Generic[T]):
    """Every command as a method; `T` is what asking gives: the reply, or one to be awaited."""

    def add(self, camera: str, **marks: Unpack[NewObject]) -> T:
        """A new object, or a known one anew; points, box or mask, object_id, label, seen. The reply has its id."""
        object_id, label = marks.get("object_id"), marks.get("label", "")
        points, box, mask, seen = _sent(marks)
        return self._ask(
            command.Add(
                camera=camera, points=points, box=box, mask=mask, seen=seen,
                object_id=None if object_id is None else int(object_id), label=label,
            )
        )  # fmt: skip

    def refine(self, camera: str, object_id: int, **marks: Unpack[Marks]) -> T:
        """Correct an object: points, box or mask, seen."""
        points, box, mask, seen = _sent(marks)
        return self._ask(
            command.Refine(camera=camera, object_id=int(object_id), points=points, box=box, mask=mask, seen=seen)
        )

    def remove(self, camera: str, object_id: int) -> T:
        return self._ask(command.Remove(camera=camera, object_id=int(object_id)))

    def rename(self, camera: str, object_id: int, *, new_id: int | None = None, label: str | None = None) -> T:
        return self._ask(command.Rename(camera=camera, object_id=int(object_id), new_id=new_id, label=label))

    def reset(self, camera: str) -> T:
        """Forget all objects of a camera."""
        return self._ask(command.Reset(camera=camera))

    def undo(self, camera: str) -> T:
        return self._ask(command.Undo(camera=camera))

    def add_camera(
        self,
        camera: str,
        source: str,
        *,
        rtsp_transport: Literal["tcp", "udp"] = "tcp",
        max_fps: float | None = None,
    ) -> T:
        """A new camera, until the daemon ends."""
        return self._ask(
            command.CameraAdd(camera=camera, source=source, rtsp_transport=rtsp_transport, max_fps=max_fps)
        )

    def remove_camera(self, camera: str) -> T:
        return self._ask(command.CameraRemove(camera=camera))

    def pause_camera(self, camera: str) -> T:
        """Close a camera's source, keep its objects."""
        return self._ask(command.CameraPause(camera=camera))

    def resume_camera(self, camera: str) -> T:
        return self._ask(command.CameraResume(camera=camera))

    def ping(self) -> T:
        return self._ask(command.Ping())

    def _ask(self, request: Request) -> T:
        raise NotImplementedError


def _sent(marks: Marks) -> tuple[tuple[command.Point, ...], command.Box | None, SentMask | None, Seen | None]:
    """Points, box, mask and picture as they are sent."""
    points = tuple(_point(point) for point in marks.get("points", ()))
    box, mask, seen = marks.get("box"), marks.get("mask"), marks.get("seen")
    if isinstance(seen, Picture):
        seen = Seen(epoch=seen.epoch, seq=seen.seq, width=seen.width, height=seen.height, run=seen.run)
    sent_box = None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return points, sent_box, None if mask is None else SentMask.of(mask), seen


def _point(point: Sequence[float]) -> command.Point:
    if len(point) not in (2, 3):
        raise ValueError(f"point {point!r}, expected (x, y) or (x, y, label)")
    label = 1 if len(point) == 2 else point[2]
    if label not in (0, 1):
        raise ValueError(f"point {point!r}, expected label 1 (on the object) or 0 (beside it)")
    return float(point[0]), float(point[1]), 1 if label else 0
