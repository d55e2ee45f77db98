"""The wire format: golden files, exact masks, and bytes from outside that may be anything."""

from __future__ import annotations

import base64
import hashlib
import pathlib
import struct

import msgspec
import numpy as np
import pytest
import zstandard
from deliveries import SMALL, FakeDelivery, masks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream import wire
from stream.frame import CameraCondition, CameraState, ClockSource, ObjectState
from stream.mask_codec import decode_coco_rle

GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))
# A changed golden file means that old readers break: raise stream.wire.VERSION, say so in CHANGELOG.md, add a row here.
GOLDEN_SHA256 = {
    1: {
        "frame": "428c46ef52b0e1f9ce49bda0a090b326e4b7630280324efbae6aee56f242478d",
        "info": "74c567a8ca73e9533e125f779f1ae21680279cfb3f113de8e58cd6759d2afe47",
        "masks_bits": "1da8a11bab50670605f4cd6a53c49a6e9dd55df6066ba0dcda9204e0305fcf38",
        "masks_coco_rle": "954be02855418c1d61e395291838828da2564f1bfce3c63e54fc57360a796d2f",
        "masks_no_objects": "676129c9566481ef32e1f66483464aae79c43d16c598c51a864c44c8f7df12da",
        "masks_none": "02810ac795160416ba006be31c34ee41a1de47f1dd432ea9a5dfc81e8ee03350",
        "state": "ef786b2cc2e620cae00bbb15ed21a8ed26e1e647a22b5273f0d1f4b582106066",
    }
}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def fields_of(payload: bytes) -> dict:
    return msgspec.msgpack.decode(payload[payload.index(b"\0") + 1 :])


def changed(name: str, **fields: object) -> bytes:
    """A golden message with other fields: `x` its own, `object__x` of its first object, `mask__x` of the mask."""
    payload = golden(name)
    body = fields_of(payload)
    first = (body.get("objects") or [{}])[0]
    rooms = {"mask": first.get("mask"), "object": first, "": body}
    for room, target in rooms.items():
        for key, value in fields.items():
            if key.rpartition("__")[0] == room:
                target[key.rpartition("__")[2]] = value
    return payload[: payload.index(b"\0") + 1] + msgspec.msgpack.encode(body)


def triangle_hw() -> np.ndarray:
    """What tests/golden/make.py drew, written down again."""
    mask_hw = np.zeros((40, 61), bool)
    for y in range(5, 25):
        mask_hw[y, 11 : y + 21] = True
    return mask_hw


def message_of(masks_nhw: np.ndarray, encoding: wire.MaskEncoding = "bits") -> wire.MasksMessage:
    masks = masks_of(masks_nhw)
    objects = wire.objects_of(masks, {1: "cup"}, wire.MaskEncoder(encoding))
    stamp = FakeDelivery("cam1", 5).stamp
    fields = wire.picture_fields(stamp, masks, inferred_ns=stamp.decoded_ns + 1)
    return wire.MasksMessage(serial=1, num_dropped=0, model="m", backend="b", objects=objects, **fields)


# --- golden files ----------------------------------------------------------------------------------------------------


def test_golden_files_change_only_with_the_version() -> None:
    hashes = {name: hashlib.sha256(golden(name)).hexdigest() for name in NAMES}
    assert hashes == GOLDEN_SHA256[wire.VERSION]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_message_is_decoded_and_encoded_to_the_same_bytes(name: str) -> None:
    assert wire.encode(wire.decode(golden(name))) == golden(name)


def test_the_golden_masks_say_what_was_written() -> None:
    message = wire.decode(golden("masks_bits"))
    assert isinstance(message, wire.MasksMessage)
    assert (message.topic, message.camera, message.epoch, message.seq) == ("masks/cam1", "cam1", 2, 1234)
    assert (message.width, message.height, message.num_dropped, message.serial) == (61, 40, 3, 1200)
    assert message.clock_source is ClockSource.ARRIVAL and message.pts_ns == 41_133_333_333
    assert message.published_ns - message.arrival_ns == message.published_utc_ns - message.arrival_utc_ns == 31_000_000
    cup, gone = message.objects
    assert (cup.id, cup.label, cup.state, cup.box) == (7, "cup", ObjectState.TRACKED, (11, 5, 45, 25))
    assert (cup.score, cup.predicted_iou, cup.area, cup.centroid) == (6.25, 0.875, triangle_hw().sum(), (23.5, 16.25))
    assert (gone.id, gone.state, gone.area, gone.centroid) == (9, ObjectState.LOST, 0, None)


