"""The child process that builds: what it brings, and that it never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from emulated_builder import GPU
from pocket import pocket_network
from tensorrt_emulator import install

from engines.build import EngineCache, EngineRequest, Order, Precision, ReadyPlan, Shelf, Workshop, open_engine
from engines.build.route import Route
from engines.build.tidings import Tidings
from engines.programmed import ProgrammedEngine
from engines.spec import ProgramKey

ONE, TWO = ProgramKey("encode", 1), ProgramKey("encode", 2)
REQUEST = EngineRequest("nano", None, torch.device("cpu"), torch.float16, "tensorrt")
BUILDER = (sys.executable, str(Path(__file__).with_name("emulated_builder.py")))
PATIENCE_S = 100.0
# says that it works, and then does not end by itself; its own child does not, either
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print('{"kind": "stage", "key": null, "text": "pids %d %d"}' % (__import__("os").getpid(), inner.pid), flush=True)
import time; time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt")
    monkeypatch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two built programs."""
    folder = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, "tensorrt")
        patch.setattr("engines.build.shelf.find_gpu", lambda device: GPU)
        shelf = Shelf(REQUEST, cache=EngineCache(folder / "unused"))
        route = Route(shelf, pocket_network(), tell=lambda tidings: None)
        for key in (ONE, TWO):
            (folder / key.name).write_bytes(route.plan(key, Precision(torch.float16, torch.float16)))
    return folder


@pytest.fixture
def workshop_of(cache: EngineCache, plans: Path) -> Iterator[Callable[..., Workshop]]:
    """Workshops that are stopped at the end; unless told otherwise, their children find the plans ready."""
    made: list[Workshop] = []
    ready = (*BUILDER, "ready", str(plans))

    def make(*command: str, keys: tuple[ProgramKey, ...] = (ONE,)) -> Workshop:
        made.append(Workshop(REQUEST, order=Order(keys), cache=cache, command=command or ready))
        return made[-1]

    yield make
    for workshop in made:
        workshop.stop()


def watched(workshop: Workshop, until: Callable[[Workshop], bool]) -> list[ReadyPlan]:
    """Poll until something is so."""
    ready: list[ReadyPlan] = []
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        ready += workshop.poll()
        if until(workshop):
            return ready
        pause.wait(0.05)
    raise AssertionError(f"after {PATIENCE_S} s: {workshop.progress}; {workshop.log_path.read_text()[-2000:]}")


def is_over(workshop: Workshop) -> bool:
    return not workshop.progress.is_running


