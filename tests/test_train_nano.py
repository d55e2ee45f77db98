"""`sam2-stream train-nano`: says what it will do, does it stage after stage, and tells in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.synthetic import cutout
from engines.training import course, loop
from engines.training.course import COURSE, Stage
from engines.training.shelf import Shelf
from stream.cli.app import main

TINY = (Stage("stills", 64, 2, 1, 1e-4, 0.5, seed=1, steps=4, objects=1),)


def test_a_dry_run_names_every_stage_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-nano", "-o", str(tmp_path / "out"), "--scale", "0.5", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(COURSE) and all(stage.name in line for stage, line in zip(COURSE, lines, strict=True))
    assert f"{COURSE[0].steps // 2} steps" in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_course_ends_in_a_checkpoint_and_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "COURSE", TINY)
    told: list[Stage] = []
    monkeypatch.setattr(loop, "_write_line", lambda trainer, stage, window, ms_per_step: told.append(stage))
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LINES", 1)
    for expected in (2, 2):  # --scale halves the four steps; the second call finds them done
        assert main(["train-nano", "-o", str(tmp_path), "--scale", "0.5"]) == 0
        assert len(told) == expected
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--scale", "0"], 2, "--scale 0.0, expected a number above 0"),
        (["--bank", "nowhere"], 1, "nowhere is no bank of cut-outs"),
        (["--clips", "empty"], 1, f"expected {cutout.ENDINGS[0]}"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_wrong_option_is_told_in_one_line(
    arguments: list[str], code: int, text: str, tmp_path: Path, *, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["train-nano", "-o", "out", *arguments]) == code
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1 and "Traceback" not in error


def test_textures_of_a_clip_that_the_bank_lacks_cannot_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bank.json").write_text("[]\n")
    assert main(["train-nano", "-o", str(tmp_path), "--bank", str(tmp_path), "--leave-out", "cat"]) == 1
    assert "nothing of cat to leave out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="0 cut-outs and 0 pictures"):
        Shelf(tmp_path)
