"""Where results go: indexed PNG, JSON lines, films and cut-outs, several at once.

Owns: the files while a video is processed, and what its films are made of. Runs in the thread that runs the video.
Never: keeps a picture, or leaves a film without its index: parts are joined when the last picture is done.

| format | what a picture becomes |
|---|---|
| davis | an indexed PNG: a pixel's value is the object's id; where objects overlap, the lowest |
| rle | a line of JSON with every object's mask as COCO RLE, label, scores and state (`stream.masksets.lines`) |
| overlay | the picture with masks, outlines and labels drawn, in an MP4 |
| mask-video | white where any object is, black elsewhere, in an MP4 |
| cutout-png | the picture with everything else transparent, as PNG |
| cutout-webm | the same in a WebM (VP9 with transparency) |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.whole_file import moved_in
from stream.film import MP4, WEBM_ALPHA, FilmKind, FilmPart, join_parts
from stream.frame import Masks
from stream.masksets import DavisWriter, RleWriter, line_of
from stream.overlay import draw_overlay
from stream.segment.keeping import State
from stream.segment.request import Task
from stream.sequence import Bits, Image, Picture

PNG_EFFORT = 3  # of zlib


@dataclass(frozen=True, slots=True)
class Found:
    """One processed picture with its masks."""

    picture: Picture
    masks: Masks
    masks_nhw: Bits
    labels: Mapping[int, str]

    @property
    def by_id(self) -> dict[int, Bits]:
        return dict(zip(self.masks.object_ids, self.masks_nhw, strict=True))

    @property
    def size(self) -> tuple[int, int]:
        return self.masks.height, self.masks.width

    @property
    def file_name(self) -> str:
        return self.picture.name or f"{self.picture.index:05d}"


class Output:
    """One format's file or files. Where it does not say otherwise, each is whole or not there, and none stays open."""

    def put(self, found: Found) -> None:
        raise NotImplementedError

    def seal(self) -> None:
        """See to it that all that was put survives this process."""

    def finish(self) -> None:
        """The last picture was put and sealed."""

    def close(self) -> None:
        """Let go of what is open, also after an error."""


class MaskPictures(Output):
    """davis."""

    def __init__(self, task: Task) -> None:
        self._writer = DavisWriter(task.path("davis"))

    def put(self, found: Found) -> None:
        self._writer.put(found.picture.index, found.by_id, size=found.size, name=found.picture.name)


class MaskLines(Output):
    """rle; it is not buffered."""

    def __init__(self, task: Task, next_index: int) -> None:
        self._writer = RleWriter(task.path("rle"), resume_at=next_index)

    def put(self, found: Found) -> None:
        picture = found.picture
        line = line_of(found.masks, picture.index, time_s=picture.time_ns / 1e9, labels=found.labels)
        self._writer.put(line)

    def close(self) -> None:
        self._writer.close()


class CutoutPictures(Output):
    """cutout-png."""

    def __init__(self, task: Task) -> None:
        self._folder = task.path("cutout-png")
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, found: Found) -> None:
        is_done, data = cv2.imencode(".png", cut_out(found), [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
        assert is_done, "OpenCV writes any picture as PNG"
        with moved_in(self._folder / f"{found.file_name}.png") as beside:
            beside.write_bytes(data.tobytes())


class Film(Output):
    """overlay, mask-video, cutout-webm: parts in the task's folder, a new one after each `seal`, joined at the end.

    Written by the thread that runs the video: `parts`, the names and beginnings of those that are complete.
    """

    def __init__(
        self, task: Task, name: str, draw: Callable[[Found], Image], *, kind: FilmKind, size: tuple[int, int] | None
    ) -> None:
        self.name = name
        self.parts: list[tuple[str, int]] = []
        self._path, self._work, self._draw, self._kind, self._size = task.path(name), task.work, draw, kind, size
        self._open: FilmPart | None = None
        self._start_ns = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True, exist_ok=True)

    def put(self, found: Found) -> None:
        if self._open is None:
            self._start_ns = found.picture.time_ns
            path = self._work / f"{self.name}-{found.picture.index:09d}.{self._kind.container}"
            self._size = self._size or found.size
            self._open = FilmPart(path, self._kind, self._size)
        self._open.put(self._draw(found), found.picture.time_ns)

    def seal(self) -> None:
        if self._open is not None:
            self._open.close()
            self.parts.append((self._open.path.name, self._start_ns))
            self._open = None

    def finish(self) -> None:
        join_parts([(self._work / name, start_ns) for name, start_ns in self.parts], self._path, self._kind)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


class Outputs:
    """All that were asked for. Written by the thread that runs the video."""

    def __init__(self, task: Task, state: State | None) -> None:
        """From the beginning, or after the last picture of a state that was kept."""
        size, next_index = (state.size, state.last_index + 1) if state else (None, 0)
        makers: dict[str, Callable[[], Output]] = {
            "davis": lambda: MaskPictures(task),
            "rle": lambda: MaskLines(task, next_index),
            "cutout-png": lambda: CutoutPictures(task),
            "overlay": lambda: Film(task, "overlay", draw_found, kind=MP4, size=size),
            "mask-video": lambda: Film(task, "mask-video", draw_mask, kind=MP4, size=size),
            "cutout-webm": lambda: Film(task, "cutout-webm", cut_out, kind=WEBM_ALPHA, size=size),
        }
        self._outputs = [makers[name]() for name in task.settings.formats]
        self._films = [output for output in self._outputs if isinstance(output, Film)]
        for film in self._films:
            film.parts = list(state.parts.get(film.name, ())) if state else []

    @property
    def parts(self) -> dict[str, tuple[tuple[str, int], ...]]:
        return {film.name: tuple(film.parts) for film in self._films}

    def put(self, found: Found) -> None:
        for output in self._outputs:
            output.put(found)

    def seal(self) -> None:
        for output in self._outputs:
            output.seal()

    def finish(self) -> None:
        for output in self._outputs:
            output.finish()

    def close(self) -> None:
        for output in self._outputs:
            output.close()


def draw_found(found: Found) -> Image:
    """The picture with everything that is known drawn on it."""
    return draw_overlay(found.picture.image_hwc, found.masks, labels=found.labels)


def draw_mask(found: Found) -> Image:
    """White where any object is."""
    return np.repeat(_alpha(found)[..., None], 3, axis=2)


def cut_out(found: Found) -> Image:
    """BGRA: the objects, all else transparent and black."""
    alpha_hw = _alpha(found)
    image_hwc = found.picture.image_hwc
    return np.asarray(cv2.merge([cv2.bitwise_and(image_hwc, image_hwc, mask=alpha_hw), alpha_hw]), np.uint8)


def _alpha(found: Found) -> NDArray[np.uint8]:
    if not len(found.masks_nhw):
        return np.zeros(found.size, np.uint8)
    return np.asarray(found.masks_nhw.any(axis=0) * np.uint8(255), np.uint8)