def is_alive(pid: int) -> bool:
    """Zombies are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(*pids: int) -> None:
    pause = threading.Event()
    for _ in range(200):
        if not any(map(is_alive, pids)):
            return
        pause.wait(0.05)
    raise AssertionError(f"still there: {[pid for pid in pids if is_alive(pid)]}")


def test_a_child_builds_while_its_parent_goes_on(workshop_of: Callable[..., Workshop], cache: EngineCache) -> None:
    """Its plans are put into the engine between two calls, and need no child at the next start."""
    network = pocket_network()
    engine = open_engine(REQUEST, network=network, cache=cache)
    assert isinstance(engine, ProgrammedEngine)
    workshop = workshop_of(keys=(ONE, TWO))
    assert workshop.missing == (ONE, TWO)
    workshop.start()
    pid = workshop.pid
    assert pid is not None
    ready = watched(workshop, lambda one: bool(one.progress.num_done) or is_over(one))
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    assert os.getpgid(pid) == pid != os.getpgrp()
    assert workshop.progress.num_programs == 2
    ready += watched(workshop, is_over)
    progress = workshop.progress
    assert (progress.error, progress.refused, progress.num_done) == ("", (), 2)
    assert [plan.key for plan in ready] == [ONE, TWO]
    assert engine.installed == ()
    assert all(workshop.install(engine, plan) for plan in ready)
    assert engine.installed == (ONE, TWO)
    again = workshop_of(keys=(ONE, TWO))
    again.start()
    assert again.pid is None
    assert not again.progress.is_running
    wait_until_gone(pid)


def test_what_a_child_refuses_is_told_with_its_reason(
    workshop_of: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "tensorrt", faults="enqueue_false")
    workshop = workshop_of()
    workshop.start()
    assert watched(workshop, is_over) == []
    (refused,) = workshop.progress.refused
    assert refused.startswith("encode-f1: float16: ")
    assert "did not run" in refused


def test_a_plan_that_vanished_before_it_was_loaded_harms_nothing(
    workshop_of: Callable[..., Workshop], cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(REQUEST, network=pocket_network(), cache=cache)
    assert isinstance(engine, ProgrammedEngine)
    assert not workshop_of().install(engine, ReadyPlan(ONE, cache.folder / "gone.plan", ""))
    assert engine.installed == ()


def test_a_child_that_crashes_is_told_with_the_place_of_its_last_words(workshop_of: Callable[..., Workshop]) -> None:
    workshop = workshop_of(sys.executable, "-c", "import sys; print('ouch', file=sys.stderr); sys.exit(3)")
    workshop.start()
    watched(workshop, is_over)
    assert "ended with code 3" in workshop.progress.error
    assert str(workshop.log_path) in workshop.progress.error
    assert "ouch" in workshop.log_path.read_text()


def test_a_cache_that_cannot_be_used_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workshop = Workshop(REQUEST, order=Order((ONE,)), cache=EngineCache(tmp_path / "file" / "engines"))
    workshop.start()
    assert workshop.poll() == ()
    assert not workshop.progress.is_running
    assert "file/engines" in workshop.progress.error


def test_a_child_that_cannot_have_the_weights_says_why(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The words of the exception, not the number of an exit."""
    checkpoint = tmp_path / "some.pt"
    checkpoint.write_bytes(b"no archive")
    request = EngineRequest("nano", checkpoint, torch.device("cpu"), torch.float16, "tensorrt")
    workshop = Workshop(request, order=Order((ONE,)), cache=cache, command=[*BUILDER, "own-weights"])
    workshop.start()
    watched(workshop, is_over)
    workshop.stop()
    assert "expected a PyTorch checkpoint" in workshop.progress.error


def test_a_stopped_workshop_leaves_nobody_behind(workshop_of: Callable[..., Workshop]) -> None:
    """Not even those who ignore TERM, or children of the child."""
    workshop = workshop_of(sys.executable, "-c", STUBBORN)
    workshop.start()
    watched(workshop, lambda one: one.progress.stage.startswith("pids"))
    pids = [int(word) for word in workshop.progress.stage.split()[1:]]
    assert all(map(is_alive, pids))
    workshop.stop()
    wait_until_gone(*pids)


_PARENT = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from emulated_builder import GPU
from test_workshop import BUILDER, REQUEST
import engines.build.shelf
from engines.build import EngineCache, Workshop
from pathlib import Path
engines.build.shelf.find_gpu = lambda device: GPU
workshop = Workshop(REQUEST, cache=EngineCache(Path(sys.argv[2])), command=BUILDER)
workshop.start()
print(workshop.pid, flush=True)
while not workshop.progress.stage:
    workshop.poll()
    threading.Event().wait(0.05)
print("building", flush=True)
threading.Event().wait(1000)
"""


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """However that one ends: it may be killed."""
    command = [sys.executable, "-c", _PARENT, str(Path(__file__).parent), str(tmp_path / "engines")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "building\n"
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(child)


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"{}", b'{"kind": 1, "key": {"x": 2}}', b"\xff"])
def test_lines_that_no_builder_writes_are_errors_of_a_known_kind(line: bytes) -> None:
    with pytest.raises(ValueError):
        Tidings.from_line(line)


def test_lines_come_back_as_they_were() -> None:
    for tidings in (Tidings("done"), Tidings("ready", ONE, "text", 0.5, "/path")):
        assert Tidings.from_line(tidings.to_line()) == tidings
