"""`sam2-stream segment` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from segment_rig import CLIP, NUM, click, shared_tracker, write_clip

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