@pytest.mark.parametrize("name", ["masks_bits", "masks_coco_rle"])
def test_the_golden_masks_decode_to_the_triangle(name: str) -> None:
    message = wire.decode(golden(name))
    assert isinstance(message, wire.MasksMessage)
    np.testing.assert_array_equal(message.mask(7), triangle_hw())
    np.testing.assert_array_equal(message.objects[0].crop(), triangle_hw()[5:25, 11:45])
    assert not message.mask(9).any()
    np.testing.assert_array_equal(message.masks().masks_nhw, [triangle_hw(), np.zeros((40, 61), bool)])
    with pytest.raises(KeyError, match=r"object 8 .* expected one of \[7, 9\]"):
        message.mask(8)


def test_the_specification_alone_is_enough_to_read_a_mask() -> None:
    topic, _, body = golden("masks_bits").partition(b"\0")
    assert topic == b"masks/cam1"
    mask = msgspec.msgpack.decode(body)["objects"][0]["mask"]
    rows = zstandard.ZstdDecompressor().decompress(mask["data"])
    num_bytes_row = -(-mask["width"] // 8)
    assert len(rows) == mask["height"] * num_bytes_row and mask["x0"] % 8 == 0
    mask_hw = np.zeros((40, 61), bool)
    for y in range(mask["height"]):
        for x in range(mask["width"]):
            byte = rows[y * num_bytes_row + x // 8]
            mask_hw[mask["y0"] + y, mask["x0"] + x] = byte >> (7 - x % 8) & 1
    np.testing.assert_array_equal(mask_hw, triangle_hw())


def test_every_field_of_the_types_stands_in_the_specification() -> None:
    text = wire.__doc__ or ""
    types = (
        wire.MasksMessage,
        wire.FrameMessage,
        wire.StateMessage,
        wire.Info,
        wire.CameraInfo,
        wire.ObjectMask,
        wire.Patch,
    )
    for message_type in types:
        for field in msgspec.structs.fields(message_type):
            assert f" {field.encode_name}" in text, f"{message_type.__name__}.{field.encode_name}"


# --- masks -----------------------------------------------------------------------------------------------------------

SMALL_MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=21))


@pytest.mark.parametrize("encoding", ["bits", "coco_rle"])
@given(masks_nhw=SMALL_MASKS)
@settings(max_examples=150)
def test_masks_come_back_bit_for_bit(encoding: wire.MaskEncoding, masks_nhw: np.ndarray) -> None:
    message = wire.decode(wire.encode(message_of(masks_nhw, encoding)))
    assert isinstance(message, wire.MasksMessage)
    sent, back = masks_of(masks_nhw), message.masks()
    np.testing.assert_array_equal(back.masks_nhw, masks_nhw)
    for name in ("object_ids", "states", "scores", "ious", "boxes_n4", "areas", "centroids_n2", "packed_nhb"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sent, name))
    for row, item in enumerate(message.objects):
        x0, y0, x1, y1 = item.box
        np.testing.assert_array_equal(item.crop(), masks_nhw[row, y0:y1, x0:x1])


