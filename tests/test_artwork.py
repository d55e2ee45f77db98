"""Whole, many-coloured things with transparency, added to a bank of textures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.synthetic import artwork
from engines.synthetic.artwork import KIND, as_thing
from engines.synthetic.bank import Entry, read_index, read_texture, write_index

SIZE = 200


def person() -> NDArray[np.uint8]:
    """A red ball on a green box, on nothing."""
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    cv2.rectangle(image, (75, 90), (125, 180), (40, 160, 40, 255), cv2.FILLED)
    cv2.circle(image, (100, 70), 40, (40, 40, 200, 255), cv2.FILLED)
    return image


def test_one_solid_thing_of_several_colours_is_cropped_and_kept_whole() -> None:
    thing = as_thing(person())
    assert thing is not None and thing.shape == (151 + 4, 81 + 4, 4)
    solid = thing[..., 3] > 127
    assert solid.sum() == (person()[..., 3] > 127).sum() and not solid[:2].any() and not solid[:, -2:].any()
    assert thing[..., :3].any(axis=2).all(), "its colours reach beyond its outline"


@pytest.mark.parametrize("fault", ["one colour", "outline", "full rectangle", "two pieces", "glow", "opaque", "small"])
def test_what_is_no_such_thing_is_left_out(fault: str) -> None:
    image = person()
    if fault == "one colour":
        image[..., :3] = (9, 9, 9)
    elif fault == "outline":
        image[:] = 0
        cv2.circle(image, (100, 100), 90, (40, 40, 200, 255), 3)
        cv2.line(image, (100, 10), (100, 190), (40, 200, 40, 255), 3)
    elif fault == "full rectangle":
        image[..., 3] = 255
    elif fault == "two pieces":
        image[84:94, :, 3] = 0
    elif fault == "glow":
        image[..., 3] = np.where(image[..., 3] > 0, 180, 0)
    elif fault == "opaque":
        image = image[..., :3]
    else:
        image = np.asarray(cv2.resize(image, (90, 90)), np.uint8)
    assert as_thing(image) is None


def test_the_command_adds_things_to_a_bank_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, drawings = tmp_path / "bank", tmp_path / "drawings"
    for folder in (bank, drawings / "people", drawings / "signs"):
        folder.mkdir(parents=True)
    write_index(bank, [Entry("clip/a.png", "clip", 3, "region", 0.2, 20.0)])
    for path in (drawings / "people" / "a.png", drawings / "people" / "same.png", drawings / "signs" / "b.png"):
        cv2.imwrite(str(path), person())
    cv2.imwrite(
        str(drawings / "people" / "other.png"), person()[:, ::-1] // 2 + np.uint8(127) * (person() > 0)[:, ::-1]
    )
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["artwork", str(bank), str(drawings), "--skip", "signs"])
        artwork.main()
    entries = read_index(bank)
    assert [entry.kind for entry in entries] == ["region", KIND, KIND]
    assert {entry.clip for entry in read_index(bank, leave_out=["drawings"])} == {"clip"}
    assert all(read_texture(bank, entry).shape[2] == 4 for entry in entries[1:])


def test_a_folder_that_is_no_bank_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["artwork", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        artwork.main()
    assert ended.value.code == 2
