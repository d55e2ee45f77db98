"""How the model can be run here: TensorRT, TensorRT-RTX and Triton, with what is missing for them; the precision; the
plans that lie in the cache; and what a daemon that runs now has taken.

Owns: nothing. Runs in whichever thread calls it. Never: builds, loads or removes a plan, or shows a secret.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Iterator

import torch

from engines.build import EngineCache, Entry
from engines.spec import BackendMissing
from engines.tensorrt import LibraryName, find_gpu, load_library
from stream.config import Config
from stream.config.checks import is_local
from stream.controller import Controller
from stream.device import OptionError, resolve_device, resolve_dtype
from stream.doctor.finding import Finding, Verdict, broken, note, ok

ANSWER_LIMIT_S = 1.0
EXPORTERS = ("onnx", "onnxscript")  # what writes a program down for a builder
LIBRARIES: tuple[LibraryName, ...] = ("tensorrt", "tensorrt-rtx")


def engines(config: Config) -> Iterator[Finding]:
    """All of it."""
    for name in LIBRARIES:
        yield library(name, config)
    if torch.version.cuda:
        yield from _beside_cuda()
    yield precision(config)
    yield from plans(EngineCache())
    yield from live(config)


def library(name: LibraryName, config: Config) -> Finding:
    """Whether plans can be built and run; what is missing for it is a fault only where it was asked for by name."""
    is_named = config.backend == name
    gpu = find_gpu(torch.device("cuda"))
    try:
        found = load_library(name)
        found.check_gpu(gpu)
    except BackendMissing as error:
        text, fixes = _taken_apart(str(error))
        verdict = _verdict(is_named=is_named, is_of_use=gpu is not None)
        return Finding(name, verdict, text, () if verdict is Verdict.OK else fixes)
    lacking = [package for package in EXPORTERS if importlib.util.find_spec(package) is None]
    if lacking:
        text = f"{name} {found.version} runs plans, but {' and '.join(lacking)} are missing to build any"
        return note(name, text, f".venv/bin/pip install {' '.join(lacking)}")
    fix = f"sam2-stream engines build --backend {name} --model {config.model}"
    return Finding(
        name, Verdict.OK, f"{name} {found.version}; plans are built at the first start, or before it:", (fix,)
    )


def precision(config: Config) -> Finding:
    """What `dtype` comes to here."""
    try:
        device = resolve_device(config.device)
        dtype = str(resolve_dtype(config.dtype, device)).removeprefix("torch.")
    except OptionError as error:
        return broken("precision", str(error))
    chosen = f"dtype {config.dtype} is {dtype} on {device.type}"
    return ok("precision", f"{chosen}; what does not agree with float32 is not used, and the log says so")


def plans(cache: EngineCache) -> Iterator[Finding]:
    """What earlier builds left, and what the gate has refused."""
    kept, refused = list(cache.entries()), list(cache.entries(refused=True))
    if kept:
        size = sum(entry.num_bytes for entry in kept) / 2**20
        yield ok("plans", f"{len(kept)} of {_of_what(kept)}, {size:.0f} MiB in {cache.folder}")
    if refused:
        first = refused[0].label
        reason = "" if first.verdict is None else f"; {first.recipe.program}: {first.verdict.reason}"
        text = f"{len(refused)} of {_of_what(refused)} computed something else than eager and are not used{reason}"
        look = f"ls -l {shlex.quote(str(cache.refused_folder))}"
        yield note("plans", text, look, "sam2-stream engines list --refused")


def live(config: Config) -> Iterator[Finding]:
    """Which backend and precision the daemon has that runs with this configuration, if one does."""
    for endpoint in filter(is_local, config.control_endpoints):
        with Controller(endpoint, timeout_s=ANSWER_LIMIT_S) as controller:
            try:
                status = controller.status()
            except (TimeoutError, ValueError, RuntimeError):
                continue
        text = f"{status.model} runs on {status.backend or 'nothing yet'} in {status.dtype} on {status.device}"
        yield ok("live", f"{text}: {status.choice}" if status.choice else text)
        return


def _beside_cuda() -> Iterator[Finding]:
    if importlib.util.find_spec("triton") is None:
        text = "not installed: compiled does without its own attention kernel, and takes the best of PyTorch's"
        yield note("triton", text, ".venv/bin/pip install triton")
    else:
        yield ok("triton", f"{_version('triton')}; compiled tries its attention kernel against PyTorch's")
    converter, series = _version("torch-tensorrt"), ".".join(torch.__version__.split(".")[:2])
    if converter and not converter.startswith(f"{series}."):
        text = f"torch-tensorrt {converter} is made for another torch than {torch.__version__}; ONNX is used instead"
        yield note("torch-tensorrt", text, f".venv/bin/pip install 'torch-tensorrt=={series}.*'")


def _taken_apart(text: str) -> tuple[str, tuple[str, ...]]:
    """What is missing, and the commands that stand in the text, one by one."""
    commands = re.findall(r"(?:pip|apt-get) install (?:'[^']+'|[\w-]+)", text)
    if not commands:
        return text, ("nvidia-smi",)
    prefixes = {"pip": ".venv/bin/", "apt-get": "sudo "}
    fixes = tuple(prefixes[command.partition(" ")[0]] + command for command in commands)
    return text[: text.index(commands[0])].rstrip(": "), fixes


def _verdict(*, is_named: bool, is_of_use: bool) -> Verdict:
    """Of something that is missing."""
    if is_named:
        return Verdict.BROKEN
    return Verdict.NOTE if is_of_use else Verdict.OK


def _of_what(entries: list[Entry]) -> str:
    return ", ".join(sorted({f"{entry.label.recipe.model} ({entry.label.recipe.backend})" for entry in entries}))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
