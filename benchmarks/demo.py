"""Does the demo keep up with its camera: frames, delays and masks from the picture's arrival to another process?

Runs `sam2-stream demo` in a folder of its own and adds what it ran on. Its clip plays at 20 frames/s, which is the
ceiling; a second run has a source of 60 frames/s and one object, to see what passes. The last line is one JSON object.

    python benchmarks/demo.py [--save FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import ROOT, conclude, machine_facts

COMMAND = ("demo", "--no-window", "--json")
FASTER = ("--source", "testsrc://demo?fps=60", "--seconds", "8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", type=Path)
    save = parser.parse_args().save
    report = {"benchmark": "demo", "command": f"sam2-stream {' '.join(COMMAND)}", **machine_facts(), **play()}
    report["flat_out"] = {key: value for key, value in play(*FASTER).items() if value is not None}
    conclude(report, save)


def play(*more: str) -> dict[str, Any]:
    """What the demo says of itself."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(
            [sys.executable, "-m", "stream.cli", *COMMAND, *more],
            cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
