"""Does the demo keep up with its camera: frames, delays and masks from the picture's arrival to another process?

Runs `sam2-stream demo` in a folder of its own and adds what it ran on. Its clip plays at 20 frames/s, which is the
ceiling. The last line is one JSON object.

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import ROOT, machine_facts

COMMAND = ("demo", "--no-window", "--json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", type=Path)
    save = parser.parse_args().save
    facts = machine_facts()
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(
            [sys.executable, "-m", "stream.cli", *COMMAND],
            cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
    figures = json.loads(told.splitlines()[-1])
    line = json.dumps({"benchmark": "demo", "command": f"sam2-stream {' '.join(COMMAND)}", **facts, **figures})
    if save is not None:
        save.resolve().write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
