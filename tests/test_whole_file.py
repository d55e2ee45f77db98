"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engines.whole_file import moved_in, replaced


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "state"
    with replaced(path) as file:
        file.write(b"old")
    with replaced(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["state"]


def test_a_link_in_its_place_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "state"
    target.write_bytes(b"somebody's")
    path.symlink_to(target)
    with replaced(path) as file:
        file.write(b"ours")
    assert target.read_bytes() == b"somebody's" and path.read_bytes() == b"ours" and not path.is_symlink()


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with replaced(path) as first:
        first.write(b"first " * 1000)
        with replaced(path) as second:
            second.write(b"second")
    assert path.read_bytes() == b"first " * 1000 and os.listdir(tmp_path) == ["state"]


def test_a_result_takes_its_place_when_it_is_whole_and_a_part_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    with moved_in(path) as beside:
        beside.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), moved_in(path) as beside:
        beside.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    with moved_in(path) as beside:
        beside.write_bytes(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["00000.png"]