@given(masks_nhw=SMALL_MASKS)
@settings(max_examples=150)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_coco_rle_is_what_pycocotools_writes_and_reads(masks_nhw: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for row, item in enumerate(message_of(masks_nhw, "coco_rle").objects):
        theirs = coco.encode(np.asfortranarray(masks_nhw[row].astype(np.uint8)))
        assert item.sent_patch().data == theirs["counts"]
        back_hw = coco.decode({"size": theirs["size"], "counts": item.sent_patch().data})
        np.testing.assert_array_equal(back_hw, masks_nhw[row])


@pytest.mark.parametrize("encoding", ["bits", "coco_rle"])
def test_a_typical_object_in_full_hd_takes_less_than_2_kb(encoding: wire.MaskEncoding) -> None:
    ys, xs = np.mgrid[:1080, :1920]
    angle = np.arctan2(ys - 500, xs - 900)
    blob_hw = np.hypot(xs - 900, ys - 500) < 200 + 30 * np.sin(5 * angle) + 4 * np.sin(43 * angle)
    assert 100_000 < blob_hw.sum() < 150_000
    assert len(wire.encode(message_of(blob_hw[None], encoding))) < 2048


def test_dirty_padding_from_another_sender_does_not_become_pixels() -> None:
    rows_hb = np.full((20, 5), 0xFF, np.uint8)
    payload = changed(
        "masks_bits", mask__width=36, object__box=[8, 5, 44, 25], mask__data=zstandard.compress(rows_hb.tobytes())
    )
    message = wire.decode(payload)
    assert isinstance(message, wire.MasksMessage)
    full_hw = np.zeros((40, 61), bool)
    full_hw[5:25, 8:44] = True
    np.testing.assert_array_equal(message.mask(7), full_hw)
    np.testing.assert_array_equal(message.masks().packed_nhb[0], np.packbits(full_hw, axis=1))


def test_encoding_none_sends_no_mask_and_says_so_when_asked() -> None:
    message = wire.decode(golden("masks_none"))
    assert isinstance(message, wire.MasksMessage)
    assert message.objects[0].box == (11, 5, 45, 25)
    with pytest.raises(wire.WireError, match="object 7 was not sent"):
        message.mask(7)
    assert not message.masks().masks_nhw.any()


def test_a_score_that_is_not_a_number_is_sent_as_one() -> None:
    masks = masks_of(np.ones((3, 8, 8), bool))
    masks.scores[:] = np.nan, np.inf, -np.inf
    objects = wire.objects_of(masks, {}, wire.MaskEncoder("none"))
    assert [item.score for item in objects] == [-1e4, 1e4, -1e4]


def test_an_unknown_mask_encoding_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mask encoding 'png', expected one of bits, coco_rle, none"):
        wire.MaskEncoder("png")  # type: ignore[arg-type]


def test_age_uses_the_monotonic_clock_only_on_the_same_boot() -> None:
    message = message_of(np.ones((1, 8, 8), bool))
    foreign = msgspec.structs.replace(message, clock_id="another", arrival_ns=0)
    assert 0 < message.age_ms() < 60_000 and 0 < foreign.age_ms() < 60_000


# --- bytes from outside ----------------------------------------------------------------------------------------------


def read_all(payload: bytes) -> None:
    """Decode and look at everything; only WireError may come out."""
    message = wire.decode(payload)
    if isinstance(message, wire.MasksMessage):
        message.masks()
        for item in message.objects:
            message.mask(item.id)
            item.crop()


@pytest.mark.parametrize("name", NAMES)
def test_a_message_cut_anywhere_is_refused(name: str) -> None:
    payload = golden(name)
    for length in range(len(payload)):
        with pytest.raises(wire.WireError):
            wire.decode(payload[:length])
    with pytest.raises(wire.WireError, match="trailing"):
        wire.decode(payload + b"\0")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_version_is_refused_by_number_and_unknown_keys_are_not(name: str) -> None:
    with pytest.raises(wire.WireError, match="version 2, expected 1"):
        wire.decode(changed(name, version=2, epoch="of another kind", cameras=3))
    assert wire.decode(changed(name, from_the_future=[1, 2])) == wire.decode(golden(name))


BOMB = zstandard.ZstdCompressor().compress(bytes(64 << 20))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
WRONG = {
    "camera of another topic": ({"camera": "cam2"}, "expected the same camera"),
    "camera name": ({"camera": "cam1\n"}, "matching regex"),
    "negative seq": ({"seq": -1}, ">= 0"),
    "seq as text": ({"seq": "1"}, "Expected `int`, got `str` - at `\\$.seq`"),
    "huge frame": ({"width": 1 << 20}, "<= 16384"),
    "clock source": ({"clock_source": "sundial"}, "sundial"),
    "too many objects": ({"objects": [{}] * 1025}, "length <= 1024"),
    "objects as map": ({"objects": {}}, "Expected `array`"),
    "score nan": ({"object__score": float("nan")}, "expected finite"),
    "centroid inf": ({"object__centroid": [1.0, float("inf")]}, "expected finite"),
    "box outside": ({"object__box": [11, 5, 62, 25]}, "expected it inside 61 x 40"),
    "box reversed": ({"object__box": [45, 5, 11, 25]}, "expected x0 <= x1"),
    "box negative": ({"object__box": [-1, 5, 45, 25]}, ">= 0"),
    "box of three": ({"object__box": [11, 5, 45]}, "length 4"),
    "box beyond mask": ({"object__box": [0, 5, 45, 25]}, "expected its mask to cover it"),
    "equal ids": ({"object__id": 9}, "expected each one once"),
    "state": ({"object__state": "hiding"}, "hiding"),
    "mask encoding": ({"mask__encoding": "png"}, "png"),
    "mask off the byte": ({"mask__x0": 9}, "expected a multiple of 8"),
    "mask outside": ({"mask__width": 60}, "expected at most"),
    "mask rle partial": ({"mask__encoding": "coco_rle"}, r"expected \(0, 0\)"),
}
WRONG_DATA = {
    "bomb": ({"mask__data": BOMB}, "declares 67108864 bytes, expected 100 bytes"),
    "no declared size": ({"mask__data": UNSIZED}, "declares no size, expected 100 bytes"),
    "too small": ({"mask__data": zstandard.compress(bytes(99))}, "declares 99 bytes, expected 100"),
    "not zstd": ({"mask__data": b"123456789"}, "not a sound zstd frame"),
    "empty": ({"mask__data": b""}, "not a sound zstd frame"),
    "cut": ({"mask__data": zstandard.compress(bytes(range(100)))[:-5]}, "not a sound zstd frame"),
    "two frames": ({"mask__data": zstandard.compress(bytes(100)) * 2}, "not a sound zstd frame"),
    "data for nothing": (
        {"mask__width": 0, "mask__height": 0, "object__box": [0] * 4},
        "expected none for an empty mask",
    ),
}


@pytest.mark.parametrize("fields, expected", WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_refused_with_what_was_expected(fields: dict, expected: str) -> None:
    with pytest.raises(wire.WireError, match=expected):
        wire.decode(changed("masks_bits", **fields))


@pytest.mark.parametrize("fields, expected", WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_mask_data_is_refused_before_memory_is_reserved(fields: dict, expected: str) -> None:
    message = wire.decode(changed("masks_bits", **fields))
    assert isinstance(message, wire.MasksMessage)
    with pytest.raises(wire.WireError, match=expected):
        message.mask(7)
    with pytest.raises(wire.WireError, match=expected):
        message.masks()


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "cover 0 pixels, expected 4 x 5 = 20"),
        (b"5", "cover 5 pixels"),
        (b"d0d0", "cover 40 pixels"),
        (b"O", "runs of -1 to -1, expected 0 to 20"),
        (b"ooooooooo1", "10 characters, expected at most 7"),
        (b"oooooo?", "runs of"),
        (b"d", "ends within a run"),
        (b"\x01", "outside '0' to 'o'"),
        (b"\xff", "outside '0' to 'o'"),
    ],
)
def test_a_wrong_run_length_string_is_refused(data: bytes, expected: str) -> None:
    with pytest.raises(wire.WireError, match=expected):
        decode_coco_rle(data, height=4, width=5)


