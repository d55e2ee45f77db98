"""The doctor on what runs out and on files of keys: each broken case really is broken."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_rig import controlling
from deliveries import publishing

from stream.config import Config
from stream.doctor import Verdict, examine
from stream.doctor.limits import cache_folder, key_files, limits, open_files, room, state_folder
from stream.doctor.setup import setup
from stream.keys import KeyFolder, KeyRing


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_too_few_open_files_are_broken_and_few_are_told() -> None:
    assert open_files(256, num_cameras=8).verdict is Verdict.BROKEN
    few = open_files(1024, num_cameras=8)
    assert few.verdict is Verdict.NOTE and few.fixes[0].startswith("ulimit -n")
    assert (
        open_files(65536, num_cameras=8).verdict
        is open_files(resource.RLIM_INFINITY, num_cameras=8).verdict
        is Verdict.OK
    )


def test_the_limit_is_that_of_this_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        assert next(limits(Config(cameras=()))).verdict is Verdict.BROKEN
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_cannot_be_made_is_broken_though_root_may_everything() -> None:
    found = room("state", Path("/proc/sam2-stream/state"))
    assert found.verdict is Verdict.BROKEN and "nothing can be written in /proc" in found.text and found.fixes


def test_a_disk_without_room_is_broken(tiny_disk: Path) -> None:
    small = room("state", tiny_disk / "state")
    assert small.verdict is Verdict.BROKEN and "1 MiB free" in small.text
    (tiny_disk / "rest").write_bytes(bytes(1 << 20))
    full = room("state", tiny_disk / "state")
    assert full.verdict is Verdict.BROKEN and "No space left" in full.text
    assert sorted(path.name for path in tiny_disk.iterdir()) == ["rest"], "nothing may be left behind"


def test_a_good_folder_is_good_also_before_it_is_made(tmp_path: Path) -> None:
    assert room("state", None).verdict is Verdict.OK
    found = room("state", tmp_path / "not" / "yet")
    assert found.verdict in (Verdict.OK, Verdict.NOTE) and str(tmp_path) in found.text
    assert not list(tmp_path.iterdir())


def test_key_files_are_looked_at_one_by_one(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    for name in ("alice", "bob", "carol"):
        folder.new(name, "view")
    wide, stray = folder.path / "alice.key", folder.path / "old bob.key"
    wide.chmod(0o644)
    (folder.path / "bob.key").rename(stray)
    folder.revoke("bob")
    found = {finding.text.partition(" ")[0]: finding for finding in key_files(folder.path)}
    assert found[str(wide)].verdict is Verdict.BROKEN and found[str(wide)].fixes == (f"chmod 600 {wide}",)
    (note,) = (finding for finding in found.values() if finding.verdict is Verdict.NOTE)
    assert note.fixes == (f"rm '{stray}'",)
    assert [finding.text for finding in found.values() if finding.verdict is Verdict.OK] == [
        "carol.key, old bob.key: only their owner can read them"
    ]


def test_folders_are_those_of_the_service_where_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    monkeypatch.setenv("SAM2_STREAM_CACHE", f"{tmp_path}/cache")
    assert state_folder(Config(cameras=())) == tmp_path / "a" and cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SAM2_STREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "sam2-stream"


def test_the_doctor_looks_at_all_of_them(tmp_path: Path) -> None:
    KeyFolder(tmp_path / "keys").new("alice", "view")
    config = Config(cameras=(), allow_cpu=True, keys=tmp_path / "keys", state=tmp_path)
    subjects = {finding.subject for finding in examine(config)}
    assert {"open files", "room for state", "room for cache", "key files"} <= subjects


def test_a_guarded_daemon_that_runs_is_known_by_its_key_and_another_one_is_not(tmp_path: Path) -> None:
    """It is in nobody's way, and needs no client's key to be found."""
    for name in ("ours", "others"):
        KeyFolder(tmp_path / name).new("alice", "view")
    ring = KeyRing.open(tmp_path / "ours")
    with publishing("tcp://0.0.0.0:*", keys=ring) as publisher, controlling("tcp://0.0.0.0:*", keys=ring) as rig:
        config = Config(cameras=(), bind=publisher.endpoints, control=rig.control.endpoints, keys=ring.folder)
        for folder, verdict, text in (("ours", Verdict.NOTE, "a daemon runs"), ("others", Verdict.BROKEN, "is in use")):
            findings = setup(dataclasses.replace(config, keys=tmp_path / folder))
            doors = [finding for finding in findings if finding.subject in ("publishing", "commands")]
            assert [finding.verdict for finding in doors] == [verdict] * 2 and text in doors[0].text
