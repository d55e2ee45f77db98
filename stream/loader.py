"""`Loader`: the configured model as a tracker, checked where nobody could check it before.

Owns: which engine is used, and what the log says of it. The worker's thread calls `load` once, and owns the tracker
that it gets. Never: falls back without saying so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from engines.spec import Engine
from stream.config import Config
from stream.device import limit_cpu_threads
from stream.tracker import Tracker, TrackerOptions, load_engine
from stream.verify import verify

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What runs, once it is loaded; "" before."""

    device: str = ""
    dtype: str = ""
    backend: str = ""


class Loader:
    """`model` is written by the worker's thread, and read by any."""

    def __init__(self, config: Config) -> None:
        self.model = Model()
        self._config = config

    def load(self) -> Tracker:
        """Raises `WeightsError` about the checkpoint, `OptionError` about the rest."""
        config = self._config
        engine = self._engine(config.dtype)
        limit_cpu_threads(engine.device, engine.spec.image_size)
        if engine.device.type == "cuda" and engine.dtype is not torch.float32:
            engine = self._checked(engine)
        dtype = str(engine.dtype).removeprefix("torch.")
        self.model = Model(_device_name(engine.device), dtype, config.backend)
        log.info("%s on %s in %s, backend %s", config.model, self.model.device, dtype, config.backend)
        options = TrackerOptions(max_cond_frames=config.max_cond_frames, refine_as_cond=config.refine_as_cond)
        return Tracker(engine, options)

    def _engine(self, dtype: str) -> Engine:
        config = self._config
        return load_engine(config.model, config.checkpoint, device=config.device, dtype=dtype, backend=config.backend)

    def _checked(self, engine: Engine) -> Engine:
        """Reduced precision on a GPU that nobody could try is used only where it agrees with fp32 on that GPU."""
        reference = self._engine("fp32")
        found = verify(engine, reference)
        if not (breaches := found.breaches(engine.dtype)):
            log.info("%s verified: %s", engine.dtype, found)
            return engine
        log.error("%s refused: %s; running in fp32 instead", engine.dtype, ", ".join(breaches))
        return reference


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
