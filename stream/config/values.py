"""The configuration as values: `Config`, `CameraConfig`, `PromptConfig`, and `ConfigError` for what is wrong.

Owns: the names and defaults of every setting. Frozen; any thread reads them.
Never: checks a value; that happens once, when a file or a command line is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stream.config.treatment import EnhanceOptions, MemoryPolicy, RefineOptions

MODELS = (
    "nano",
    *(f"sam2-hiera-{size}" for size in ("tiny", "small", "base-plus", "large")),
    *(f"sam2.1-hiera-{size}" for size in ("tiny", "small", "base-plus", "large")),
)
BACKENDS = ("auto", "eager", "compiled", "tensorrt", "tensorrt-rtx")
SCHEMES = ("rtsp", "rtsps", "http", "https", "testsrc", "push")
COMMAND_LINE = "command line"
MAX_OBJECT_ID = 2**31 - 1


def redact(text: str) -> str:
    """The text as it may be shown: an address without user, password, and the options of its query.

    A password may hold any character. Where its end cannot be told for certain, only the scheme is shown.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() in ("testsrc", "push"):
        return text
    before, at, after = rest.partition("@")
    if "@" in after or (at and re.search(r"[?#]", before)):
        return f"{scheme}://***"
    return f"{scheme}://" + re.sub(r"[?#].*", "?...", f"***@{after}" if at else rest, count=1, flags=re.DOTALL)


class ConfigError(ValueError):
    """A wrong value: which file (or the command line), which key, what stood there, what was expected."""

    def __init__(self, file: str, key: str, *, value: object, expected: str) -> None:
        self.file, self.key, self.value, self.expected = file, key, value, expected
        self.exit_code = 2 if file == COMMAND_LINE else 78  # EX_CONFIG of sysexits.h
        text = redact(value if isinstance(value, str) else repr(value))
        text = text if len(text) <= 120 else text[:117] + "..."
        shown = f"'{text}'" if isinstance(value, str) else text
        super().__init__(" ".join(f"{file}: {f'{key} = {shown}' if key else text}: expected {expected}".split()))


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """An object to segment: points, a box, both, or a mask file, in pixels of the picture.

    A point is (x, y, label), with label 1 on the object and 0 beside it. `refine` and `memory_policy` are the camera's
    where they are None.
    """

    object_id: int
    label: str = ""
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None
    refine: RefineOptions | None = None  # complete: what was not given is the camera's
    memory_policy: MemoryPolicy | None = None


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """Where pictures come from, and what to segment in them. `frame_id` is "<name>_optical_frame" unless given."""

    name: str
    source: str
    pace: Literal["live", "offline"] = "live"
    loop: bool = False
    frame_id: str = ""
    max_fps: float | None = None
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    decoder: Literal["auto", "ffmpeg", "nvdec"] = "auto"  # auto: the GPU's where it can be used
    credential: str = ""  # name of a file with "user:password", in $CREDENTIALS_DIRECTORY
    clock: Literal["arrival", "sender"] = "arrival"  # whose time is a picture's time of capture
    stall_s: float = 3.0  # without a picture for so long (and 10 frame periods): open again
    freeze_s: float = 10.0  # the same picture for so long: open again, and say so; 0 = never
    memory_gap_s: float = 30.0  # without a picture for so long: what was tracked is forgotten
    memory_policy: MemoryPolicy = "sam2"
    camera_motion: bool = False  # with "motion": the camera's own movement is taken out of the objects'
    refine: RefineOptions = field(default_factory=RefineOptions)
    enhance: EnhanceOptions = field(default_factory=EnhanceOptions)
    prompts: tuple[PromptConfig, ...] = ()

    def __post_init__(self) -> None:
        if not self.frame_id:
            object.__setattr__(self, "frame_id", f"{self.name}_optical_frame")

    @property
    def source_shown(self) -> str:
        """The source as it may stand in a log."""
        return redact(self.source)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the daemon is told."""

    cameras: tuple[CameraConfig, ...]
    model: str = "nano"
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"  # the fastest that is installed and agrees with eager
    max_cond_frames: int = 2
    bind: tuple[str, ...] = ("tcp://127.0.0.1:5560",)
    control: tuple[str, ...] | None = None  # None = beside the first `bind`, () = no commands
    http: str = ""  # 127.0.0.1:PORT for /live /ready /status /metrics; "" = none
    keys: Path | None = None  # folder of `sam2-stream keys`; needed to listen beyond this machine
    state: Path | None = None  # folder for objects added at run time; None = $STATE_DIRECTORY, or not kept
    allow_cpu: bool = False
    wire_schemes: tuple[str, ...] = ("rtsp", "rtsps", "https")  # of cameras added by command
    max_cameras: int = 64
    max_objects: int = 64
    refine_as_cond: bool = True
    mask_encoding: Literal["bits", "coco_rle", "none"] = "bits"
    frames_fps: float = 15.0
    jpeg_quality: int = 80

    @property
    def control_endpoints(self) -> tuple[str, ...]:
        """Where commands are taken: as configured, else one port above the first `bind`, or its path and "-control"."""
        if self.control is not None:
            return self.control
        head, _, port = self.bind[0].rpartition(":")
        if self.bind[0].startswith("ipc://"):
            return (f"{self.bind[0]}-control",)
        return (f"{head}:{'*' if port == '*' else int(port) % 65535 + 1}",)
