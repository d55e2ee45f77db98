"""Which engine the daemon runs on: verified, the one that was asked for or one that is said, and plans as they come."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_builder import GPU
from pocket import Frames, clip_frames, pocket_network
from sam2.modeling.sam2_base import SAM2Base
from tensorrt_emulator import install

import stream.loader as loader
from engines.build import EngineCache, EngineRequest, Order, Precision, Shelf, Workshop, open_engine
from engines.build.route import Route
from engines.spec import Engine, ProgramKey
from stream.config import Config
from stream.device import OptionError
from stream.loader import Loader, Model, dtype_text
from stream.tracker import Tracker

BUILDER = (sys.executable, str(Path(__file__).with_name("emulated_builder.py")))
ENCODE = ProgramKey("encode", 1)
CONFIG = Config(cameras=(), device="cpu", dtype="fp32")


@pytest.fixture(autouse=True)
def pocket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model that fits a pocket, and a cache of one's own."""
    monkeypatch.setenv("SAM2_STREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "build_model", lambda model, checkpoint: pocket_network())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def spoil(monkeypatch: pytest.MonkeyPatch, *backends: str) -> None:
    """Engines of these backends say the opposite of what they see."""

    def opened(request: EngineRequest, *, network: SAM2Base) -> Engine:
        engine = open_engine(request, network=network)
        if request.backend in backends and request.dtype is not torch.float32:
            track = engine.track

            def lying(*inputs: Any) -> Any:
                found, conditioned = track(*inputs)
                return found._replace(scores_b=-found.scores_b), conditioned

            engine.track = lying  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(loader, "open_engine", opened)


def test_what_is_picked_and_what_is_passed_over_stands_in_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Loader(CONFIG)
    assert daemon.model == Model(), "nothing is known before"
    with caplog.at_level(logging.INFO, "stream.loader"):
        tracker = daemon.load()
    [line] = [record.getMessage() for record in caplog.records if record.name == "stream.loader"]
    model = daemon.model
    assert line == f"nano on cpu: {model.choice}" and "against fp32 IoU" in line
    picked, _, over = model.choice.partition("; passed over: ")
    assert {picked.partition(",")[0], over.partition(" ")[0]} == {"compiled", "eager"}
    assert model.backend == tracker.engine.backend == picked.partition(",")[0]
    assert (model.device, model.dtype, model.problem) == ("cpu", "float32", "")


def test_a_second_start_does_not_compute_the_reference_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, torch.dtype]] = []

    def noting(request: EngineRequest, *, network: SAM2Base) -> Engine:
        opened.append((request.backend, request.dtype))
        return open_engine(request, network=network)

    monkeypatch.setattr(loader, "open_engine", noting)
    config = dataclasses.replace(CONFIG, dtype="bf16", backend="compiled")
    Loader(config).load()
    assert set(opened) == {("compiled", torch.bfloat16), ("eager", torch.float32)}
    opened.clear()
    Loader(config).load()
    assert opened == [("compiled", torch.bfloat16)]


def test_the_reference_named_by_its_user_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "choose", None)
    daemon = Loader(dataclasses.replace(CONFIG, backend="eager"))
    daemon.load()
    assert (daemon.model.backend, daemon.model.dtype) == ("eager", "float32")


def test_a_named_backend_that_is_not_installed_is_an_error_that_says_how_to_install_it() -> None:
    with pytest.raises(OptionError, match=r"backend is 'tensorrt': .*pip install") as caught:
        Loader(dataclasses.replace(CONFIG, backend="tensorrt")).load()
    assert "\n" not in str(caught.value)


def test_a_named_backend_that_computes_something_else_is_replaced_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, "compiled")
    daemon = Loader(dataclasses.replace(CONFIG, dtype="bf16", backend="compiled"))
    with caplog.at_level(logging.ERROR):
        daemon.load()
    assert daemon.model.backend == "eager" and daemon.model.dtype == "bfloat16"
    assert daemon.model.problem.startswith("backend compiled is not used: eager, ")
    assert "compiled (refused: " in daemon.model.problem and daemon.model.problem in caplog.text


def test_where_nothing_in_reduced_precision_is_right_the_reference_runs_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch, "compiled", "eager")
    daemon = Loader(dataclasses.replace(CONFIG, dtype="bf16"))
    daemon.load()
    assert (daemon.model.backend, daemon.model.dtype) == ("eager", "float32")
    assert daemon.model.problem.startswith("not used: compiled, eager: eager in fp32, the reference itself")


