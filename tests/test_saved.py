"""Saved objects: what comes back, what is never used, and that no disk stops the masks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_orders import POINT, Caller
from test_worker import Bench

from stream import saved as saving
from stream.command import Add, Remove, Rename
from stream.memory import NO_TIME, RowMemory
from stream.saved import SavedObjects
from stream.state_file import (
    HEAD_BYTES,
    LiveCamera,
    LiveObject,
    State,
    StateError,
    live_camera,
    read_state,
    saved_camera,
    write_state,
)

MODEL = "nano 0123"


def row(age: int = 9, *, value: float = 0.5, dtype: torch.dtype = torch.bfloat16) -> RowMemory:
    memory, pointers = torch.full((8, 4, 2), value, dtype=dtype), torch.full((17, 8), value + 1)
    memory_times, pointer_times = np.full(8, NO_TIME), np.full(17, NO_TIME)
    memory_times[[0, 3, 4]], pointer_times[[0, 5]] = [0, 7, 8], [0, 8]
    memory[memory_times == NO_TIME], pointers[pointer_times == NO_TIME] = 0, 0
    return RowMemory(memory, pointers, memory_times, pointer_times, age)


def live(name: str = "cam0", *, epoch: int = 3, age_s: float = 0.0, objects: int = 1) -> LiveCamera:
    items = tuple(LiveObject(number + 1, f"thing {number}", row(value=float(number))) for number in range(objects))
    return LiveCamera(name, epoch, time.time_ns() - int(age_s * 1e9), items, (7,))


def assert_equal(one: RowMemory, other: RowMemory) -> None:
    assert one.age == other.age and one.memory_snc.dtype == other.memory_snc.dtype
    assert torch.equal(one.memory_snc, other.memory_snc) and torch.equal(one.pointer_sc, other.pointer_sc)
    np.testing.assert_array_equal(one.memory_times_s, other.memory_times_s)
    np.testing.assert_array_equal(one.pointer_times_s, other.pointer_times_s)


# ---- the file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read_bit_for_bit_and_only_its_owner_may(dtype: torch.dtype, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "objects.state"
    camera = dataclasses.replace(live(), objects=(LiveObject(5, "cup", row(dtype=dtype)), LiveObject(6, "", row(1000))))
    for _ in range(2):
        write_state(file, State(MODEL, (saved_camera(camera),)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == ["objects.state"]
    state = read_state(file)
    assert state is not None and state.model == MODEL
    found = live_camera(state.cameras[0])
    assert dataclasses.replace(found, objects=()) == dataclasses.replace(camera, objects=())
    for one, other in zip(found.objects, camera.objects, strict=True):
        assert (one.object_id, one.label) == (other.object_id, other.label)
        assert_equal(one.memory, other.memory)


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert read_state(tmp_path / "objects.state") is None
    assert SavedObjects.open(tmp_path, lambda: MODEL).epochs() == {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "objects.state"
    write_state(path, State(MODEL, (saved_camera(live()),)))
    return path


def test_a_file_that_was_cut_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in [*range(HEAD_BYTES + 2), *range(HEAD_BYTES + 2, len(whole), 37), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(StateError, match="expected"):
            read_state(file)
    file.write_bytes(whole + b"x")
    with pytest.raises(StateError, match="expected"):
        read_state(file)


def test_a_file_with_a_flipped_bit_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for position in [*range(HEAD_BYTES), *range(HEAD_BYTES, len(whole), 41)]:
        damaged = bytearray(whole)
        damaged[position] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(StateError):
            read_state(file)


def seal(payload: bytes) -> bytes:
    """A file with a right hash around anything."""
    return b"SAM2OBJ1" + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest() + payload


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=300) | st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=9) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["model", "cameras", "name", "epoch", "objects", "id", "age", "times", "utc_ns", "x"]), inner, max_size=5),
    max_leaves=12).map(msgspec.msgpack.encode))  # fmt: skip
def test_any_other_contents_are_refused_in_one_way(payload: bytes, tmp_path: Path) -> None:
    path = tmp_path / "objects.state"
    path.write_bytes(seal(payload))
    try:
        state = read_state(path)
    except StateError:
        return
    assert state is not None and isinstance(state.model, str), "a payload that fits by chance"


RING = {"times": (0, NO_TIME), "shape": (2,), "dtype": "float32", "data": b"\0" * 8}
HOSTILE: dict[str, dict[str, object]] = {
    "too few bytes": {"data": b"\0" * 4},
    "too many bytes": {"data": b"\0" * 12},
    "huge shape": {"shape": (65_536, 65_536)},
    "a future memory": {"times": (5, NO_TIME)},
    "no memory": {"times": (NO_TIME, NO_TIME), "data": b""},
    "NaN": {"data": np.array([np.nan, 1], np.float32).tobytes()},
    "infinity": {"data": np.array([np.inf, 1], np.float32).tobytes()},
}
UNTYPED: dict[str, dict[str, object]] = {
    "an unknown dtype": {"dtype": "object"},
    "a negative time": {"times": (-2, 0)},
    "a time of 2**63": {"times": (2**63, 0)},
    "a shape of zero": {"shape": (0,)},
    "three axes": {"shape": (1, 1, 2)},
    "a thousand slots": {"times": (0,) * 1000},
    "an unknown key": {"more": 1},
}


@pytest.mark.parametrize("name", [*HOSTILE, *UNTYPED])
def test_hostile_memories_are_refused(name: str, tmp_path: Path) -> None:
    ring = RING | (HOSTILE | UNTYPED)[name]
    item = {"id": 1, "label": "", "age": 5, "memory": ring, "pointers": RING}
    camera = {"name": "cam0", "epoch": 0, "utc_ns": time.time_ns(), "objects": [item]}
    (tmp_path / "objects.state").write_bytes(seal(msgspec.msgpack.encode({"model": MODEL, "cameras": [camera]})))
    saved = SavedObjects.open(tmp_path, lambda: MODEL)
    assert (name in HOSTILE) == bool(saved.epochs()), "types are checked first, contents when they are asked for"
    assert saved.take("cam0", 30) is None


def test_what_is_no_regular_file_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "objects.state"
    os.mkfifo(path)
    assert SavedObjects.open(tmp_path, lambda: MODEL).epochs() == {}
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert SavedObjects.open(tmp_path, lambda: MODEL).epochs() == {}
    assert caplog.text.count("the saved objects are not used") == 2


# ---- what is used


def reopened(folder: Path, *cameras: LiveCamera, model: str = MODEL) -> SavedObjects:
    write_state(folder / "objects.state", State(model, tuple(saved_camera(camera) for camera in cameras)))
    return SavedObjects.open(folder, lambda: MODEL)


def test_objects_are_taken_once_and_only_if_fresh_and_of_this_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = reopened(tmp_path, live("a", epoch=4), live("b", age_s=40), live("c", age_s=-3600))
    assert saved.epochs() == {"a": 4, "b": 3, "c": 3}
    assert saved.take("a", 30) is not None and saved.take("a", 30) is None
    assert saved.take("b", 30) is None and "was 40 s old at the start; expected at most 30 s" in caplog.text
    assert saved.take("c", 30) is None, "the clock was set back"
    assert saved.take("d", 30) is None
    assert reopened(tmp_path, live("b", age_s=40)).take("b", 60) is not None
    assert reopened(tmp_path, live("a"), model="nano 9").take("a", 30) is None
    assert "they are of the model nano 9; expected nano 0123" in caplog.text


@contextmanager
def running(saved: SavedObjects) -> Iterator[SavedObjects]:
    saved.start()
    assert saved.ready.wait(10)
    try:
        yield saved
    finally:
        saved.stop()
        saved.join(10)
        assert not saved.is_alive() and saved.error is None


def wait_for(condition: Callable[[], bool]) -> None:
    deadline, tick = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come true within 20 s"
        tick.wait(0.01)


def names_in(folder: Path) -> set[str]:
    state = read_state(folder / "objects.state")
    return set() if state is None else {camera.name for camera in state.cameras if camera.objects}


def test_a_camera_that_has_not_come_back_is_written_again(tmp_path: Path) -> None:
    with running(reopened(tmp_path, live("a"), live("b"), live("old", age_s=4000))) as saved:
        assert saved.take("a", 30) is not None
        saved.put([live("a")])
        wait_for(lambda: saved.num_written == 1)
        assert names_in(tmp_path) == {"a", "b"}
        assert saved.take("b", 30) is not None
        saved.put([live("a", objects=0), live("b", objects=0)])
        wait_for(lambda: saved.num_written == 2)
        assert names_in(tmp_path) == set()
        saved.put([live("a", objects=0)])
    assert saved.num_written == 2, "nothing is written as long as there is nothing to say"


def test_the_last_state_is_written_at_the_end(tmp_path: Path) -> None:
    with running(SavedObjects.open(tmp_path, lambda: MODEL)) as saved:
        for epoch in range(50):
            saved.put([live(epoch=epoch)])
    assert saved.num_written <= 50
    assert SavedObjects.open(tmp_path, lambda: MODEL).epochs() == {"cam0": 49}


# ---- a disk that is full


@contextmanager
def small_files(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond so much: writing fails as on a full disk, with another errno."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_stops_no_mask_is_said_once_and_the_next_save_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "RETRY_S", 0.2)
    rig = Bench(1, 0, saved=(saved := SavedObjects.open(tmp_path, lambda: MODEL)))
    with running(saved), worker(rig) as caller:
        caller.show()
        assert caller.ask(Add(camera="cam0", points=POINT)).ok and caller.show() == (1,)
        wait_for(lambda: saved.num_written == 1)
        before = (tmp_path / "objects.state").read_bytes()
        with small_files(100):
            assert caller.ask(Add(camera="cam0", points=POINT)).ok and caller.show() == (1, 2)
            wait_for(lambda: saved.num_failed >= 3)
            for _ in range(20):
                assert caller.show() == (1, 2)
            assert (tmp_path / "objects.state").read_bytes() == before, "the last good state stays"
            assert os.listdir(tmp_path) == ["objects.state"]
        wait_for(lambda: saved.num_written == 2)
        assert len(live_camera(read_state(tmp_path / "objects.state").cameras[0]).objects) == 2
    assert caplog.text.count("the objects cannot be saved") == 1


# ---- through the worker


@contextmanager
def worker(rig: Bench) -> Iterator[Caller]:
    rig.worker.start()
    assert rig.worker.ready.wait(10)
    try:
        yield Caller(rig)
    finally:
        rig.worker.stop()
        rig.worker.join(10)
        assert not rig.worker.is_alive() and rig.worker.error is None


def test_objects_of_a_daemon_that_ended_are_there_again(tmp_path: Path) -> None:
    rig = Bench(1, 3, saved=(saved := SavedObjects.open(tmp_path, lambda: MODEL)))
    with running(saved), worker(rig) as caller:
        caller.epoch = saved.epochs().get("cam0", 0)
        assert caller.show() == (1, 2, 3)
        assert caller.ask(Add(camera="cam0", points=POINT, label="cup")).object_id == 4
        assert caller.ask(Add(camera="cam0", object_id=2, points=POINT, label="mended")).ok
        assert caller.ask(Rename(camera="cam0", object_id=3, new_id=30, label="moved")).ok
        assert caller.ask(Remove(camera="cam0", object_id=1)).ok
        for _ in range(4):
            caller.show()
        ages = {i: rig.tracker.snapshot(i, camera="cam0").memory.age for i in (2, 4, 30)}
    assert saved.num_written >= 1
    rig = Bench(1, 3, saved=(again := SavedObjects.open(tmp_path, lambda: MODEL)))
    with running(again), worker(rig) as caller:
        caller.epoch = again.epochs()["cam0"] + 1
        tracked_before = len(rig.engine.tracked)
        shown = caller.show()
        assert set(shown) == {2, 4, 30, 1}, "a configured object that was removed is prompted again at a start"
        assert caller.labels == {2: "mended", 4: "cup", 30: "moved", 1: "thing 0"}
        assert len(rig.engine.tracked) > tracked_before, "they are followed, not prompted"
        for object_id, age in ages.items():
            assert rig.tracker.snapshot(object_id, camera="cam0").memory.age == age + 1
        caller.epoch += 1
        assert set(caller.show()) == {1, 2, 3}, "a later epoch has no memory of them"


def test_saved_objects_of_other_options_are_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = reopened(tmp_path, live("cam0"))  # of another shape than the fake engine's
    rig = Bench(1, 1, saved=saved)
    with worker(rig) as caller:
        assert caller.show() == (1,)
    assert "the saved object 1 does not fit this daemon's options" in caplog.text


def test_a_state_is_saved_soon_after_a_command_and_then_every_ten_seconds(tmp_path: Path) -> None:
    rig = Bench(1, 0, saved=(saved := SavedObjects.open(tmp_path, lambda: MODEL)))
    with running(saved), worker(rig) as caller:
        caller.show()
        assert caller.ask(Add(camera="cam0", points=POINT)).ok
        caller.show()
        asked = time.monotonic()
        wait_for(lambda: saved.num_written == 1)
        assert time.monotonic() - asked < 8
        caller.show()
        assert saved.num_written == 1
    assert saved.num_written == 2, "and at the end"
