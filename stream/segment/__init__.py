"""`sam2-stream segment`: recorded videos of any length into masks, in files.

Owns: what is asked (`request`, `moments`, `prompts`, `clips`), one video's run (`run`, `plan`, `outputs`), what
survives a kill (`keeping`, `snapshots`), and many videos at once (`crew`, `screen`). The main thread of a process runs
one video at a time; with several jobs, each has a process and a tracker of its own.
Never: holds more than a few pictures, or opens a camera.
"""

from stream.segment.clips import Clip, find_clips
from stream.segment.crew import Outcome, segment_clips
from stream.segment.keeping import backend_begun
from stream.segment.moments import Moment, MomentError, moment_of
from stream.segment.prompts import GivenPrompt, prompts_of_clip, prompts_of_flags
from stream.segment.request import FORMATS, SegmentError, Settings, Task
from stream.segment.run import ClipRun, Summary
from stream.segment.screen import Screen

__all__ = [
    "FORMATS",
    "Clip",
    "ClipRun",
    "GivenPrompt",
    "Moment",
    "MomentError",
    "Outcome",
    "Screen",
    "SegmentError",
    "Settings",
    "Summary",
    "Task",
    "backend_begun",
    "find_clips",
    "moment_of",
    "prompts_of_clip",
    "prompts_of_flags",
    "segment_clips",
]
