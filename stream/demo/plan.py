"""What the demo plays: the generated clip with a click on each object, or a source of the user's own.

Owns: the demo's rate, its camera, and the limits of its options. Runs in the main thread, before anything has started.
Never: keeps a source open; a user's own is opened once, to learn its size, and closed.

The clip comes from `testsrc://demo` at `FPS`, paced live. Drawing a picture costs the daemon's capture thread about
5 ms of processor time, a tenth of one core at this rate: it is left in, as a decoder would cost as much.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

from engines.synthetic import DEMO, SyntheticClip
from stream.capture import Picture, Watch, open_source
from stream.config import CameraConfig, Config, PromptConfig, PromptFlags, config_from_flags

FPS = 20.0
FRAMES_FPS = 120.0  # every picture is wanted
BIND = "tcp://127.0.0.1:*"
MIN_SECONDS, MAX_SECONDS = 1.0, 600.0
OWN_SECONDS = 20.0  # a source of the user's own may have no end
PROBE_LIMIT_S = 20.0


class DemoError(Exception):
    """The demo cannot go on; one line for the user, and the exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Plan:
    """`clip` is None for a source without truth; `seconds` None plays until the source ends."""

    config: Config
    clip: SyntheticClip | None
    seconds: float | None

    @property
    def camera(self) -> str:
        return self.config.cameras[0].name


def make_plan(seconds: float | None, source: str | None) -> Plan:
    """Raises DemoError, SourceError, ConfigError."""
    if seconds is not None and not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise DemoError(f"--seconds = {seconds:g}: expected a number from {MIN_SECONDS:g} to {MAX_SECONDS:g}", 2)
    return _plan_clip(seconds) if source is None else _plan_own(seconds, source)


def _plan_clip(seconds: float | None) -> Plan:
    clip = SyntheticClip(DEMO)
    prompts = tuple(
        PromptConfig(object_id=number + 1, points=((*clip.click(number), 1),)) for number in range(DEMO.num_objects)
    )
    loops = seconds is not None and seconds > DEMO.num_frames / FPS
    camera = CameraConfig(name="demo", source=f"testsrc://demo?fps={FPS:g}", loop=loops, prompts=prompts)
    config = Config(cameras=(camera,), bind=(BIND,), control=(), frames_fps=FRAMES_FPS, allow_cpu=True)
    return Plan(config, clip, seconds)


def _plan_own(seconds: float | None, source: str) -> Plan:
    options = {"bind": [BIND], "control": [], "frames_fps": FRAMES_FPS, "allow_cpu": True}
    camera = config_from_flags(source, PromptFlags(), options=options).cameras[0]
    width, height = _probe(camera)
    flags = PromptFlags(points=[f"{width / 2:g},{height / 2:g}"])
    return Plan(config_from_flags(source, flags, options=options), None, seconds or OWN_SECONDS)


def _probe(camera: CameraConfig) -> tuple[int, int]:
    """Width and height of the source's first picture."""
    watch = Watch()
    timer = threading.Timer(PROBE_LIMIT_S, watch.set)
    timer.start()
    try:
        with contextlib.closing(open_source(camera).pictures(watch)) as items:
            picture = next((item for item in items if isinstance(item, Picture)), None)
    finally:
        timer.cancel()
    if picture is None:
        raise DemoError(f"source '{camera.source_shown}': no picture within {PROBE_LIMIT_S:g} s, expected one")
    return picture.width, picture.height
