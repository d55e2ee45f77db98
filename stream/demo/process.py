"""`DaemonProcess`: the demo's daemon, in a process that does not outlive the demo.

Owns: the child process and its pipes. Runs in the demo's main thread. Never: leaves the child behind.

The child gets its configuration as one line of JSON on its standard input and answers with its endpoint. That input is
also its lifeline: it ends when the input closes, which also happens when the demo is killed. It has a session of its
own, so that Ctrl-C reaches the demo alone. Its errors go to the demo's standard error as they are.

Nano's operations are too small to share: on two cores a second thread takes 28 ms a picture to 27, but to seconds when
the two wait for each other on a busy machine, and there is a camera, a publisher and a receiver to run beside it. So
its model gets one thread, unless the environment says otherwise.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from types import MappingProxyType, TracebackType
from typing import Self

import msgspec

from stream.config import Config
from stream.demo.plan import DemoError

START_LIMIT_S = 120.0  # importing torch from a cold disk
STOP_LIMIT_S = 6.0  # the daemon promises five
THREADS = MappingProxyType({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})


class DaemonProcess:
    """A context manager; written by the main thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        search_path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stream.demo"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**THREADS, **os.environ, "PYTHONPATH": search_path},
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "used inside its `with` block"
        return self._process

    def wait_endpoint(self) -> str:
        """Where the daemon publishes; raises DemoError if it did not come so far."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None, "both are pipes"
        try:
            stdin.write(msgspec.json.encode(self._config, enc_hook=str) + b"\n")
            stdin.flush()
        except BrokenPipeError:
            self.check()
        if not select.select([stdout], [], [], START_LIMIT_S)[0]:
            raise DemoError(f"the daemon did not start within {START_LIMIT_S:g} s")
        endpoint = stdout.readline().decode().strip()
        if not endpoint:
            self.process.wait(STOP_LIMIT_S)
            self.check()
            raise DemoError("the daemon ended before it published anything")
        return endpoint

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def check(self) -> None:
        """Raise DemoError if the daemon has failed. Where it told why itself, there is nothing to add."""
        code = self.process.poll()
        if code is not None and code < 0:
            raise DemoError(f"the daemon was ended by {signal.Signals(-code).name}")
        if code:
            raise DemoError("", code)

    def stop(self) -> None:
        """End the daemon and wait until it has gone; idempotent."""
        process = self.process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        if process.poll() is None:
            process.terminate()  # for a child that does not watch its input yet
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
