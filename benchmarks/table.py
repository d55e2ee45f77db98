"""The README's table of measurements, generated from `benchmarks/results/*.json`.

Owns: what stands between the two markers. Never: measures; rounds a figure twice.

    python benchmarks/table.py            # to standard output
    python benchmarks/table.py --write    # into README.md, between the markers
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.readme.daemon_rows import ROWS
from benchmarks.readme.official_rows import official_rows
from benchmarks.readme.quality_rows import QUALITY_ROWS
from benchmarks.readme.row import NOT_RECORDED, Result, Row, machine, versions
from benchmarks.readme.unrun_rows import unrun_rows

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
BEGIN = "<!-- measurements: `python benchmarks/table.py --write` makes this part from benchmarks/results -->"
END = "<!-- end of measurements -->"
_BUSY = 1.25  # load for each core, from which on a result is said to be from a busy machine
_FIRST = (
    "demo",
    "nano_quality",
    *QUALITY_ROWS,
)  # then the official predictor, then the others


def load_results(folder: Path) -> list[Result]:
    """Every result in the folder that names its benchmark, sorted by file name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if "benchmark" in result]


def table(results: Sequence[Result]) -> str:
    """The legend of machines, then one row a figure."""
    rows = _rows(results)
    machines = list(dict.fromkeys(machine(row.where) for row in rows if row.where is not None))
    lines = [_legend(results, machines), ""]
    lines += ["| what | measured | ceiling or goal | on, at | how |", "|---|---|---|---|---|"]
    for row in rows:
        place = "-" if row.where is None else _place(row.where, machines)
        cells = (row.what, row.measured, row.bound or "-", place, row.how)
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def _rows(results: Sequence[Result]) -> list[Row]:
    known = {**ROWS, **QUALITY_ROWS}
    by_name = {name: [result for result in results if result["benchmark"] == name] for name in known}
    official = [result for result in results if result["benchmark"] == "against_official"]
    rows: list[Row] = []
    for name in _FIRST:
        rows += [row for result in by_name[name] for row in known[name](result)]
    rows += official_rows(official)
    for name in [name for name in known if name not in _FIRST]:
        rows += [row for result in by_name[name] for row in known[name](result)]
    return rows + unrun_rows(results)


def _legend(results: Sequence[Result], machines: Sequence[str]) -> str:
    """A: processor, cores (versions)."""
    parts = []
    for index, name in enumerate(machines):
        known = {versions(result) for result in results if machine(result) == name} - {""}
        parts.append(f"**{chr(ord('A') + index)}**: {name}" + (f" ({'; '.join(sorted(known))})" if known else ""))
    ceiling = "A ceiling counts a frame's operations as the official code does them; exact algebra spares some of them."
    return f"Where, and at which commit (`+`: with changes): {'; '.join(parts)}. {ceiling}"


def _place(result: Result, machines: Sequence[str]) -> str:
    """A, 1ac8ab8; and the load, where others worked on the machine as well."""
    place = f"{chr(ord('A') + machines.index(machine(result)))}, {result.get('commit', NOT_RECORDED)}"
    is_busy = result.get("load", 0) > _BUSY * result.get("cores", 1)
    return f"{place}, busy (load {result['load']:.0f})" if is_busy else place


def with_table(readme: str, generated: str) -> str:
    """The README with what stands between its markers replaced."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md: expected the lines {BEGIN!r} and {END!r}")
    return f"{head}{begin}\n\n{generated}\n\n{end}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    generated = table(load_results(RESULTS))
    if parser.parse_args().write:
        README.write_text(with_table(README.read_text(encoding="utf-8"), generated), encoding="utf-8")
    else:
        print(generated)


if __name__ == "__main__":
    main()
