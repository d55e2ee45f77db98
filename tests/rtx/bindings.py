"""Compares `tests/tensorrt_emulator/signatures.txt` with a bindings wheel: `python bindings.py MODULE FLAVOUR` prints
the lines that the wheel says otherwise. A process of its own, as NVIDIA's libraries are stood in for (test_bindings).
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tensorrt_emulator.signatures import lines

PLAIN_NAMES = {
    r"tensorrt\w*_bindings\.tensorrt\w*\.": "",
    r"typing_extensions\.Buffer|\bbuffer\b": "Buffer",
    r"typing\.SupportsInt": "int",
    r"nvonnxparser::IParserError": "ParserError",
    r"nvinfer1::|nvonnxparser::": "",
    r"List\[": "list[",
    r" = (<[^>]*>|[^,)]+)": " = ...",
}


def plain(text: str) -> str:
    """A signature out of a docstring as the table writes it: without `self`, without modules and values of defaults."""
    for pattern, name in PLAIN_NAMES.items():
        text = re.sub(pattern, name, text)
    return re.sub(r"\((self|arg0): \w+(, )?", "(", text, count=1)


def found_lines(module: Any, name: str) -> list[str]:
    """What the bindings say of `Class.name`, or of an enumeration."""
    target = module
    for part in name.split("."):
        target = getattr(target, part, None)
    if target is None:
        return []
    if hasattr(target, "__members__"):
        return [f"{name} = {member}:{int(value)}" for member, value in target.__members__.items()]
    if isinstance(target, property):
        kind = plain((target.fget.__doc__ or "").strip().splitlines()[0]).split("-> ")[1]
        return [f"{name}: {kind}" + (" settable" if target.fset else "")]
    owner, method = name.split(".")
    texts = re.findall(rf"^(?:\d+\. )?({re.escape(method)}\(.*\) -> .*)$", target.__doc__ or "", re.MULTILINE)
    return [f"{owner}.{plain(text)}" for text in texts if "*args" not in text]


def wanted_lines(line: str) -> list[str]:
    """One for each member of an enumeration."""
    name, mark, members = line.partition(" = ")
    return [f"{name} = {member}" for member in members.split()] if mark and "(" not in name else [line]


def main(module: str, flavour: str) -> None:
    bindings = importlib.import_module(module)
    for line in [*lines(flavour), *os.environ.get("EXTRA_SIGNATURE", "").splitlines()]:
        name = re.split(r"[(:]| = ", line)[0]
        found = found_lines(bindings, name)
        for wanted in wanted_lines(line):
            if wanted not in found and f"{wanted} settable" not in found:
                print(f"{wanted}\n    {bindings.__version__} says: {found or 'nothing'}")
    print(f"compared with {bindings.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
