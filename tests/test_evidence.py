"""What the reference computed is kept for the next start, and used only if it is whole, ours and about the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from stream.evidence import (
    HEAD_BYTES,
    MAGIC,
    MAX_FILES,
    Evidence,
    EvidenceError,
    file_of,
    read_evidence,
    write_evidence,
)

KEY = "nano 1234 on cpu"


def evidence(num_frames: int = 3) -> Evidence:
    numbers = np.random.default_rng(5)
    return Evidence(
        numbers.standard_normal((num_frames, 2, 4, 4)).astype(np.float32),
        numbers.standard_normal((num_frames, 2)).astype(np.float32),
        numbers.integers(0, 256, (num_frames, 2, 6, 3), np.uint8),
        numbers.random(num_frames),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = file_of(tmp_path / "verify", KEY)
    write_evidence(path, KEY, evidence())
    return path


def test_evidence_comes_back_to_the_last_bit(file: Path) -> None:
    back, wanted = read_evidence(file, KEY), evidence()
    assert back is not None and back.num_frames == 3
    for name in ("logits_tnhw", "scores_tn", "packed_tnhb", "seconds_t"):
        np.testing.assert_array_equal(getattr(back, name), getattr(wanted, name), strict=True)


def test_nobody_else_can_read_or_write_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == [file.name], "nothing is left beside it"
    file.chmod(0o644)
    with pytest.raises(EvidenceError, match="only this user"):
        read_evidence(file, KEY)


def test_a_file_about_something_else_is_refused(file: Path) -> None:
    with pytest.raises(EvidenceError, match="the same weights"):
        read_evidence(file, "nano 1235 on cpu")
    assert file_of(file.parent, "another") != file and read_evidence(file_of(file.parent, "another"), "another") is None


def test_a_file_cut_off_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in {0, 1, 7, 8, 15, 16, HEAD_BYTES, *range(HEAD_BYTES, len(whole), 97), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(EvidenceError, match=r"whole file|damaged"):
            read_evidence(file, KEY)


def test_a_changed_byte_anywhere_is_found(file: Path) -> None:
    whole = file.read_bytes()
    for place in (0, 9, 20, HEAD_BYTES, HEAD_BYTES + 200, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(EvidenceError):
            read_evidence(file, KEY)


def test_what_is_not_ours_to_read_is_refused(file: Path) -> None:
    other = file.with_name("other")
    file.rename(other)
    file.symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        read_evidence(file, KEY)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(EvidenceError, match="expected a file"):
        read_evidence(file, KEY)


def test_old_files_make_room(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 3):
        path = file_of(tmp_path, str(number))
        write_evidence(path, str(number), evidence(1))
        os.utime(path, ns=(number, number))
    write_evidence(file_of(tmp_path, "last"), "last", evidence(1))
    assert len(list(tmp_path.iterdir())) == MAX_FILES
    assert read_evidence(file_of(tmp_path, "last"), "last") is not None
    assert read_evidence(file_of(tmp_path, "0"), "0") is None


def test_the_file_begins_as_it_says(file: Path) -> None:
    assert file.read_bytes().startswith(MAGIC)
