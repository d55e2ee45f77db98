"""The wire format, version 1: this text is the specification. A reader needs ZeroMQ, msgpack and zstd.

Owns: `encode`, `decode`, and how the worker's values become messages; the types are in `stream.message`. Runs in
any thread. Never: touches a socket, or raises anything but `WireError` for bytes from outside.

CARRIER. One ZeroMQ PUB socket; a message is ONE part: topic (ASCII), one NUL byte, body (one msgpack map, string
keys). Subscribe to the topic WITH its NUL (`masks/cam1` alone also brings `masks/cam10`), or to `masks/` for all
cameras. Camera names match [A-Za-z0-9_.-]{1,64}. For the newest only: one socket per topic with ZMQ_CONFLATE, set
before connecting. A message has at most 16 MiB.

    topic           body                  sent
    masks/<camera>  head, picture, masks  for every processed picture, also without objects; complete, never a delta
    frames/<camera> head, picture, frame  while somebody subscribes, at most info.frames_fps a second
    state/<camera>  head, state           on change, and again for late joiners
    info            head, info            on change, and again for late joiners

EVOLUTION. Readers ignore unknown keys; new keys do not raise `version`. A changed meaning does, and readers refuse a
version that they do not know.

    head     version       int      1
             run           int      names one life of the sender; not ordered. Another run: forget epoch, seq and serial
             serial        int      1, 2, 3, ... of this topic in this run; a jump = messages lost; equal = sent again
    picture  camera        str      as in the topic
             epoch, seq    int      order the pictures: drop what is not newer by (epoch, seq). seq counts decoded
                                    pictures; epoch rises when the tracker's memory of the camera was dropped
             frame_id      str      name of the camera's optical frame (robots)
             width, height int      of the picture, at most 16384; coordinates count pixels from its upper left corner
             pts_ns        int|nil  presentation time in the stream
             clock_source  str      what gave arrival_*: "arrival" (demultiplexed here), "driver" (webcam) or "sender"
             clock_id      str      names the monotonic clock: use *_ns only where it equals your own; "" = unknown. On
                                    Linux it is CLOCK_MONOTONIC, named by the first 8 characters of the kernel's boot_id
             arrival_ns, decoded_ns, inferred_ns, published_ns                  int  monotonic nanoseconds
             arrival_utc_ns, decoded_utc_ns, inferred_utc_ns, published_utc_ns  int  the same moments, Unix time in ns
    masks    num_dropped   int      pictures decoded but not published since this topic's last message
             model         str      what made the masks ...
             backend       str      ... and how it was run: in use then, not as configured
             requests      array of str  ids of the commands whose effect first shows here; usually empty
             objects       array of at most 1024 maps with distinct ids:
               id            int    0 or more
               label         str    may be empty
               state         str    "tracked", "reacquired" (visible again, in the first second after an absence of
                                    0.2 s or more; with the id that it had), "occluded" (not visible here) or "lost"
                                    (occluded for more than 2 s, still searched for)
               score         float  the object score, a logit: above 0 = visible. 0 = the model saw something that the
                                    memory policy "motion" did not take for this object
               predicted_iou float  the model's own estimate, 0 to 1
               box           [x0, y0, x1, y1]  int; x1, y1 exclusive; all 0 where the mask is empty
               area          int    pixels of the mask
               centroid      [x, y]|nil  float, pixels; nil where the mask is empty
               unseen_ns     int    nanoseconds since it was last visible, by arrival_ns; 0 = it is visible
               mask          map|nil     nil with encoding "none", else:
                 encoding      str  "bits" or "coco_rle"
                 x0, y0, width, height  int  the part of the picture that the mask covers; outside it is 0
                 data          bin  bits: x0 is a multiple of 8; one zstd frame that declares its content size: `height`
                                    rows of ceil(width / 8) bytes, most significant bit = leftmost pixel, padding 0;
                                    an empty mask has width 0, height 0 and no data.
                                    coco_rle: COCO's run-length string (ASCII), over the full picture
    frame    encoding      str      "jpeg"
             data          bin      the very picture that was tracked; join with masks by (run, epoch, seq)
    state    camera        str      as in the topic
             epoch         int      as above
             condition     str      "online", "offline", "frozen" (all frames alike), "paused", "unprompted" (frames
                                    arrive, there is no object to track) or "lost" (every object is)
             reason        str      for people
             utc_ns        int      since when, Unix time
             problem       str      what the operator must mend in the daemon as a whole; "" = nothing
             backend       str      how the model is run now; "" = not loaded yet
    info     software      str      version of the sender
             model         str      as above
             backend       str      as above
             mask_encoding str      "bits", "coco_rle" or "none"
             frames_fps    float    the limit for frames/<camera>
             control       str|nil  endpoint for commands
             clock_id      str      as above
             cameras       array of maps: name str, frame_id str, width int, height int (0 = not known yet)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from stream.frame import CameraState, Masks, Stamp
from stream.mask_codec import MASK_ENCODINGS, MaskEncoder, MaskEncoding, Patch, WireError
from stream.message import (
    CAMERA_NAME,
    MAX_OBJECTS,
    VERSION,
    CameraInfo,
    FrameMessage,
    Info,
    MasksMessage,
    Message,
    ObjectMask,
    Picture,
    StateMessage,
    local_clock_id,
)

__all__ = [
    "CAMERA_NAME",
    "MASK_ENCODINGS",
    "MAX_MESSAGE_BYTES",
    "VERSION",
    "CameraInfo",
    "FrameMessage",
    "Info",
    "MaskEncoder",
    "MaskEncoding",
    "MasksMessage",
    "Message",
    "ObjectMask",
    "Patch",
    "Picture",
    "StateMessage",
    "WireError",
    "decode",
    "encode",
    "local_clock_id",
    "objects_of",
    "picture_fields",
    "prefix",
    "split",
    "state_of",
    "with_run",
]  # fmt: skip

MAX_MESSAGE_BYTES = 16 << 20
MAX_TOPIC_BYTES = 71  # "frames/" and a camera's name
MAX_LOGIT = 1e4  # a score beyond it, or one that is not a number, is sent as this
KINDS: dict[str, type[Message]] = {"masks": MasksMessage, "frames": FrameMessage, "state": StateMessage, "info": Info}
DECODERS = {kind: msgspec.msgpack.Decoder(message_type) for kind, message_type in KINDS.items()}
HEAD = msgspec.msgpack.Decoder(Message)
ENCODER = msgspec.msgpack.Encoder()


def prefix(topic: str) -> bytes:
    """What to subscribe to for exactly this topic."""
    return topic.encode("ascii") + b"\0"


def encode(message: Message) -> bytes:
    """The one part that is sent."""
    return prefix(message.topic) + ENCODER.encode(message)


def split(payload: bytes) -> tuple[str, bytes]:
    """Topic and body of a message."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(payload)} bytes, expected at most {MAX_MESSAGE_BYTES}")
    topic, nul, _ = payload[: MAX_TOPIC_BYTES + 1].partition(b"\0")
    if not nul or not topic.isascii():
        expected = f"an ASCII topic of at most {MAX_TOPIC_BYTES} bytes and a NUL"
        raise WireError(f"message begins with {payload[:40]!r}, expected {expected}")
    return topic.decode("ascii"), payload[len(topic) + 1 :]


