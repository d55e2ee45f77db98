"""`Daemon`: builds the rooms, starts them in order, watches them, stops them in reverse.

Owns: every thread of the process and its exit code. Runs in the main thread, which also takes the signals: INT and TERM
end the daemon, HUP reads the configuration again. Never: touches a picture or a mask.

Start: publisher, control and http (so that somebody can ask what takes so long), worker (loads the model), then the
cameras. It ends when INT or TERM arrives, when every source has ended and been processed, or when a thread has died.

| exit code | why | should a service manager start it again |
|---|---|---|
| 0 | told to end, or every source ended | no |
| 1 | a thread failed | yes |
| 69 | no GPU, and a CPU is not allowed | yes: at boot the driver may come later |
| 70 | the GPU was lost (a CUDA error that only a new process can mend); at once | yes |
| 75 | a camera's calls never came back, or a thread was still busy 5 s after TERM | yes |
| 78 | a configuration or source that cannot work | no |
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

from engines.weights import WeightsError
from stream.capture import CameraStuck, SourceError
from stream.config import Config, ConfigError, load_config
from stream.device import DeviceLost, GpuMissing, OptionError, check_gpu, is_device_lost
from stream.frame import CameraCondition
from stream.house import Duty, House
from stream.keys import KeysError
from stream.notify import Liveness, Notifier
from stream.outlet import BindError
from stream.prompt import PromptError

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILURE, EXIT_NO_GPU, EXIT_GPU_LOST, EXIT_STUCK, EXIT_CONFIG = 0, 1, 69, 70, 75, 78
TICK_S = 0.1
STOP_LIMIT_S = 4.0  # together; INT and TERM promise five seconds
HANG_LIMIT_S = 30.0  # of a loop, unless systemd's watchdog is stricter
CODES: tuple[tuple[type[Exception], int], ...] = (
    (DeviceLost, EXIT_GPU_LOST), (GpuMissing, EXIT_NO_GPU), (CameraStuck, EXIT_STUCK), (BindError, EXIT_FAILURE),
    (WeightsError, EXIT_FAILURE), (SourceError, EXIT_CONFIG), (PromptError, EXIT_CONFIG), (OptionError, EXIT_CONFIG),
    (ConfigError, EXIT_CONFIG), (KeysError, EXIT_CONFIG),
)  # fmt: skip
NEEDS_RESTART = (
    "model", "checkpoint", "device", "dtype", "backend", "max_cond_frames", "bind", "control", "http", "keys", "state",
    "allow_cpu", "wire_schemes", "max_cameras", "max_objects", "refine_as_cond", "mask_encoding", "frames_fps",
    "jpeg_quality",
)  # fmt: skip


class Daemon:
    """Written by the main thread alone; signal handlers only set `_stopping` and `_must_reload`."""

    def __init__(self, config: Config, *, file: Path | None = None) -> None:
        self.config, self.file = config, file
        self.num_ticks = 0
        self._num_reloads = {"ok": 0, "refused": 0}
        self._stopping = threading.Event()
        self._must_reload = threading.Event()
        self._liveness = Liveness({}, HANG_LIMIT_S)
        self._notifier = Notifier.from_environment()
        self.house = House(config, Duty(lambda: self._num_reloads, lambda: self._liveness.overdue()))
        self.publisher = self.house.publisher

    def run(self) -> int:
        """Run to the end and return the process's exit code. Call it in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, lambda number, frame: self._must_reload.set())
        code = EXIT_OK
        try:
            check_gpu(self.config.device, allow_cpu=self.config.allow_cpu)
            self._start()
            self._watch()
        except Exception as error:
            code = _say(error)
        if code == EXIT_GPU_LOST or self._stop():
            logging.shutdown()
            os._exit(code or EXIT_STUCK)  # a thread in a long computation cannot be stopped in any other way
        return code

    def stop(self) -> None:
        """Ask the daemon to end; any thread."""
        self._stopping.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)  # the second signal ends the process at once
        self._stopping.set()

    # --- start -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        house = self.house
        house.publisher.start()
        house.publisher.wait_ready()
        log.info("publishing on %s", ", ".join(house.publisher.endpoints))
        if house.control is not None:
            house.control.start()
            house.control.wait_ready()
            house.tell_control()
            log.info("taking commands on %s", ", ".join(house.control.endpoints))
        if house.health is not None:
            house.health.start()
            house.health.wait_ready()
            log.info("answering on http://%s", house.health.address)
        if house.saved is not None:
            house.saved.start()
        house.worker.start()
        while not house.worker.ready.wait(TICK_S) and not self._stopping.is_set():
            self._check_threads()
        self._check_threads()
        house.tell_model()
        if not self._stopping.is_set():
            house.fleet.start()
        self._liveness = self._watched_loops()
        self._notifier.ready(self._summary())

    def _watched_loops(self) -> Liveness:
        house, period_s = self.house, self._notifier.watchdog_period_s
        loops = {"main": lambda: self.num_ticks, "gpu": lambda: house.worker.num_loops}
        loops["pub"] = lambda: house.publisher.num_loops
        if house.control is not None:
            control = house.control
            loops["control"] = lambda: control.num_loops
        limit_s = HANG_LIMIT_S if period_s is None else min(HANG_LIMIT_S, period_s / 2)
        return Liveness(loops, limit_s, others=house.fleet.overdue)

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        num_online = sum(state.condition is not CameraCondition.OFFLINE for state in self.house.board.states().values())
        return f"{self.config.model}, {num_online} of {len(self.house.fleet.feeds)} cameras give pictures"

    # --- watch -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        fleet = self.house.fleet
        while not self._stopping.wait(TICK_S):
            self.num_ticks += 1
            self._check_threads()
            fleet.check(time.monotonic_ns())
            self.house.tell_model()
            if self._must_reload.is_set():
                self._must_reload.clear()
                self._reload()
            if not self._liveness.overdue():
                self._notifier.watchdog()
            self._notifier.status(self._summary())
            if fleet.has_ended and self._is_drained():
                if fleet.error is not None:
                    raise fleet.error
                return

    def _is_drained(self) -> bool:
        return self.house.worker.is_idle and self.house.publisher.wait_drained(0.0)

    def _check_threads(self) -> None:
        """Raise what ended a thread that should be running."""
        for room in self.house.threads.values():
            if room.error is not None:
                raise room.error
            assert room.is_alive(), "a thread that has to live ended without an error"

    def _reload(self) -> None:
        """The file again: what can be changed while running is, and a file that is wrong changes nothing."""
        if self.file is None:
            log.warning("HUP: there is no configuration file to read again; expected a start with run FILE.toml")
            return
        self._notifier.reloading()
        try:
            config = load_config(self.file)
            told = self.house.fleet.apply(config)
        except (ConfigError, SourceError) as error:
            self._num_reloads["refused"] += 1
            log.error("the configuration was not taken, the old one stays: %s", error)
            self.house.tell_problem(f"the configuration was not taken, the old one stays: {error}")
        else:
            self._num_reloads["ok"] += 1
            waiting = [key for key in NEEDS_RESTART if getattr(config, key) != getattr(self.config, key)]
            problem = f"a restart is needed for: {', '.join(waiting)}" if waiting else ""
            self.house.tell_problem(problem)
            log.info("the configuration was read again: %s", "; ".join(filter(None, (told, problem))))
        self._notifier.ready(self._summary())

    # --- stop --------------------------------------------------------------------------------------------------------

    def _stop(self) -> bool:
        """Stop in reverse; True when a thread is late and was left behind."""
        self._notifier.stopping()
        house, deadline = self.house, time.monotonic() + STOP_LIMIT_S
        house.fleet.stop()
        house.fleet.join(max(0.0, deadline - 1.0 - time.monotonic()))
        late = house.fleet.late()
        for name, room in reversed(house.threads.items()):
            room.stop()
            if room.is_alive():
                room.join(max(0.1, deadline - time.monotonic()))
            if room.is_alive():
                late.append(name)
        if late:
            log.warning("still busy after %g s and left behind: %s", STOP_LIMIT_S, ", ".join(late))
        return bool(late)


def _say(error: Exception) -> int:
    """One line for the person who started the daemon, and the exit code; the traceback of what nobody foresaw."""
    if is_device_lost(error):  # the pub thread, which waits for the device, may be the first to hear of it
        error = DeviceLost(str(error).partition("\n")[0])
    for kind, code in CODES:
        if isinstance(error, kind):
            print(f"sam2-stream: {error}", file=sys.stderr)
            return code
    log.error("the daemon ends", exc_info=error)
    return EXIT_FAILURE
