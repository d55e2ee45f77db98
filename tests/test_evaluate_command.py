"""`sam2-stream evaluate` as a user calls it: table, JSON, report, and one line for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluate_rig import small_clip, write_davis

from stream.masksets import DavisWriter

Outcome = tuple[int, str, str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A DAVIS folder of two sequences."""
    for seed, name in enumerate(("bear", "camel")):
        write_davis(tmp_path / "davis", name, small_clip(seed, num_frames=6))
    return tmp_path / "davis"


def test_masks_against_themselves_are_perfect(call: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    masks, found = str(data / "Annotations" / "480p"), tmp_path / "found.json"
    code, out, err = call("evaluate", masks, str(data), "--json", str(found), "--report", str(tmp_path / "r.html"))
    assert (code, err) == (0, f"{found} written\n{tmp_path / 'r.html'} written\n")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[:5]] == ["sequence", "bear", "camel", "-" * len(out.splitlines()[0]), "all"]
    assert rows[4][2:6] == ["1.000", "1.000", "1.000", "1.000"]
    told = json.loads(found.read_text())
    assert told["settings"] is None and told["speed"] is None and told["summary"]["j_and_f"] == 1.0
    assert [item["score"]["name"] for item in told["sequences"]] == ["bear", "camel"]
    assert told["sequences"][0]["score"]["objects"][0]["frames"] == [1, 2, 3, 4], "without the first and the last"
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_the_tracker_is_followed_through_a_folder_with_its_speed(
    call: Callable[..., Outcome], data: Path, tmp_path: Path
) -> None:
    found, out_folder = tmp_path / "found.json", tmp_path / "out"
    options = [
        "--data",
        str(data),
        "--out",
        str(out_folder),
        "--backend",
        "eager",
        "--dtype",
        "fp32",
        "--prompt",
        "box",
    ]
    code, out, err = call("evaluate", *options, "--device", "cpu", "--json", str(found))
    assert (code, err) == (0, f"{found} written\n") and "pictures/s" in out and "the tracker alone" in out
    told = json.loads(found.read_text())
    assert told["settings"]["backend"] == "eager" and told["settings"]["prompt"] == "box"
    assert told["speed"]["num_pictures"] == 10 and told["speed"]["pictures_per_s"] > 0
    assert told["summary"]["num_sequences"] == 2
    assert sorted(path.name for path in (out_folder / "bear").iterdir()) == [f"{n:05d}.png" for n in range(6)]
    again = call("evaluate", *options, "--device", "cpu", "--sequences", "camel")
    assert again[0] == 0 and "bear" not in again[1] and "camel" in again[1], "taken from what was done before"
    code, out, _ = call("evaluate", str(out_folder), str(data), "--sequences", "bear,camel")
    assert code == 0 and f"{told['summary']['j_and_f']:.3f}" in out.splitlines()[4], "what it left scores the same"
    code, _, err = call("evaluate", *options[:-1], "click", "--device", "cpu")
    assert code == 1 and err.count("\n") == 1 and "was made with prompt 'box', not 'click'" in err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        ("", 2, "evaluate of nothing: expected PREDICTIONS GROUND_TRUTH, or --data DIR"),
        ("{data}", 2, "expected PREDICTIONS GROUND_TRUTH"),
        ("{data} --data {data}", 2, "beside --data: expected masks to compare, or data to follow"),
        ("none {data}", 1, "none does not exist, expected"),
        ("{data} {data} --sequences cow", 1, "there is no sequence 'cow'; expected one of bear, camel"),
        ("{data} {data} --report r.pdf", 1, "r.pdf: expected a name that ends in .html, .png, .jpg"),
        ("{data}/Annotations/480p/bear {data}", 1, "no masks of camel; expected a prediction for each sequence of"),
        ("--data generated:2000", 1, "generated:2000: expected 1 to 1000 clips"),
        ("--data {data}/none", 1, "none does not exist, expected"),
        ("--data {data} --prompt scribble", 2, "--prompt = 'scribble': expected one of mask, click, box"),
        ("--data {data} --memory-policy none", 2, "--memory-policy = 'none': expected one of sam2, motion"),
        ("--data {data} --backend fast", 2, "--backend = 'fast': expected one of auto, eager"),
        ("--data {data} --model sam9", 2, "--model = 'sam9': expected one of nano"),
        ("--data {data} --smooth 2", 2, "--smooth = 2"),
        ("{data} {data} --model nano", 2, "--model without --data: expected it where the tracker runs"),
        ("{data} {data} --json none/f.json", 1, "there is no folder none, expected one that exists"),
        ("{data} {data} --match any", 2, "--match = 'any': expected one of auto, ids, best"),
        ("--data {data} --whole", 2, "--whole beside --data: expected it where masks are compared"),
        ("--data {data} --checkpoint none.pt", 2, "--checkpoint = 'none.pt': expected"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    call: Callable[..., Outcome], data: Path, arguments: str, exit_code: int, text: str
) -> None:
    code, out, err = call("evaluate", *arguments.replace("{data}", str(data)).split())
    assert (code, out) == (exit_code, "") and text in err and err.count("\n") == 1


def test_objects_with_other_ids_are_matched_and_the_ends_scored_if_asked(
    call: Callable[..., Outcome], data: Path, tmp_path: Path
) -> None:
    clip, writer = small_clip(0, num_frames=6), DavisWriter(tmp_path / "found" / "bear")
    for index in range(6):
        masks = clip.masks(index)
        writer.put(index, {1: masks[1], 2: masks[0]}, size=(96, 112))
    given = ["evaluate", str(tmp_path / "found"), str(data), "--sequences", "bear"]
    assert call(*given)[1].splitlines()[1].split()[2] != "1.000"
    found = tmp_path / "found.json"
    code, out, _ = call(*given, "--match", "best", "--whole", "--json", str(found))
    assert code == 0 and out.splitlines()[1].split()[2] == "1.000"
    assert json.loads(found.read_text())["sequences"][0]["score"]["frames"] == [0, 1, 2, 3, 4, 5]


def test_sequences_may_be_named_in_a_file(call: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("camel\n")
    code, out, _ = call("evaluate", str(data), str(data), "--sequences", str(tmp_path / "val.txt"))
    assert code == 0 and "bear" not in out and "camel" in out


def test_a_single_prediction_belongs_to_a_single_truth_whatever_they_are_called(
    call: Callable[..., Outcome], data: Path
) -> None:
    masks = data / "Annotations" / "480p"
    code, out, _ = call("evaluate", str(masks / "bear"), str(masks / "camel"))
    assert code == 0 and out.splitlines()[1].startswith("camel ")