def decode(payload: bytes) -> Message:
    """The MasksMessage, FrameMessage, StateMessage or Info in these bytes; `WireError` says what is wrong with them."""
    topic, body = split(payload)
    decoder = DECODERS.get(topic.partition("/")[0])
    if decoder is None:
        raise WireError(f"topic {topic!r}, expected masks/, frames/ or state/<camera>, or info")
    try:
        version = HEAD.decode(body).version
        if version != VERSION:
            raise WireError(f"{topic}: version {version}, expected {VERSION}")
        message = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"{topic}: {exc}") from exc
    if message.topic != topic:
        raise WireError(f"topic {topic!r} holds a message of {message.topic!r}, expected the same camera in both")
    return message


def with_run(payload: bytes, run: int) -> bytes:
    """The same message as part of another run; all else is kept, also keys that this version does not know."""
    topic, body = split(payload)
    try:
        fields = msgspec.msgpack.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"{topic}: {exc}") from exc
    return prefix(topic) + ENCODER.encode(fields | {"run": msgspec.Raw(ENCODER.encode(run))})


def objects_of(masks: Masks, labels: Mapping[int, str], encoder: MaskEncoder) -> tuple[ObjectMask, ...]:
    """The tracker's masks as they are sent."""
    num_objects = len(masks.object_ids)
    assert num_objects <= MAX_OBJECTS, f"{num_objects} objects on one picture, expected at most {MAX_OBJECTS}"
    scores, ious = masks.scores.tolist(), masks.ious.tolist()
    boxes, areas, centroids = masks.boxes_n4.tolist(), masks.areas.tolist(), masks.centroids_n2.tolist()
    return tuple(
        ObjectMask(
            id=object_id, label=labels.get(object_id, "")[:1024], state=masks.states[row],
            score=_finite(scores[row], nan=-MAX_LOGIT), predicted_iou=_finite(ious[row], nan=0.0),
            box=(box := tuple(boxes[row])), area=areas[row],
            centroid=tuple(centroids[row]) if areas[row] else None,
            unseen_ns=masks.unseen_ns[row] if masks.unseen_ns else 0,
            patch=encoder.encode(masks.packed_nhb[row], box, width=masks.width),
        )
        for row, object_id in enumerate(masks.object_ids)
    )  # fmt: skip


def _finite(value: float, *, nan: float) -> float:
    """The number itself; what is none as `nan`, and no end as +-MAX_LOGIT."""
    if math.isfinite(value):
        return value
    return nan if math.isnan(value) else math.copysign(MAX_LOGIT, value)


def picture_fields(stamp: Stamp, masks: Masks | MasksMessage, *, inferred_ns: int) -> dict[str, Any]:
    """The fields of `Picture`, with this moment as the time of publication."""
    published_ns, published_utc_ns = time.monotonic_ns(), time.time_ns()
    offset_ns = published_utc_ns - published_ns
    return {
        "camera": stamp.camera, "epoch": stamp.epoch, "seq": stamp.seq,
        "frame_id": stamp.frame_id, "pts_ns": stamp.pts_ns,
        "width": masks.width, "height": masks.height, "clock_source": stamp.clock_source, "clock_id": local_clock_id(),
        "arrival_ns": stamp.arrival_ns, "arrival_utc_ns": stamp.arrival_utc_ns,
        "decoded_ns": stamp.decoded_ns, "decoded_utc_ns": stamp.decoded_ns + offset_ns,
        "inferred_ns": inferred_ns, "inferred_utc_ns": inferred_ns + offset_ns,
        "published_ns": published_ns, "published_utc_ns": published_utc_ns,
    }  # fmt: skip


def state_of(state: CameraState, *, run: int, serial: int) -> StateMessage:
    return StateMessage(
        run=run, serial=serial, camera=state.camera, epoch=state.epoch, backend=state.backend,
        condition=state.condition, reason=state.reason[:1024], utc_ns=state.utc_ns, problem=state.problem[:1024],
    )  # fmt: skip
