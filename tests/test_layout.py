"""The house rules, checked by reading syntax trees; nothing is imported. The ranks are the table in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stream", "engines")
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_NESTING, MAX_PARAMETERS, MAX_POSITIONAL = 300, 40, 3, 5, 3
FORBIDDEN_WORDS = {"util", "utils", "common", "helper", "helpers", "base", "manager", "handler"}
LIGHT = ("stream.frame", "stream.config", "stream.wire", "stream.client", "stream.controller")
# package -> the only modules (with what lies below them) that may import it; nobody at all for torchvision
ONLY_IN = {
    "torchvision": (),
    "av": ("stream.capture", "stream.footage", "stream.movie", "stream.film"),
    "tensorrt": ("engines.tensorrt",),
    "tensorrt_rtx": ("engines.tensorrt",),
    "torch_tensorrt": ("engines.tensorrt",),
}
BACKENDS = ("engines.eager", "engines.compiled", "engines.tensorrt")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in PATHS}
every_file = pytest.mark.parametrize("path", PATHS, ids=module_name)
every_module = pytest.mark.parametrize("name", list(TREES))


def below(name: str, *rooms: str) -> bool:
    """Whether a module is one of the rooms, or lies inside one."""
    return any(name == room or name.startswith(room + ".") for room in rooms)


def ranks() -> dict[str, int]:
    """The table `| rank | modules |` of CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    table = [(name.strip(" `"), int(rank)) for rank, names in rows for name in names.split(",")]
    assert len(table) == len(dict(table)), "a module stands twice in CONTRIBUTING.md's table of ranks"
    return dict(table)


