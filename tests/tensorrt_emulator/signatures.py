"""The signatures that the emulator obeys, read from `signatures.txt`, and the check of every call against them.

`signatures.txt` holds what the bindings wheels say of themselves, for the few names that are used here;
`tests/rtx/test_bindings.py` compares it with the wheels. A call that the bindings would refuse raises TypeError here,
an attribute that they do not have AttributeError.
"""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLAIN: Mapping[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "tuple": (tuple, list),
    "Buffer": (bytes, bytearray, memoryview),
    "object": object,
}
TEXT = (Path(__file__).parent / "signatures.txt").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property: what it gives, and whether it may be set."""

    kind: str
    is_settable: bool


@dataclass(frozen=True, slots=True)
class Table:
    """What one flavour of the bindings has; methods and properties by `Class.name`, enumerations by name."""

    methods: Mapping[str, tuple[inspect.Signature, ...]]
    attributes: Mapping[str, Attribute]
    enums: Mapping[str, Mapping[str, int]]


def lines(flavour: str) -> list[str]:
    """The lines that hold for `tensorrt`, `tensorrt-10` or `tensorrt-rtx`."""
    result = []
    for line in TEXT.splitlines():
        only, _, rest = line.partition(" ") if line.startswith("@") else ("", "", line)
        if line and not line.startswith("#") and only in ("", f"@{flavour}"):
            result.append(rest)
    return result


def read_table(flavour: str) -> Table:
    methods: dict[str, tuple[inspect.Signature, ...]] = {}
    attributes: dict[str, Attribute] = {}
    enums: dict[str, dict[str, int]] = {}
    for line in lines(flavour):
        name, mark = _name_of(line)
        if mark == "=":
            enums[name] = {part.split(":")[0]: int(part.split(":")[1]) for part in line.split(" = ")[1].split()}
        elif mark == "(":
            methods[name] = (*methods.get(name, ()), _signature(line[len(name) :]))
        else:
            kind = line.split(": ")[1]
            attributes[name] = Attribute(kind.removesuffix(" settable"), kind.endswith(" settable"))
    return Table(methods, attributes, enums)


def _name_of(line: str) -> tuple[str, str]:
    end = next(index for index, letter in enumerate(line) if letter in "(: ")
    return line[:end], "=" if line[end] == " " else line[end]


def _signature(text: str) -> inspect.Signature:
    """Of `(flags: int = ...) -> INetworkDefinition`."""
    function = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef) and function.returns is not None, text
    arguments = function.args.args
    num_required = len(arguments) - len(function.args.defaults)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(
            argument.arg,
            kind,
            annotation=ast.unparse(argument.annotation or ast.Name("object")),
            default=inspect.Parameter.empty if index < num_required else None,
        )
        for index, argument in enumerate(arguments)
    ]
    return inspect.Signature(parameters, return_annotation=ast.unparse(function.returns))


def fits(value: object, kind: str, types: Mapping[str, type]) -> bool:
    """Whether the bindings would take this value for a parameter of this kind."""
    expected = types.get(kind, PLAIN.get(kind))
    if expected is None:
        return type(value).__name__ == kind
    if kind == "int":  # anything with __int__, but no float and no text
        return isinstance(value, int | enum.Enum) or (hasattr(value, "__index__") and not isinstance(value, str))
    return isinstance(value, expected)


def check_call(
    name: str,
    overloads: tuple[inspect.Signature, ...],
    call: tuple[tuple[object, ...], dict[str, object]],
    *,
    types: Mapping[str, type],
) -> inspect.Signature:
    """The overload that takes the call; raises TypeError as the bindings do."""
    for signature in overloads:
        try:
            bound = signature.bind(*call[0], **call[1])
        except TypeError:
            continue
        given = bound.arguments.items()
        if all(_passes(signature.parameters[key], value, types) for key, value in given):
            return signature
    takes = "; ".join(f"{name}{signature}" for signature in overloads)
    raise TypeError(f"{name}(): incompatible function arguments {call[0]} {call[1]}. Supported: {takes}")


def _passes(parameter: inspect.Parameter, value: object, types: Mapping[str, type]) -> bool:
    is_default = parameter.default is not inspect.Parameter.empty and value is None
    return is_default or fits(value, str(parameter.annotation), types)
