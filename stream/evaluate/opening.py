"""The tracker that is evaluated, and what the results say of it.

Owns: `Choice`, from the options of a command line to a tracker. The tracker's thread. Never: takes another backend than
the named one.

"auto" is compiled, or eager where nothing compiles. No start-up check as the daemon's: the scores are the check.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

from engines.spec import BackendMissing
from engines.weights import checkpoint_name
from stream.config import EnhanceOptions, RefineOptions
from stream.device import limit_cpu_threads
from stream.evaluate.protocol import PromptKind
from stream.evaluate.shelf import Settings
from stream.policy import PolicyName
from stream.tracker import Tracker, TrackerOptions, load_engine

log = logging.getLogger(__name__)

AUTO = ("compiled", "eager")


@dataclass(frozen=True, slots=True)
class Choice:
    """As on the command line; see `load_engine`."""

    model: str = "nano"
    checkpoint: str | Path | None = None
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    memory_policy: PolicyName = "sam2"
    camera_motion: bool = False
    refine: RefineOptions = field(default_factory=RefineOptions)
    enhance: EnhanceOptions = field(default_factory=EnhanceOptions)

    def open(self) -> Tracker:
        """Raises `WeightsError`, `BackendMissing`, `OptionError`: one line each."""
        if self.backend != "auto":
            return self._open(self.backend)
        try:
            return self._open(AUTO[0])
        except BackendMissing as error:
            log.warning("backend %s: %s; %s is evaluated", AUTO[0], error, AUTO[1])
            return self._open(AUTO[1])

    def settings(self, tracker: Tracker, prompt: PromptKind, data: str) -> Settings:
        """What results of this tracker depend on."""
        engine = tracker.engine
        return Settings(
            model=self.model,
            weights=checkpoint_name(self.model, None if self.checkpoint is None else Path(self.checkpoint)),
            backend=engine.backend,
            device=str(engine.device),
            dtype=str(engine.dtype).removeprefix("torch."),
            prompt=prompt,
            memory_policy=self.memory_policy + (" with camera motion" if self.camera_motion else ""),
            refine=_changed(self.refine),
            enhance=_changed(self.enhance),
            data=data,
        )

    def _open(self, backend: str) -> Tracker:
        engine = load_engine(self.model, self.checkpoint, device=self.device, dtype=self.dtype, backend=backend)
        limit_cpu_threads(engine.device, engine.spec.image_size)
        options = TrackerOptions(memory_policy=self.memory_policy, camera_motion=self.camera_motion)
        tracker = Tracker(engine, options)
        tracker.refine_masks(self.refine)
        return tracker


def _changed(options: RefineOptions | EnhanceOptions) -> str:
    """What is not as by default."""
    usual = dataclasses.asdict(type(options)())
    changed = {name: value for name, value in dataclasses.asdict(options).items() if value != usual[name]}
    return ", ".join(f"{name} {value}" for name, value in changed.items()) or "off"
