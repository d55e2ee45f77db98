"""`Status`: the daemon's condition at one moment, as numbers and words: for `/status`, the control socket and metrics.

Owns: the types. Runs in any thread: the values are frozen. Never: gathers anything (`stream.daemon` does), or holds a
credential: sources stand here redacted.
"""

from __future__ import annotations

import msgspec


class ObjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One tracked object, as of the camera's last processed picture."""

    id: int
    label: str = ""
    state: str = "tracked"  # stream.frame.ObjectState
    score: float = 0.0
    last_seen_s: float = 0.0  # seconds since it was last visible
    stride: float = 0.0  # how many of its own sizes it lately moved between two processed pictures, at most


class CameraStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One camera. Counters rise over the daemon's life; None = not known yet."""

    name: str
    source: str  # without credentials
    condition: str = "offline"  # stream.frame.CameraCondition
    reason: str = ""
    since_s: float = 0.0
    epoch: int = 0
    seq: int | None = None  # of the last decoded picture
    width: int = 0
    height: int = 0
    codec: str = ""  # with profile where known, for example "h264 (High)"
    decoder: str = ""  # who decodes: ffmpeg, nvdec; "" = not known yet, or nothing to decode
    clock_source: str = ""
    fps_in: float = 0.0  # decoded, over the last seconds
    fps_out: float = 0.0  # published
    last_frame_age_s: float | None = None  # since the last decoded picture
    num_decoded: int = 0
    num_published: int = 0
    num_reconnects: int = 0
    num_abandoned: int = 0  # capture threads that never came back from a call
    num_dropped: dict[str, int] = {}  # pictures by reason
    objects: tuple[ObjectStatus, ...] = ()
    advice: str = ""  # what would make the masks better, for example more pictures a second


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon."""

    software: str = ""
    run: int = 0
    pid: int = 0
    uptime_s: float = 0.0
    model: str = ""
    backend: str = ""  # in use, not as configured
    choice: str = ""  # why this one: what it was measured at, and what was passed over
    device: str = ""  # where the model is: "cuda:0 (NVIDIA H200)", "cpu"
    dtype: str = ""  # "float16", or "float16, attention bfloat16"
    is_live: bool = False  # the loops turn
    is_ready: bool = False  # model on the intended device, and a camera produces or none is configured
    problem: str = ""  # what the operator must mend, for example a refused configuration file
    endpoints: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    num_watched: int = 0  # cameras whose pictures somebody takes
    num_published: int = 0
    num_commands: dict[str, int] = {}  # by outcome: "ok" or a reply's code, and "malformed"
    num_reloads: dict[str, int] = {}  # of the configuration: "ok", "refused"
    num_objects: int = 0
    memory_bytes: int = 0  # resident set
    cameras: tuple[CameraStatus, ...] = ()