@pytest.mark.parametrize(
    "payload, expected",
    [
        (b"", "expected an ASCII topic"),
        (b"masks/cam1", "expected an ASCII topic"),
        (b"x" * 100 + b"\0\x80", "expected an ASCII topic"),
        ("masks/käm".encode() + b"\0\x80", "expected an ASCII topic"),
        (b"nonsense\0\x80", "topic 'nonsense', expected masks/"),
        (b"masks\0\x80", "missing required field"),
        (b"masks/cam1\0" + bytes(wire.MAX_MESSAGE_BYTES), "expected at most 16777216"),
        (b"masks/cam1\0\x81\xa1x" + b"\x91" * 100_000, "recursion"),
        (b"masks/cam1\0\xdf\xff\xff\xff\xff", "truncated"),
        (b"masks/cam1\0\x81\xa7objects\xdd\xff\xff\xff\xff", "length <= 1024|truncated"),
        (b"masks/cam1\0\x81\xa1\xff\x01", "camera|UTF-8|utf-8"),
        (b"masks/cam1\0\x90", "Expected `object`, got `array`"),
    ],
    ids=range(12),
)
def test_what_is_no_message_is_refused(payload: bytes, expected: str) -> None:
    with pytest.raises(wire.WireError, match=expected):
        wire.decode(payload)


