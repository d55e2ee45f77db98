"""Makes the emulated module, and makes it importable in place of NVIDIA's."""

from __future__ import annotations

import enum
import functools
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from onnx import TensorProto

from tensorrt_emulator import build, objects, run
from tensorrt_emulator.objects import Dims, Emulated
from tensorrt_emulator.signatures import Table, check_call, fits, read_table
from tensorrt_emulator.world import ENVIRONMENT, World

NAMES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
KINDS = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
}
HERE = Path(__file__).parent


def install(
    monkeypatch: pytest.MonkeyPatch, flavour: str = "tensorrt", *, version: str | None = None, faults: str = ""
) -> World:
    """From now on `import tensorrt` (or `tensorrt_rtx`) finds the emulator, here and in child processes.

    `faults`: names of `FAULTS`, with spaces between. A child has those of this call; here they can be changed later.
    """
    world = World(flavour, version or ("1.7.1.116" if flavour == "tensorrt-rtx" else "11.0.0"), set(faults.split()))
    module = make_module(world)
    for name in NAMES[flavour]:
        monkeypatch.setitem(sys.modules, name, module)
    path = [str(HERE / "modules"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in path if part))
    monkeypatch.setenv(ENVIRONMENT, world.text())
    return world


def make_module(world: World) -> ModuleType:
    """A module with the classes and enumerations of the table, all of one world."""
    name = NAMES[world.flavour][0]
    module, table = ModuleType(name, __doc__), read_table(world.table)
    module.__spec__, module.__file__ = ModuleSpec(name, None), str(HERE / "modules" / name / "__init__.py")
    module.__dict__.update(__version__=world.version, Dims=Dims)
    severity = _enumeration("Severity", table.enums["Logger.Severity"])
    for title, members in table.enums.items():
        if "." not in title:
            setattr(module, title, _enumeration(title, members))
    bases = {
        title: found
        for source in (build, objects, run)
        for title, found in vars(source).items()
        if isinstance(found, type) and issubclass(found, Emulated) and found is not Emulated
    }
    types = {**bases, "Dims": Dims, "ILogger.Severity": severity}
    types |= {title: getattr(module, title) for title in table.enums if "." not in title}
    for title, base in bases.items():
        setattr(module, title, _checked(base, table, module=module, types=types))
        getattr(module, title).world = world
    for title in ("ILogger", "Logger"):
        getattr(module, title).Severity = severity
        for member in severity:
            setattr(getattr(module, title), member.name, member)
    module.kind = lambda number: module.DataType[KINDS[number]]  # type: ignore[attr-defined]
    return module


def _enumeration(title: str, members: Mapping[str, int]) -> type[enum.Enum]:
    """As those of the bindings: no numbers, but `int(member)` works."""
    result = enum.Enum(title, dict(members))  # type: ignore[misc]
    result.__int__ = result.__index__ = lambda member: member.value  # type: ignore[attr-defined]
    return result


def _checked(base: type[Emulated], table: Table, *, module: ModuleType, types: Mapping[str, type]) -> type[Emulated]:
    """The class as its callers see it: what is not in the table is not there, and calls must fit it."""
    title, body = base.__name__, {"module": module, "__module__": module.__name__}
    for name, value in vars(base).items():
        if name.startswith("_") and name != "__init__":
            continue
        qualified = f"{title}.{name}"
        if isinstance(value, FunctionType) and qualified in table.methods:
            body[name] = _method(qualified, value, table=table, types=types)
        elif name not in ("__init__", "module", "world") and qualified not in table.attributes:
            body[name] = property(functools.partial(_absent, qualified))
    result = type(title, (base,), body)
    result.__init__ = _finishing(result, body.get("__init__", base.__init__))  # type: ignore[misc]
    settable = {key.split(".")[1]: found.kind for key, found in table.attributes.items() if found.is_settable}
    own = {name: kind for name, kind in settable.items() if f"{title}.{name}" in table.attributes}

    def set_attribute(self: Any, name: str, value: object) -> None:
        is_free = name.startswith("_") or type(self) is not result or "_is_finished" not in vars(self)
        if not is_free and name not in own:
            raise AttributeError(f"{title}.{name} cannot be set: the bindings have no such attribute that can")
        if not is_free and value is not None and not fits(value, own[name], types):
            raise TypeError(f"{title}.{name}: incompatible value {value!r}, expected {own[name]}")
        object.__setattr__(self, name, value)

    result.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    return result


def _finishing(owner: type, start: Callable[..., None]) -> Callable[..., None]:
    def initialise(self: Any, *args: object, **kwargs: object) -> None:
        start(self, *args, **kwargs)
        if type(self) is owner:
            self._is_finished = True

    return initialise


def _absent(qualified: str, self: object) -> None:
    raise AttributeError(f"{qualified}: the bindings have no such attribute")


def _method(qualified: str, run_it: FunctionType, *, table: Table, types: Mapping[str, type]) -> Callable[..., object]:
    overloads = table.methods[qualified]

    @functools.wraps(run_it)
    def call(self: Any, *args: object, **kwargs: object) -> object:
        signature = check_call(qualified, overloads, (args, kwargs), types=types)
        self.world.calls.append(qualified)
        given = signature.bind(*args, **kwargs).arguments
        accepted = run_it.__code__.co_varnames[: run_it.__code__.co_argcount]
        result = run_it(self, **{key: value for key, value in given.items() if key in accepted})
        returns = str(signature.return_annotation)
        assert result is None or returns.startswith("list") or fits(result, returns, types), (qualified, result)
        return result

    return call
