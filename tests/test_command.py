"""The control protocol: golden requests and replies, the bounds of every field, and bytes that may be anything."""

from __future__ import annotations

import hashlib
import pathlib
import re
import typing

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream import command
from stream.command import AnyRequest, Prompted, Reply, Seen, SentMask
from stream.command_codec import (
    MAX_ERROR,
    CommandError,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    sender_id,
)
from stream.mask_codec import WireError
from stream.status import CameraStatus, ObjectStatus, Status

GOLDEN = pathlib.Path(__file__).parent / "golden" / "commands"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))
REQUESTS = [name for name in NAMES if not name.startswith("reply")]
# A changed golden file means that old clients break: raise stream.command.VERSION, say so in CHANGELOG.md, add a row.
GOLDEN_SHA256 = {
    1: {
        "add_camera": "a42f29cdb21a2c44c160bc948a40f21678aa2dcc0909fa77aa4fb8b75c1dccb5",
        "add_mask": "14eec4763bc3680986e9615b434cb79a6338a129bc43cda82bf1e3f54c6b7dd0",
        "add_points": "6903cb203186a64fd505d81a28384e8660a4520ea20a7a76f00942245d1b431f",
        "pause_camera": "3e37210ae4f1f577cf7a265a9b83cc5760774adea23b9788016c98f270c232ea",
        "ping": "c78d89a2e46155fb010d3119b6b00fc01033b2d417c1e28ccb2602b0f2c5d161",
        "refine": "8a8f1bf17552daaef77356560957eb549dfb4a203cfbcb2854f5c1465d0b5df6",
        "remove": "032bed146d2fc4d26c8a66386a8a8df6325a484e15c4f02c07aad3c1fbf4e7a8",
        "remove_camera": "77c91feed8806a1e3e7de028ae874114e47393ed1d9084643986456d6c7fbe0d",
        "rename": "e538e6ff6d6763ae1e8b44bd30ad3eeecca6822f369fb3d918c476b851b97995",
        "reply_done": "d2c8adf2ed1edf5176c0662e09b5da7164d51b2808834162f33176060c5dcba5",
        "reply_refused": "c16fddaaac7ac3b3806a93fb3d5a63d5f13871036defdd7e5f472837f8b640e2",
        "reply_status": "8c0cd529a9163e64395d6a1670a5ec7b98031d9f8895bccaae31b6080988cec6",
        "reset": "0a6d2e727419228c1317a4fb41bf8a9790bfa35e717cc9deb614fc11bc3d1321",
        "resume_camera": "d588bb339bd39d0182fdbc1febdc431ae9a7dd4de1d89615dc9bbccb66661464",
        "status": "3f834fc1d9d3257cc57caea3c778a49d86b2afcaf18430eb0dc94e2e3305b9f1",
        "undo": "6c3c81c5a350f62b4051bb59a7db17bf23f130db0233d995e68552822f4c2ecc",
    }
}
NESTED = b"\x91" * 200_000 + b"\x00"
TYPES = typing.get_args(AnyRequest)


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def changed(name: str, **fields: object) -> bytes:
    """A golden request with other fields."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(golden(name)) | fields)


# --- golden files ----------------------------------------------------------------------------------------------------


def test_golden_files_change_only_with_the_version() -> None:
    hashes = {name: hashlib.sha256(golden(name)).hexdigest() for name in NAMES}
    assert hashes == GOLDEN_SHA256[command.VERSION]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_is_decoded_and_encoded_to_the_same_bytes(name: str) -> None:
    if name in REQUESTS:
        assert encode_request(decode_request(golden(name))) == golden(name)
    else:
        assert encode_reply(decode_reply(golden(name))) == golden(name)


def test_there_is_a_golden_file_of_every_request() -> None:
    assert {type(decode_request(golden(name))) for name in REQUESTS} == set(TYPES)


def test_the_golden_requests_say_what_was_written() -> None:
    add = decode_request(golden("add_points"))
    assert isinstance(add, command.Add) and (add.id, add.camera, add.label, add.object_id) == (
        "a-1",
        "cam1",
        "cup",
        None,
    )
    assert add.points == ((20.5, 10.0, 1), (50.0, 10.0, 0)) and add.box == (11.0, 5.0, 45.0, 25.0)
    assert add.seen == Seen(epoch=2, seq=1234, width=61, height=40, run=1_789_999_999_000_000_001)
    masked = decode_request(golden("add_mask"))
    assert isinstance(masked, command.Add) and masked.mask is not None
    mask_hw = np.zeros((40, 61), bool)
    mask_hw[5:25, 11:45] = True
    np.testing.assert_array_equal(masked.mask.mask_hw(), mask_hw)


def test_the_specification_alone_is_enough_to_write_a_request() -> None:
    rows = zstandard.ZstdCompressor().compress(bytes([0b10000001, 0b10000000]) * 2)  # 9 x 2 pixels: 0, 7 and 8 set
    body = {"op": "add", "id": "x", "camera": "c", "mask": {"width": 9, "height": 2, "data": rows}}
    request = decode_request(msgspec.msgpack.encode(body))
    assert isinstance(request, command.Add) and request.mask is not None
    assert request.mask.mask_hw().tolist() == [[True, *[False] * 6, True, True]] * 2


def test_every_field_operation_and_code_stands_in_the_specification() -> None:
    text = command.__doc__ or ""
    for request_type in TYPES:
        tag = request_type.__struct_config__.tag
        (line,) = re.findall(rf"^      {tag} .*$", text, re.MULTILINE)
        fields = {field.name for field in msgspec.structs.fields(request_type)} - {"version", "id"}
        fields -= {"points", "box", "mask", "seen"} if issubclass(request_type, Prompted) else set()
        assert all(re.search(rf"\b{field}\b", line) for field in fields), (tag, fields)
    for reply_field in msgspec.structs.fields(Reply):
        assert re.search(rf"^.{{13}}{reply_field.name} ", text, re.MULTILINE) or reply_field.name == "version"
    for field in (*msgspec.structs.fields(Seen), *msgspec.structs.fields(SentMask)):
        assert re.search(rf"\b{field.name} (int|bin)\b", text), field.name
    for code in command.CODES:
        assert re.search(rf"^ {{29}}{code} ", text, re.MULTILINE), code


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("ping", {"version": 2}, "version 2, expected 1"),
        ("ping", {"version": "1"}, "version"),
        ("ping", {"colour": 1}, "unknown field `colour`"),
        ("ping", {"op": "dance"}, "Invalid value 'dance'"),
        ("ping", {"op": None}, "$.op"),
        ("add_points", {"camera": "a b"}, "$.camera"),
        ("add_points", {"camera": "a\n"}, "$.camera"),
        ("add_points", {"points": [[1.0, 2.0]]}, "$.points[0]"),
        ("add_points", {"points": [[1.0, 2.0, 3]]}, "$.points[0][2]"),
        ("add_points", {"points": [[float("nan"), 2.0, 1]]}, "$.points[0][0]"),
        ("add_points", {"points": [[1.0, float("-inf"), 1]]}, "$.points[0][1]"),
        ("add_points", {"points": [[1e300, 1.0, 1]]}, "$.points[0][0]"),
        ("add_points", {"points": [["1", 1.0, 1]]}, "$.points[0][0]"),
        ("add_points", {"points": [[1.0, 1.0, 1]] * 65}, "length <= 64"),
        ("add_points", {"points": [[1.0, 1.0, 1]] * 1_000_000}, "length <= 64"),
        ("add_points", {"points": [], "box": None}, "no points, box or mask"),
        ("add_points", {"points": [[1.0, 1.0, 0]], "box": None}, "one with label 1"),
        ("add_points", {"box": [5.0, 1.0, 5.0, 2.0]}, "x0 < x1 and y0 < y1"),
        ("add_points", {"box": [1.0, 1.0, 5.0]}, "$.box"),
        ("add_points", {"seen": {"epoch": -1, "seq": 0, "width": 1, "height": 1}}, "$.seen.epoch"),
        ("add_points", {"seen": {"epoch": 0, "seq": 0, "width": 0, "height": 1}}, "$.seen.width"),
        ("add_points", {"seen": {"epoch": 0, "seq": 0, "width": 1}}, "height"),
        ("add_points", {"object_id": 2**31}, "$.object_id"),
        ("add_points", {"object_id": 2**64 - 1}, "$.object_id"),
        ("add_points", {"object_id": True}, "$.object_id"),
        ("add_points", {"label": "x" * 65}, "$.label"),
        ("add_points", {"label": "a\x1b[2J"}, "$.label"),
        ("add_points", {"label": "a\u2028b"}, "$.label"),
        ("add_mask", {"points": [[1.0, 1.0, 1]]}, "one or the other"),
        ("add_mask", {"mask": {"width": 61, "height": 40, "data": b"junk"}}, "zstd frame"),
        ("add_mask", {"mask": {"width": 61, "height": 40, "data": b""}}, "zstd frame"),
        ("add_mask", {"mask": {"width": 9, "height": 9, "data": zstandard.compress(b"x")}}, "declares 18 bytes"),
        ("add_mask", {"mask": {"width": 16385, "height": 9, "data": b""}}, "$.mask.width"),
        ("refine", {"object_id": None}, "$.object_id"),
        ("rename", {"new_id": None, "label": None}, "neither new_id nor label"),
        ("add_camera", {"source": ""}, "$.source"),
        ("add_camera", {"source": "rtsp://a/" + "x" * 2048}, "$.source"),
        ("add_camera", {"source": "rtsp://a/\r\nx"}, "$.source"),
        ("add_camera", {"rtsp_transport": "http"}, "$.rtsp_transport"),
        ("add_camera", {"max_fps": 0}, "$.max_fps"),
        ("add_camera", {"max_fps": float("nan")}, "$.max_fps"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line_with_the_senders_id(
    name: str, fields: dict[str, object], text: str
) -> None:
    with pytest.raises(CommandError) as caught:
        decode_request(changed(name, **fields))
    assert text in str(caught.value) and caught.value.id == msgspec.msgpack.decode(golden(name))["id"]
    assert len(str(caught.value)) <= MAX_ERROR and str(caught.value).isprintable()


@pytest.mark.parametrize("request_id", [b"x", 7, None, "x" * 65, "a\nb", [], {}])
def test_an_id_that_cannot_be_given_back_makes_a_request_unreadable(request_id: object) -> None:
    with pytest.raises(CommandError) as caught:
        decode_request(changed("ping", id=request_id))
    assert caught.value.id is None


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xc1", NESTED, b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", golden("ping") + b"\x00",
        b"\x82\xa2op\xa4ping\xa1q" + NESTED, b"\x82\xa1q" + NESTED + b"\xa2op\xa4ping",
        b"\x82\xa2op\xa3add\xa6points\xdd\xff\xff\xff\xff", b"\x82\xa2op\xa3add\xa3box\xdd\xff\xff\xff\xff",
        b"\x82\xa2op\xa4ping\xa2id\xdb\xff\xff\xff\xff", b"\x82\xa2op\xa4ping\xa2id\xa2\xff\xfe",
    ],
)  # fmt: skip
def test_hostile_bytes_are_a_command_error(payload: bytes) -> None:
    with pytest.raises(CommandError) as caught:
        decode_request(payload)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= MAX_ERROR


@pytest.mark.parametrize("name", NAMES)
def test_a_message_cut_anywhere_is_refused(name: str) -> None:
    decode = decode_request if name in REQUESTS else decode_reply
    for length in range(len(golden(name))):
        with pytest.raises(CommandError):
            decode(golden(name)[:length])


@settings(max_examples=300)
@given(data=st.data())
def test_changed_bytes_are_valid_or_a_command_error(data: st.DataObject) -> None:
    payload = bytearray(golden(data.draw(st.sampled_from(REQUESTS))))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = decode_request(bytes(payload))
    except CommandError as exc:
        assert len(str(exc)) <= MAX_ERROR and str(exc).isprintable()
        assert exc.id == sender_id(bytes(payload))
    else:
        assert decode_request(encode_request(request)) == request


# --- replies and masks -----------------------------------------------------------------------------------------------


def test_a_reply_of_a_newer_daemon_is_read_by_what_is_known_of_it() -> None:
    body = msgspec.msgpack.decode(golden("reply_status"))
    body["future"] = body["status"]["future"] = body["status"]["cameras"][0]["future"] = [1]
    assert decode_reply(msgspec.msgpack.encode(body)) == decode_reply(golden("reply_status"))


def test_a_status_comes_back_as_it_was() -> None:
    item = ObjectStatus(id=1, label="cup", state="lost", score=-2.5, last_seen_s=3.0)
    status = Status(run=3, num_commands={"ok": 2}, cameras=(CameraStatus(name="a", source="x", objects=(item,)),))
    assert decode_reply(encode_reply(Reply(status=status))).status == status


@settings(max_examples=50)
@given(mask_hw=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70)))
def test_a_mask_comes_back_as_it_was(mask_hw: np.ndarray) -> None:
    request = command.Add(camera="a", mask=SentMask.of(mask_hw))
    decoded = decode_request(encode_request(request))
    assert isinstance(decoded, command.Add) and decoded.mask is not None
    np.testing.assert_array_equal(decoded.mask.mask_hw(), mask_hw)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), np.uint8), np.zeros(4, bool), np.zeros((2, 2, 2), bool)])
def test_a_mask_of_another_kind_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected bool, \(height, width\)"):
        SentMask.of(mask)


def test_a_mask_that_lies_about_its_data_is_a_wire_error() -> None:
    honest = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(range(256)) * 8)
    lie = SentMask(width=256, height=64, data=honest[:-8] + b"\xff" * 8)
    with pytest.raises(WireError):
        lie.mask_hw()
