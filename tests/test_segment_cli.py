"""`sam2-stream segment` as a user calls it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from segment_rig import CLIP, NUM, click, shared_tracker, write_clip

from stream.segment import Outcome, Screen, Summary
from stream.segment.run import Progress

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def point() -> str:
    (x, y, _) = click(1).points[0]
    return f"{x:.0f},{y:.0f}"


def test_one_command_leaves_masks_and_says_where(call: Call, clip: Path, tmp_path: Path) -> None:
    command = ("segment", str(clip), "-o", str(tmp_path), "--point", point(), "--label", "ball", "--backend", "eager",
               "--format", "davis,rle", "--every", "3", "--fill-holes", "8")  # fmt: skip
    code, out, error = call(*command)
    assert (code, error) == (0, "")
    num = -(-NUM // 3)
    assert f"clip: {num} pictures, 1 object," in out and str(tmp_path / "clip.jsonl") in out
    found = [json.loads(line) for line in (tmp_path / "clip.jsonl").read_text().splitlines()]
    assert [line["index"] for line in found] == list(range(0, NUM, 3))
    assert {item["label"] for line in found for item in line["objects"]} == {"ball"}
    assert len(list((tmp_path / "Annotations" / "clip").glob("*.png"))) == num
    code, out, _ = call(*command)
    assert code == 0 and "done before" in out
    code, _, error = call(*command[:-1], "9")
    assert code == 1 and "expected the same ones, another folder, or --overwrite" in error


def test_each_mistake_gets_one_line_and_no_model_is_loaded_for_it(
    call: Call, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.cli.segment._open_tracker", lambda *_: pytest.fail("a model was loaded"))
    text, file, out = tmp_path / "notes.txt", tmp_path / "file", ("-o", str(tmp_path / "out"))
    text.write_text("hello " * 100)
    file.touch()
    mistakes = [
        (2, ("segment", str(clip), "--point", "1,1"), "--out"),
        (1, ("segment", str(clip), *out), "expected --point, --box, --mask or --prompts"),
        (1, ("segment", str(tmp_path / "absent.mp4"), *out, "--point", "1,1"), "absent.mp4: there is no such file"),
        (1, ("segment", str(text), *out, "--point", "1,1"), "this is not a video but text"),
        (1, ("segment", str(tmp_path / "*.mov"), *out, "--point", "1,1"), "nothing has such a name"),
        (2, ("segment", str(clip), *out, "--point", "1"), "--point"),
        (2, ("segment", str(clip), *out, "--point", "1,1", "--format", "gif"), "'gif', expected davis, rle"),
        (2, ("segment", str(clip), *out, "--point", "1,1", "--start", "soon"), "--start: 'soon' is no moment"),
        (2, ("segment", str(clip), *out, "--point", "1,1", "--smooth", "7"), "--smooth = 7"),
        (2, ("segment", str(clip), *out, "--point", "1,1", "--model", "huge"), "--model = 'huge'"),
        (2, ("segment", str(clip), *out, "--point", "1,1", "--prompts", str(text)), "expected one or the other"),
        (1, ("segment", str(clip), *out, "--prompts", str(tmp_path / "x.json")), "x.json: there is no such file"),
        (1, ("segment", str(clip), "-o", str(file), "--point", "1,1"), "expected a folder"),
        (1, ("segment", str(clip), *out, "--point", "255:1,1"), "object id 255"),
    ]  # fmt: skip
    for code, command, words in mistakes:
        found, _, error = call(*command)
        assert found == code, command
        assert error.startswith("sam2-stream: ") and words in error and error.count("\n") == 1, error


def test_one_bad_video_of_many_is_named_and_the_others_are_done(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.cli.segment._open_tracker", lambda *_: shared_tracker())
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "good.mp4", 4)
    (folder / "bad.mp4").write_bytes(b"nothing")
    height, width = CLIP.spec.height, CLIP.spec.width
    box = f"0,0,{width // 2},{height // 2}"
    command = ("segment", str(folder), "-o", str(tmp_path), "--box", box)
    code, out, error = call(*command)
    assert code == 1 and "good: 4 pictures" in out
    assert "bad.mp4: this is not a video" in error and "1 of 2 videos failed" in error


@pytest.mark.parametrize("is_terminal", [True, False])
def test_how_far_it_is_and_how_it_ended_is_shown_on_a_terminal_and_in_a_log(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.segment.screen.LINE_EVERY_S", 0.0)
    text = io.StringIO()
    summary = Summary(name="clip", source="clip.mp4", num_pictures=40, first_index=0, last_index=39, seconds=2.0,
                      num_objects=2, files=("out/clip.jsonl",))  # fmt: skip
    with Screen(Console(file=text, force_terminal=is_terminal, width=100)) as screen:
        for num in (0, 10, 30):
            screen.show(Progress("clip", num, 40))
        screen.show(Progress("endless", 3, None))
        screen.show(Outcome("clip", summary))
        screen.show(Outcome("bad", None, "told elsewhere"))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text.getvalue())
    assert "clip: 40 pictures, 2 objects, 20.0 a second\n" in shown and "  out/clip.jsonl\n" in shown
    assert ("━" in shown) is is_terminal and ("30 of 40 pictures" in shown) is not is_terminal
    assert "told elsewhere" not in shown and "done before" not in shown
