"""`Daemon`: builds the rooms, starts them in order, watches them, stops them in reverse.

Owns: every thread of the process and its exit code. Runs in the main thread, which also takes the signals.
Never: touches a picture or a mask.

Start: publisher, worker (loads the model), then the cameras. It ends when INT or TERM arrives, when every source has
ended and been processed, or when a thread has died. Exit codes: 0 clean; 1 a thread failed; 78 a configuration that
cannot work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import torch

from engines.spec import Engine
from engines.weights import WeightsError
from stream import wire
from stream.capture import CaptureThread, SourceError
from stream.conditions import ConditionBoard
from stream.config import Config
from stream.device import OptionError, limit_cpu_threads
from stream.outlet import BindError
from stream.prompt import PromptError
from stream.publish import Publisher, PublishOptions
from stream.ring import FrameRing
from stream.tracker import Tracker, TrackerOptions, load_engine
from stream.verify import verify
from stream.worker import Feed, FixedRing, GpuWorker, WorkerOptions

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILURE, EXIT_CONFIG = 0, 1, 78
WATCH_LIMIT_S = 0.1
STOP_LIMIT_S = 4.0  # together; INT and TERM promise five seconds


class Daemon:
    """Written by the main thread alone; signal handlers only set `_stopping`."""

    def __init__(self, config: Config, *, file: Path | None = None) -> None:
        self.config, self.file = config, file
        self.doorbell = threading.Event()
        self._stopping = threading.Event()
        info = wire.Info(
            model=config.model,
            cameras=tuple(wire.CameraInfo(name=camera.name, frame_id=camera.frame_id) for camera in config.cameras),
            backend=config.backend,
        )
        self.publisher = Publisher(
            config.bind, info=info, options=PublishOptions(config.mask_encoding, config.frames_fps, config.jpeg_quality)
        )  # fmt: skip
        rings = [FixedRing(FrameRing(camera.name, doorbell=self.doorbell)) for camera in config.cameras]
        self.feeds = [Feed(camera, ring) for camera, ring in zip(config.cameras, rings, strict=True)]
        self.board = ConditionBoard(self.publisher)
        options = WorkerOptions(board=self.board)
        self.worker = GpuWorker(
            self._load_tracker, self.feeds, publisher=self.publisher, doorbell=self.doorbell, options=options
        )
        self.captures = [CaptureThread(feed.config, ring=feed.ring, states=self.board) for feed in self.feeds]

    def run(self) -> int:
        """Run to the end and return the process's exit code. Call it in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        code = EXIT_OK
        try:
            self._start()
            self._watch()
        except (BindError, WeightsError) as error:
            code = _say(error, EXIT_FAILURE)
        except (SourceError, PromptError, OptionError) as error:
            code = _say(error, EXIT_CONFIG)
        except Exception as error:
            log.error("the daemon ends", exc_info=error)
            code = EXIT_FAILURE
        if self._stop():
            logging.shutdown()
            os._exit(code)  # a thread in a long computation cannot be stopped in any other way
        return code

    def stop(self) -> None:
        """Ask the daemon to end; any thread."""
        self._stopping.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)  # the second signal ends the process at once
        self._stopping.set()

    def _load_tracker(self) -> Tracker:
        """Called by the worker's thread, which then owns the tracker."""
        config = self.config
        engine = self._load_engine(config.dtype)
        limit_cpu_threads(engine.device, engine.spec.image_size)
        if engine.device.type == "cuda" and engine.dtype is not torch.float32:
            engine = self._checked(engine)
        log.info("%s on %s in %s, backend %s", config.model, engine.device, engine.dtype, config.backend)
        return Tracker(engine, TrackerOptions(max_cond_frames=config.max_cond_frames))

    def _load_engine(self, dtype: str) -> Engine:
        config = self.config
        return load_engine(config.model, config.checkpoint, device=config.device, dtype=dtype, backend=config.backend)

    def _checked(self, engine: Engine) -> Engine:
        """Reduced precision on a GPU that nobody could try is used only where it agrees with fp32 on that GPU."""
        reference = self._load_engine("fp32")
        found = verify(engine, reference)
        said = f"IoU {found.mean_iou:.3f} and {found.num_flips} other decisions than fp32 on {engine.device}"
        if found.is_enough:
            log.info("%s verified: %s", engine.dtype, said)
            return engine
        log.error("%s refused: %s; running in fp32 instead", engine.dtype, said)
        return reference

    def _start(self) -> None:
        self.publisher.start()
        self.publisher.wait_ready()
        log.info("publishing on %s", ", ".join(self.publisher.endpoints))
        self.worker.start()
        while not self.worker.ready.wait(WATCH_LIMIT_S) and not self._stopping.is_set():
            self._check_threads()
        self._check_threads()
        for capture in self.captures:
            if not self._stopping.is_set():
                capture.start()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_LIMIT_S):
            self._check_threads()
            if all(capture.finished.is_set() for capture in self.captures) and self._is_drained():
                self._raise_source_error()
                return

    def _raise_source_error(self) -> None:
        """A source that cannot be used leaves the other cameras alone; it is an error when nothing is left to do."""
        for capture in self.captures:
            if capture.error is not None:
                raise capture.error

    def _is_drained(self) -> bool:
        return self.worker.is_idle and self.publisher.wait_drained(0.0)

    def _check_threads(self) -> None:
        """Raise what ended a thread that should be running."""
        errors = [self.publisher.error, self.worker.error, *(capture.error for capture in self.captures)]
        for error in errors:
            if error is not None and not isinstance(error, SourceError):
                raise error
        assert self.publisher.is_alive() and self.worker.is_alive(), "a thread that has to live ended without an error"

    def _stop(self) -> bool:
        """Stop in reverse; True when a thread is late and was left behind."""
        deadline = time.monotonic() + STOP_LIMIT_S
        for capture in self.captures:
            capture.stop()
        self.worker.stop()
        pairs = zip(self.feeds, self.captures, strict=True)
        late = [f"cam:{feed.config.name}" for feed, capture in pairs if not _joined(capture, deadline)]
        if not _joined(self.worker, deadline - 0.5):
            late.append("gpu")
        self.publisher.stop()
        if not _joined(self.publisher, deadline + 0.5):
            late.append("pub")
        if late:
            log.warning("still busy after %g s and left behind: %s", STOP_LIMIT_S, ", ".join(late))
        return bool(late)


def _say(error: Exception, code: int) -> int:
    """One line for the person who started the daemon."""
    print(f"sam2-stream: {error}", file=sys.stderr)
    return code


def _joined(thread: CaptureThread | GpuWorker | Publisher, deadline: float) -> bool:
    if thread.is_alive():
        thread.join(max(0.0, deadline - time.monotonic()))
    return not thread.is_alive()
