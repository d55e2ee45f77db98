"""What to follow in a video: prompts from the command line, from a JSON file, or from a mask of the first picture.

Owns: `GivenPrompt`, and the JSON file's format, which this text specifies. Any thread. Never: keeps a mask: it is read
when its picture comes.

    {"objects": [
       {"id": 1, "label": "cup", "points": [[875, 515, 1], [700, 400, 0]]},      x, y, 1 = on the object, 0 = beside it
       {"id": 2, "box": [100, 80, 300, 400], "frame": "1:30"},                   x0, y0, x1, y1
       {"id": 3, "mask": "hand.png", "frame": 120}]}                             a picture that is not black there

Coordinates are pixels of the upright picture. `frame` is a picture's number, or a moment as `--start` takes it; without
one it is the first picture that is processed. An object that stands again at a later picture is corrected there. A mask
is relative to the JSON file. Points and a box may stand together, a mask only alone.

A picture instead of the JSON file is an indexed PNG (as in DAVIS) of the first picture: every value but 0 and 255 is an
object. A folder holds such files by the video's name: NAME.json, NAME.png, or NAME/ with the mask of the first picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from stream.config import PromptConfig
from stream.footage import list_pictures
from stream.masksets import read_indexed
from stream.prompt import MAX_OBJECT_ID, Prompt, PromptError, checked_prompt, read_mask
from stream.segment.moments import Moment, MomentError, moment_of
from stream.sequence import Bits, FootageError, MaskFileError


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """One object at one moment; None = the first picture. `value` is the object's in an indexed mask."""

    object_id: int
    label: str = ""
    moment: Moment | None = None
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None
    value: int | None = None

    def load(self, size: tuple[int, int]) -> Prompt:
        """Checked, with its mask read, for a picture of this height and width. Raises `PromptError`."""
        mask_hw = None if self.mask is None else _fitted(self._mask(self.mask), size, self.mask)
        return checked_prompt(points=self.points, box=self.box, mask=mask_hw)

    def _mask(self, path: Path) -> Bits:
        if self.value is None:
            return read_mask(path)
        try:
            return read_indexed(path)[self.value]
        except (MaskFileError, KeyError) as error:
            raise PromptError(f"{path}: object {self.value} is not in it any more, expected it as before") from error


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[int, Meta(ge=0, le=MAX_OBJECT_ID)]
    label: Annotated[str, Meta(max_length=64)] = ""
    points: tuple[tuple[float, ...], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None
    frame: int | str | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    objects: Annotated[tuple[_Entry, ...], Meta(min_length=1, max_length=1000)]


def prompts_of_flags(prompts: Sequence[PromptConfig]) -> tuple[GivenPrompt, ...]:
    """Those of the command line, which stream.config has checked; they are of the first picture."""
    return tuple(
        GivenPrompt(item.object_id, item.label, None, item.points, item.box, None if item.mask is None else item.mask)
        for item in prompts
    )


def prompts_of_clip(path: Path, name: str) -> tuple[GivenPrompt, ...]:
    """What a JSON file, a mask, or a folder of them says of the video of this name. Raises `PromptError`."""
    if path.is_dir():
        path = _in_folder(path, name)
    if not path.is_file():
        raise PromptError(f"{path}: there is no such file, expected JSON, an indexed PNG, or a folder of them")
    if path.suffix.lower() == ".json":
        return _from_json(path)
    try:
        values = sorted(read_indexed(path))
    except MaskFileError as error:
        raise PromptError(str(error)) from error
    if not values:
        raise PromptError(f"{path}: there is no object in it, expected values from 1 to 254")
    return tuple(GivenPrompt(value, mask=path, value=value) for value in values)


def _in_folder(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.json", folder / f"{name}.png"):
        if path.is_file():
            return path
    inner = folder / name
    try:
        found = list_pictures(inner) if inner.is_dir() else []
    except FootageError as error:
        raise PromptError(str(error)) from error
    if not found:
        raise PromptError(f"{folder}: nothing for the video {name}, expected {name}.json, {name}.png or {name}/*.png")
    return found[0]


def _from_json(path: Path) -> tuple[GivenPrompt, ...]:
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PromptError(f'{path}: {error}; expected {{"objects": [{{"id": 1, "points": [[x, y]]}}, ...]}}') from error
    return tuple(_checked(entry, path, place) for place, entry in enumerate(document.objects))


def _checked(entry: _Entry, path: Path, place: int) -> GivenPrompt:
    """Checks what can be known without the video."""
    points = tuple(point if len(point) != 2 else (*point, 1) for point in entry.points)
    mask = None if entry.mask is None else path.parent / entry.mask
    try:
        moment = moment_of(entry.frame) if isinstance(entry.frame, str) else _frame(entry.frame)
        if mask is not None and not mask.is_file():
            raise PromptError(f"the mask {mask} does not exist; expected a picture")
        stand_in = None if mask is None else np.ones((1, 1), np.bool_)  # the mask itself is read when its picture comes
        prompt = checked_prompt(points=points, box=entry.box, mask=stand_in)  # type: ignore[arg-type]
    except (MomentError, PromptError) as error:
        raise PromptError(f"{path}: objects[{place}] (id {entry.id}): {error}") from error
    return GivenPrompt(entry.id, entry.label, moment, prompt.points, prompt.box, mask)


def _frame(number: int | None) -> Moment | None:
    if number is not None and number < 0:
        raise MomentError(f"frame {number}, expected 0 or more")
    return None if number is None else Moment(frame=number)


def _fitted(mask_hw: Bits, size: tuple[int, int], path: Path) -> Bits:
    if mask_hw.shape == size:
        return mask_hw
    (height, width), (rows, columns) = size, mask_hw.shape
    raise PromptError(f"{path}: a mask of {columns} x {rows} pixels, expected the picture's {width} x {height}")
