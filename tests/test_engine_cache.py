"""The cache hands out whole plans of the very recipe, or nothing; whatever else lies there is thrown away."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engines.build import CacheError, EngineCache, Entry, Label, PlanUnusable, Verdict
from engines.build.recipe import Recipe, library_versions, programs_text

RECIPE = Recipe(
    program="track-b1-c1",
    model="nano",
    weights="nano 0123",
    backend="tensorrt",
    precision="float16",
    text="4567",
    options="level 3",
    versions="TensorRT 11",
    platform="GPU, sm90, driver 580",
)
PASSED = Verdict(True, "", {"logits_bhw": (1e-3, 2e-4)}, 0)
PLAN = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def stored(cache: EngineCache, recipe: Recipe = RECIPE) -> Entry:
    cache.store(Label(recipe, PASSED), PLAN)
    entry = cache.find(recipe)
    assert entry is not None
    return entry


def test_what_was_stored_comes_back_with_its_verdict(cache: EngineCache) -> None:
    entry = stored(cache)
    assert cache.read(entry) == PLAN
    assert entry.label == Label(RECIPE, PASSED)
    assert [found.path for found in cache.entries()] == [entry.path]


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_a_plan_of_another_recipe_is_not_found(cache: EngineCache, field: str) -> None:
    stored(cache)
    assert cache.find(replace(RECIPE, **{field: "another"})) is None
    assert cache.find(RECIPE) is not None


def test_a_stale_file_under_the_right_name_is_thrown_away(cache: EngineCache) -> None:
    entry = stored(cache, replace(RECIPE, platform="GPU, sm90, driver 575"))
    os.replace(entry.path, cache.path_of(RECIPE))
    assert cache.find(RECIPE) is None
    assert not cache.path_of(RECIPE).exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_never_loaded(cache: EngineCache, share: float) -> None:
    entry = stored(cache)
    os.truncate(entry.path, int(entry.num_bytes * share))
    found = cache.find(RECIPE)
    if found is not None:
        with pytest.raises(PlanUnusable):
            cache.read(found)
    assert not entry.path.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.03, 0.05, 0.5, 0.999])
def test_a_file_in_which_one_bit_differs_is_never_loaded(cache: EngineCache, share: float) -> None:
    entry = stored(cache)
    content = bytearray(entry.path.read_bytes())
    content[int(share * len(content))] ^= 1
    entry.path.write_bytes(content)
    found = cache.find(RECIPE)
    if found is not None:
        with pytest.raises(PlanUnusable):
            cache.read(found)
    assert not entry.path.exists()


def test_a_verdict_that_was_edited_is_never_believed(cache: EngineCache) -> None:
    entry = stored(cache)
    content = entry.path.read_bytes()
    entry.path.write_bytes(content.replace(b'"num_flips": 0', b'"num_flips": 9'))
    found = cache.find(RECIPE)
    assert found is not None
    with pytest.raises(PlanUnusable, match="checksum"):
        cache.read(found)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o666])
def test_a_file_that_others_may_open_is_foreign(cache: EngineCache, mode: int) -> None:
    entry = stored(cache)
    entry.path.chmod(mode)
    assert cache.find(RECIPE) is None
    assert not entry.path.exists()


def test_links_pipes_and_folders_are_foreign(cache: EngineCache, tmp_path: Path) -> None:
    place = stored(cache).path
    moved = tmp_path / "elsewhere.plan"
    os.replace(place, moved)
    place.symlink_to(moved)
    assert cache.find(RECIPE) is None
    assert moved.exists()
    assert not place.is_symlink()
    os.mkfifo(place, 0o600)
    assert cache.find(RECIPE) is None  # and does not wait for a writer
    place.mkdir()
    assert cache.find(RECIPE) is None


def test_garbage_is_no_plan(cache: EngineCache) -> None:
    place = stored(cache).path
    for content in (b"", b"\x80\x04K\x01.", PLAN, b"sam2-stream plan 1\n", b"sam2-stream plan 1\n00\n{}\n", b"\n" * 99):
        place.write_bytes(content)
        assert cache.find(RECIPE) is None


def test_everything_is_closed_to_others(cache: EngineCache) -> None:
    old = os.umask(0)
    try:
        entry = stored(cache)
        cache.store(Label(RECIPE, Verdict(False, "off")), PLAN, refused=True)
        with cache.building(lambda: None):
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [cache.folder, *cache.folder.rglob("*")]}
    finally:
        os.umask(old)
    assert modes.pop(cache.folder) == modes.pop(cache.refused_folder) == 0o700
    assert entry.path in modes
    assert set(modes.values()) == {0o600}


def test_a_folder_that_was_open_is_closed(cache: EngineCache) -> None:
    cache.folder.mkdir(mode=0o755)
    stored(cache)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file/engines"):
        EngineCache(tmp_path / "file" / "engines").store(Label(RECIPE, PASSED), PLAN)


def test_a_writer_that_dies_leaves_no_plan_and_no_rubbish(cache: EngineCache) -> None:
    """What it had written so far is swept away once it is an hour old."""
    stored(cache)
    part = cache.folder / ".track-b2-c1-00.plan.1234.part"
    part.write_bytes(PLAN)
    assert [entry.label.recipe for entry in cache.entries()] == [RECIPE]
    cache.prune()
    assert part.exists()
    os.utime(part, (time.time() - 7200,) * 2)
    cache.prune()
    assert not part.exists()


def test_a_reader_never_sees_half_a_plan(cache: EngineCache) -> None:
    stored(cache)
    done = threading.Event()

    def write() -> None:
        for _ in range(30):
            cache.store(Label(RECIPE, PASSED), PLAN * 20)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    lengths = set()
    while not done.is_set():
        found = cache.find(RECIPE)
        assert found is not None
        lengths.add(len(cache.read(found)))
    writer.join(30)
    assert lengths <= {len(PLAN), 20 * len(PLAN)}


def numbered(cache: EngineCache, count: int) -> list[Entry]:
    """Plans that were used at different times, the first one longest ago."""
    entries = []
    for number in range(count):
        entry = stored(cache, replace(RECIPE, program=f"track-b{number}-c1"))
        os.utime(entry.path, (1_000_000 + number,) * 2)
        entries.append(entry)
    return entries


def test_the_least_recently_used_plans_go_when_space_runs_out(cache: EngineCache) -> None:
    first, second, third, fourth = numbered(cache, 4)
    cache.read(first)
    size = first.num_bytes
    assert cache.prune(2 * size + size // 2) == [second.path, third.path]
    assert {entry.path for entry in cache.entries()} == {first.path, fourth.path}


def test_storing_keeps_to_the_limit_but_not_at_the_cost_of_the_new_plan(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", max_bytes=len(PLAN) + 2000)
    paths = [cache.store(Label(replace(RECIPE, program=f"encode-f{n}"), PASSED), PLAN) for n in range(3)]
    assert [entry.path for entry in cache.entries()] == paths[-1:]


def test_refused_plans_go_first(cache: EngineCache) -> None:
    entry = stored(cache)
    os.utime(entry.path, (1_000_000,) * 2)
    refused = cache.store(Label(RECIPE, Verdict(False, "off")), PLAN, refused=True)
    assert cache.prune(entry.num_bytes + 100) == [refused]
    assert cache.find(RECIPE) is not None


def test_a_plan_that_is_set_aside_is_kept_with_its_figures_and_not_found(cache: EngineCache) -> None:
    verdict = Verdict(False, "logits_bhw is off", {"logits_bhw": (0.5, 0.25)}, 1)
    cache.set_aside(stored(cache), verdict)
    assert cache.find(RECIPE) is None
    kept = cache.find(RECIPE, refused=True)
    assert kept is not None
    assert kept.label.verdict == verdict
    assert cache.read(kept) == PLAN


_HOLDER = """
import sys
from pathlib import Path
from engines.build.cache import EngineCache
with EngineCache(Path(sys.argv[1])).building(lambda: print("waiting", flush=True)):
    print("building", flush=True)
    sys.stdin.readline()
"""


def test_two_processes_never_build_at_once(cache: EngineCache) -> None:
    """And a builder that dies does not block the next one."""
    command = [sys.executable, "-c", _HOLDER, str(cache.folder)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second,
    ):
        said = {process: process.stdout.readline().strip() for process in (first, second) if process.stdout}
        assert sorted(said.values()) == ["building", "waiting"]
        holder, waiter = sorted((first, second), key=lambda process: said[process])
        holder.kill()
        assert waiter.stdout is not None
        assert waiter.stdout.readline().strip() == "building"
        waiter.communicate("\n", timeout=30)


def test_the_programs_text_changes_with_their_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "graphs" / "kernel.py"
    source.parent.mkdir()
    source.write_text("one")
    monkeypatch.setattr("engines.build.recipe._ROOT", tmp_path)
    first = programs_text()
    source.write_text("two")
    assert programs_text() != first


def test_the_versions_name_every_library_or_its_absence() -> None:
    text = library_versions("tensorrt 11.0.0")
    assert text.startswith("tensorrt 11.0.0, torch 2.")
    assert "torch-tensorrt-rtx absent" in text
