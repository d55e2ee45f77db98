"""The fault table: run every fault test, and write down what each one saw.

    python benchmarks/faults.py [--save FILE] [pytest arguments]

Prints the README's table; a test that fails has no row, and makes the exit code 1. Two idle cores take two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = "| fault | promise | recovered after | frames lost | others |\n|---|---|---|---|---|"


def line(row: dict[str, Any]) -> str:
    recovered = "-" if row["recovered_s"] is None else f"{row['recovered_s']:.1f} s"
    lost = "-" if row["frames_lost"] is None else str(row["frames_lost"])
    return f"| {row['fault']} | {row['promise']} | {recovered} | {lost} | {row['others'] or '-'} |"


def run_tests(arguments: list[str]) -> tuple[list[dict[str, Any]], int]:
    """The rows of the tests that passed, and pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        file.touch()
        command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "faults"), *arguments]
        environment = {**os.environ, "SAM2_STREAM_FAULTS": str(file)}
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        return [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()], code


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    options, arguments = parser.parse_known_args()
    start, load = time.monotonic(), round(os.getloadavg()[0], 1)
    rows, code = run_tests(arguments)
    result = {
        "benchmark": "faults",
        "seconds": round(time.monotonic() - start, 1),
        "machine": platform.machine(), "cores": os.cpu_count(), "load": load,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }  # fmt: skip
    if options.save:
        options.save.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join([HEAD, *map(line, rows)]))
    sys.exit(code)


if __name__ == "__main__":
    main()