def room_of(name: str) -> str:
    """A sub-package shares the room, and so the rank, of its package."""
    return ".".join(name.split(".")[:2])


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def targets(node: ast.Import | ast.ImportFrom, name: str) -> list[str]:
    """The modules that an import statement of module `name` loads, as dotted names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = node.module or ""
    if node.level:
        is_package = (ROOT / Path(*name.split(".")) / "__init__.py").exists()
        anchor = name.split(".")[: len(name.split(".")) - node.level + is_package]
        source = ".".join([*anchor, *([source] if source else [])])
    return [f"{source}.{alias.name}" if f"{source}.{alias.name}" in TREES else source for alias in node.names]


def imports(name: str) -> list[tuple[str, ast.stmt]]:
    nodes = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(target, node) for node in nodes for target in targets(node, name)]


def top_imports(name: str) -> list[str]:
    """What importing the module loads: everything outside function bodies."""
    lazy = {id(node) for function in functions(TREES[name]) for node in ast.walk(function)}
    return [target for target, node in imports(name) if id(node) not in lazy]


def depth(statements: list[ast.stmt]) -> int:
    """How deep blocks lie in one another; `elif` stays on the level of its `if`, an inner function starts anew."""
    return max((1 + inner_depth(node) for node in statements if isinstance(node, BLOCKS)), default=0)


def inner_depth(node: ast.stmt) -> int:
    if isinstance(node, ast.If):
        is_elif = len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
        return max(depth(node.body), depth(node.orelse) - is_elif)
    bodies = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
    bodies += [part.body for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]]
    return max(depth(body) for body in bodies)


def is_command(function: Function) -> bool:
    """A function whose parameters are a command line: decorated with `@something.command(...)` or `.callback(...)`."""
    calls = [node for node in function.decorator_list if isinstance(node, ast.Call)]
    return any(isinstance(call.func, ast.Attribute) and call.func.attr in ("command", "callback") for call in calls)


def is_triton_kernel(function: Function) -> bool:
    """It has parameters that are constants of its compilation."""
    notes = [ast.unparse(arg.annotation) for arg in function.args.args if arg.annotation is not None]
    return "tl.constexpr" in notes


def optional_imports(node: ast.stmt) -> list[ast.Import]:
    """Those of a package that may be absent, tried at the top of a file; modules of ours are always there."""
    tried = [
        entry for entry in getattr(node, "body", []) if isinstance(node, ast.Try) and isinstance(entry, ast.Import)
    ]
    return [entry for entry in tried if not any(below(alias.name, *PACKAGES) for alias in entry.names)]


def words(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


@every_file
def test_a_file_fits_three_hundred_lines(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{path.relative_to(ROOT)} has {num_lines} lines"


@every_module
def test_a_function_is_short_flat_and_takes_few_parameters(name: str) -> None:
    wrong = []
    for function in functions(TREES[name]):
        where = f"{name}:{function.lineno} {function.name}"
        num_lines = (function.end_lineno or 0) - function.lineno + 1
        positional = [*function.args.posonlyargs, *function.args.args]
        positional = positional[1:] if positional and positional[0].arg in ("self", "cls") else positional
        num_parameters = len(positional) + len(function.args.kwonlyargs)
        if num_lines > MAX_FUNCTION_LINES:
            wrong.append(f"{where}: {num_lines} lines")
        if depth(function.body) > MAX_NESTING:
            wrong.append(f"{where}: blocks nested {depth(function.body)} deep")
        # `forward` takes the tensors of an exported program, by position; a Triton kernel what its launch gives
        is_program = function.name == "forward" or is_triton_kernel(function)
        if not (is_command(function) and below(name, "stream.cli")) and not is_program:
            if num_parameters > MAX_PARAMETERS:
                wrong.append(f"{where}: {num_parameters} parameters")
            if len(positional) > MAX_POSITIONAL:
                wrong.append(f"{where}: {len(positional)} positional parameters; the fourth must be keyword-only")
    assert not wrong, "\n".join(wrong)


@every_module
def test_the_docstring_says_owner_thread_and_limits(name: str) -> None:
    text = ast.get_docstring(TREES[name]) or ""
    assert text, f"{name} has no docstring"
    if (ROOT / Path(*name.split(".")).with_suffix(".py")).exists():
        missing = [word for word in ("owns", "thread", "never") if not re.search(rf"\b{word}", text, re.IGNORECASE)]
        assert not missing, (
            f"{name}'s docstring must tell what it owns, which thread runs it, what it never does: {missing}"
        )


@every_module
def test_no_name_hides_what_it_is(name: str) -> None:
    kinds = (*FUNCTIONS, ast.ClassDef)
    names = [name.rpartition(".")[2], *(node.name for node in ast.walk(TREES[name]) if isinstance(node, kinds))]
    wrong = [candidate for candidate in names if words(candidate) & FORBIDDEN_WORDS]
    assert not wrong, f"{name}: {wrong}"


@every_module
def test_imports_go_down(name: str) -> None:
    table, wrong = ranks(), []
    if name in PACKAGES:
        assert not imports(name), f"{name}/__init__.py imports something"
        return
    room = room_of(name)
    assert room in table, f"{room} has no rank in CONTRIBUTING.md"
    for target, node in imports(name):
        if not below(target, *PACKAGES) or room_of(target) == room:
            continue
        if room_of(target) not in table or table[room_of(target)] >= table[room]:
            wrong.append(f"{name}:{node.lineno} (rank {table[room]}) imports {target} ({table.get(room_of(target))})")
        if below(name, "engines") and below(target, "stream"):
            wrong.append(f"{name}:{node.lineno}: engines never imports stream")
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        for target in [] if name in finished else top_imports(name):
            if target in TREES and target != name:
                visit(target, (*path, name))
        finished.add(name)

    for name in TREES:
        visit(name, ())


@every_module
def test_no_star_and_no_lazy_import(name: str) -> None:
    top = {id(node) for node in TREES[name].body}
    guards = [
        node for node in TREES[name].body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    top |= {id(node) for guard in guards for node in guard.body}
    top |= {id(node) for attempt in TREES[name].body for node in optional_imports(attempt)}
    wrong = []
    for target, node in imports(name):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            wrong.append(f"{name}:{node.lineno}: star import of {target}")
        picks_backend = below(name, "stream.tracker", "engines") and below(target, *BACKENDS)
        if id(node) not in top and not below(name, "stream.cli") and not picks_backend:
            wrong.append(f"{name}:{node.lineno}: lazy import of {target}")
    assert not wrong, "\n".join(wrong)


@every_module
def test_packages_stay_in_their_rooms(name: str) -> None:
    for target, node in imports(name):
        rooms = ONLY_IN.get(target.partition(".")[0])
        assert rooms is None or below(name, *rooms), f"{name}:{node.lineno} imports {target}, known only to {rooms}"


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]), ids=str
)
def test_torchvision_is_never_imported(path: Path) -> None:
    assert not re.search(r"^\s*(import|from) torchvision\b", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_opencv_is_loaded_before_pyav() -> None:
    """In the other order an OpenCV window hangs: both bring their own libxcb."""
    for room in ("stream.capture", "stream.footage", "stream.movie"):
        ours = [target for target in top_imports(room) if target == "cv2" or below(target, "av", "stream")]
        assert ours[0] == "cv2", f"{room} must import cv2 before {ours[0]}"


def closure(name: str) -> set[str]:
    """Everything that importing a module loads, as far as our own sources tell."""
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        waiting += top_imports(current) if current in TREES else []
    return {target.partition(".")[0] for target in found}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_needs_no_heavy_package(name: str) -> None:
    if name not in TREES:
        pytest.skip(f"{name} does not exist yet")
    assert not closure(name) & {"torch", "cv2", "av", "sam2", "engines"}


def test_the_overlay_needs_no_torch() -> None:
    assert not closure("stream.overlay") & {"torch", "av", "sam2", "engines"}


@every_module
def test_errors_are_specific(name: str) -> None:
    wrong = []
    for function in [*functions(TREES[name]), TREES[name]]:
        inner = {id(node) for other in functions(function) if other is not function for node in ast.walk(other)}
        handlers = [n for n in ast.walk(function) if isinstance(n, ast.ExceptHandler) and id(n) not in inner]
        broad = [n for n in handlers if n.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(n.type))]
        allowed = getattr(function, "name", "") in ("run", "_run")
        if any(n.type is None for n in broad) or len(broad) > allowed:
            wrong.append(f"{name}:{broad[0].lineno}: `except Exception` stands once per thread, at the top of `run`")
    text = ast.unparse(TREES[name])
    if re.search(r"suppress\((Base)?Exception\)", text):
        wrong.append(f"{name}: suppress(Exception)")
    assert not wrong, "\n".join(wrong)


@every_module
def test_nothing_is_passed_over_polled_or_global(name: str) -> None:
    wrong = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Pass | ast.Global):
            wrong.append(f"{name}:{node.lineno}: `{ast.unparse(node)}`")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep"):
            wrong.append(f"{name}:{node.lineno}: sleep; wait on an event with a limit")
    assert not wrong, "\n".join(wrong)


@every_module
def test_dataclasses_are_frozen_and_slotted(name: str) -> None:
    decorators = [(c, d) for c in ast.walk(TREES[name]) if isinstance(c, ast.ClassDef) for d in c.decorator_list]
    for node, decorator in decorators:
        text = ast.unparse(decorator)
        if re.match(r"(dataclasses\.)?dataclass\b", text):
            assert "frozen=True" in text and "slots=True" in text, f"{name}:{node.lineno} {node.name}: @{text}"
