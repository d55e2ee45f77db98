"""The end of a process that serves a test."""

from __future__ import annotations

import subprocess


def kill_process(process: subprocess.Popen[str]) -> None:
    """At once, as when the power fails; its pipes are closed."""
    process.kill()
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
