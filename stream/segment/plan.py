"""Which pictures of a video are processed, and which prompt comes on which: moments made into numbers.

Owns: `Plan`. Any thread. Never: decodes a picture, but where a file's own times cannot tell a picture's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stream.footage import PictureFolder, VideoFile
from stream.segment.moments import Moment
from stream.segment.prompts import GivenPrompt
from stream.segment.request import SegmentError, Task

MAX_PNG_ID = 254


@dataclass(frozen=True, slots=True)
class Plan:
    """Pictures are numbered from 0; `end` is the first that is not processed any more, None = the video's."""

    start: int
    end: int | None
    every: int
    prompts: Mapping[int, tuple[GivenPrompt, ...]]
    labels: Mapping[int, str]

    def wants(self, index: int) -> bool:
        """Whether this picture is processed; one with a prompt always is."""
        return index >= self.start and ((index - self.start) % self.every == 0 or index in self.prompts)

    def ends_at(self, index: int) -> bool:
        """Whether neither this picture nor any after it is processed."""
        return self.end is not None and index >= self.end

    def num_wanted(self, num_frames: int | None) -> int | None:
        """How many pictures are processed, as far as the file tells how many there are."""
        ends = [end for end in (self.end, num_frames) if end is not None]
        if not ends:
            return None
        beside = [index for index in self.prompts if (index - self.start) % self.every and index < min(ends)]
        return max(0, -(-(min(ends) - self.start) // self.every)) + len(beside)


def plan_of(task: Task, footage: VideoFile | PictureFolder) -> Plan:
    """Raises `SegmentError` for prompts that no processed picture has."""
    settings, known = task.settings, {}
    _check_ids(task)

    def number(moment: Moment) -> int:
        if moment.frame is not None:
            return moment.frame
        if moment not in known:
            known[moment] = footage.index_at(moment.time_ns)
        return known[moment]

    start, end = number(settings.start), None if settings.end is None else number(settings.end)
    if end is not None and end <= start:
        raise SegmentError(f"{task.source}: the end is picture {end}, expected one after the start, picture {start}")
    prompts: dict[int, tuple[GivenPrompt, ...]] = {}
    for prompt in task.prompts:
        index = start if prompt.moment is None else number(prompt.moment)
        if index < start or (end is not None and index >= end):
            raise SegmentError(
                f"{task.source}: object {prompt.object_id} has a prompt on picture {index}, "
                f"expected one from {start}{'' if end is None else f' to {end - 1}'}"
            )
        prompts[index] = (*prompts.get(index, ()), prompt)
    labels = {prompt.object_id: prompt.label for prompt in task.prompts if prompt.label}
    return Plan(start, end, settings.every, prompts, labels)


def check_reached(plan: Plan, task: Task, num_frames: int) -> None:
    """Once the video has ended after so many pictures. Raises `SegmentError` for a prompt that was not reached."""
    late = [index for index in plan.prompts if index >= num_frames]
    if late:
        ids = _words(prompt.object_id for prompt in plan.prompts[late[0]])
        raise SegmentError(
            f"{task.source}: a prompt of object {ids} is on picture {late[0]}, but the video has {num_frames}; "
            f"expected one from 0 to {num_frames - 1}"
        )


def _check_ids(task: Task) -> None:
    if not task.prompts:
        raise SegmentError(f"{task.source}: nothing says what to follow, expected --point, --box, --mask or --prompts")
    wrong = [prompt.object_id for prompt in task.prompts if not 1 <= prompt.object_id <= MAX_PNG_ID]
    if wrong and "davis" in task.settings.formats:
        raise SegmentError(f"object id {wrong[0]} does not fit an indexed PNG (davis), expected 1 to {MAX_PNG_ID}")


def _words(ids: Iterable[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(ids)))