def test_the_reference_depends_on_weights_device_and_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt").write_bytes(b"a")
    (tmp_path / "b.pt").write_bytes(b"b")
    one = EngineRequest("nano", tmp_path / "a.pt", torch.device("cpu"), torch.bfloat16, "auto")
    other = dataclasses.replace(one, checkpoint=tmp_path / "b.pt")
    keys = {loader._reference_key(request) for request in (one, other)}
    monkeypatch.setattr(loader, "SOURCES", ("engines",))
    keys.add(loader._reference_key(one))
    assert len(keys) == 3
    faster = dataclasses.replace(one, backend="compiled", dtype=torch.float32)
    assert loader._reference_key(faster) in keys, "it is fp32 eager's in any case"


def test_an_island_of_another_precision_is_told() -> None:
    engine = open_engine(
        EngineRequest("nano", None, torch.device("cpu"), torch.float32, "eager"), network=pocket_network()
    )
    assert dtype_text(engine) == "float32"
    engine.attention_dtype = torch.bfloat16  # type: ignore[misc]
    assert dtype_text(engine) == "float32, attention bfloat16"


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a built program."""
    folder = tmp_path_factory.mktemp("plans")
    request = EngineRequest("nano", None, torch.device("cpu"), torch.float16, "tensorrt")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, "tensorrt")
        patch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
        route = Route(Shelf(request, cache=EngineCache(folder / "unused")), pocket_network(), tell=lambda tidings: None)
        (folder / ENCODE.name).write_bytes(route.plan(ENCODE, Precision(torch.float16, torch.float16)))
    return folder


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, plans: Path) -> None:
    """An emulated TensorRT on an emulated GPU, whose workshop finds its one program ready, and verifies it."""

    def workshop(request: EngineRequest) -> Workshop:
        return Workshop(request, order=Order((ENCODE,)), command=(*BUILDER, "ready", str(plans)))

    install(monkeypatch, "tensorrt")
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
    monkeypatch.setattr(loader, "Workshop", workshop)
    monkeypatch.setattr(loader, "resolve_dtype", lambda name, device: torch.float16)


def states(tracker: Tracker, frames: Frames) -> list[tuple[str, ...]]:
    return [tracker.step(frame).states for frame in frames]


@pytest.mark.timeout(300)
def test_a_plan_that_was_built_while_the_daemon_runs_is_taken_over_between_two_turns(
    tensorrt: None, caplog: pytest.LogCaptureFixture
) -> None:
    daemon, frames = Loader(dataclasses.replace(CONFIG, backend="tensorrt")), clip_frames(7, 8)
    with caplog.at_level(logging.INFO, "stream.loader"):
        tracker = daemon.load()
        tracker.add(1, points=((50, 40, 1),))
        before = states(tracker, frames[:4])
        assert daemon.model.backend == "eager", "it does all the work as long as there is no plan"
        waiting = threading.Event()
        while daemon.model.backend == "eager" and daemon._workshop is not None:
            daemon.tend()
            waiting.wait(0.05)
        assert daemon.model.backend == "tensorrt" and daemon.model.dtype == "float16"
        assert len(before) + len(states(tracker, frames[4:])) == 8, "and the objects are still known"
        while daemon._workshop is not None:
            daemon.tend()
            waiting.wait(0.05)
    said = [record.getMessage() for record in caplog.records if record.name == "stream.loader"]
    assert any("1 plans are built while the daemon runs" in line for line in said), said
    assert any(line.startswith("tensorrt: encode-f1 is a plan from now on") for line in said), said
    assert "1 of 1 plans were built: all are in use" in said

    again = Loader(dataclasses.replace(CONFIG, backend="tensorrt"))
    again.load()
    assert again.model.backend == "tensorrt" and again._workshop is None, "the next start finds it"
    assert again.model.choice.startswith("tensorrt, ") and again.model.problem == ""


def test_a_cache_that_cannot_be_written_costs_the_plans_and_not_the_daemon(
    tensorrt: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    daemon = Loader(dataclasses.replace(CONFIG, backend="tensorrt"))
    with caplog.at_level(logging.INFO):
        daemon.load()
        daemon.tend()
    assert daemon.model.backend == "eager" and daemon._workshop is None
    assert "tensorrt, without a plan so far, so it is eager that runs, " in daemon.model.choice
    [said] = [record for record in caplog.records if "plans were built" in record.getMessage()]
    assert said.levelno == logging.ERROR and "0 of 1 plans were built: " in said.getMessage()


@pytest.mark.timeout(120)
def test_the_end_of_the_daemon_is_the_end_of_what_builds_for_it(tensorrt: None) -> None:
    daemon = Loader(dataclasses.replace(CONFIG, backend="tensorrt"))
    daemon.load()
    workshop = daemon._workshop
    assert workshop is not None and workshop._child is not None
    child = workshop._child
    daemon.close()
    assert child.returncode is not None and daemon._workshop is None
    daemon.tend()
    daemon.close()