@given(
    name=st.sampled_from(NAMES),
    edits=st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=6), st.integers(0, 4)), min_size=1, max_size=6),
)
@settings(max_examples=600)
def test_a_damaged_message_raises_wire_error_or_nothing(name: str, edits: list[tuple[int, bytes, int]]) -> None:
    payload = golden(name)
    for position, new, num_removed in edits:
        position %= len(payload)
        payload = payload[:position] + new + payload[position + num_removed :]
    try:
        read_all(payload)
    except wire.WireError as error:
        assert "\n" not in str(error)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [*fields_of(golden("masks_bits")), *(f"object__{key}" for key in fields_of(golden("masks_bits"))["objects"][0]),
     *(f"mask__{key}" for key in fields_of(golden("masks_bits"))["objects"][0]["mask"])]
)  # fmt: skip
SIZES = st.sampled_from([0, 1, 8, 16, 40, 48, 61, 16384])


@given(
    name=st.sampled_from(["masks_bits", "masks_coco_rle"]),
    fields=st.dictionaries(KEYS, VALUES | SIZES, min_size=1, max_size=3),
)
@settings(max_examples=400)
def test_fields_of_any_kind_raise_wire_error_or_nothing(name: str, fields: dict[str, object]) -> None:
    try:
        read_all(changed(name, **fields))
    except wire.WireError as error:
        assert "\n" not in str(error)


@given(data=st.binary(max_size=40), height=st.integers(0, 9), width=st.integers(0, 9))
def test_any_run_length_string_decodes_or_raises_wire_error(data: bytes, height: int, width: int) -> None:
    try:
        assert decode_coco_rle(data, height=height, width=width).shape == (height, width)
    except wire.WireError as error:
        assert "coco_rle" in str(error)


# --- the rest --------------------------------------------------------------------------------------------------------


def test_another_run_keeps_everything_else_also_what_is_unknown() -> None:
    body = fields_of(wire.with_run(changed("masks_bits", from_the_future={"a": [1.5]}), 77))
    assert body == fields_of(changed("masks_bits", from_the_future={"a": [1.5]}, run=77))
    with pytest.raises(wire.WireError):
        wire.with_run(b"info\0\xc1", 1)


def test_a_state_becomes_a_message_with_a_bounded_reason() -> None:
    state = CameraState("cam1", 3, CameraCondition.OFFLINE, "x" * 5000, 17, backend="compiled")
    message = wire.decode(wire.encode(wire.state_of(state, run=1, serial=2)))
    assert isinstance(message, wire.StateMessage)
    assert (message.camera, message.epoch, message.condition) == ("cam1", 3, CameraCondition.OFFLINE)
    assert len(message.reason) == 1024 and message.backend == "compiled"


def test_a_message_prints_as_json() -> None:
    fields = msgspec.json.decode(msgspec.json.encode(wire.decode(golden("masks_bits"))))
    assert base64.b64decode(fields["objects"][0]["mask"]["data"])[:4] == struct.pack("<I", 0xFD2FB528)


def test_the_small_mask_of_the_fakes_is_cut_within_bytes() -> None:
    x0, _, x1, _ = SMALL.boxes_n4[0]
    assert x0 % 8 and x1 % 8, "the tests want a box whose sides are not on byte boundaries"
